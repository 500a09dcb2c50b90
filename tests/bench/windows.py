"""A span of time in which a platform is watched: what jobs that fall due in it met, and what was used meanwhile."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dueline.job import Priority
from tests.bench.figures import percentiles, slope
from tests.bench.meter import Usage, now_s, wall_ms_at
from tests.bench.runs_log import Attempt
from tests.bench.session import Place

#: Between two looks at memory and CPU: each costs some milliseconds.
SAMPLE_S = 5.0


@dataclass(slots=True, kw_only=True)
class Window:
    """By CLOCK_BOOTTIME, in seconds."""

    place: Place
    #: Whose CPU time counts beside the platform's.
    submitter: int | None
    begin_s: float
    end_s: float
    samples: list[Usage] = field(default_factory=list)

    def watch(self) -> None:
        """Take samples from its begin to its end."""
        at_s = self.begin_s
        while True:
            time.sleep(max(0.0, at_s - now_s()))
            self.samples.append(self.place.bed.usage(self.submitter))
            if at_s >= self.end_s:
                return
            at_s = self.end_s if self.end_s - at_s < 1.5 * SAMPLE_S else at_s + SAMPLE_S

    def holds(self, attempts: Sequence[Attempt]) -> Sequence[Attempt]:
        """Those that were due in it."""
        begin_ms, end_ms = wall_ms_at(self.begin_s), wall_ms_at(self.end_s)
        return [attempt for attempt in attempts if begin_ms <= attempt.due_ms < end_ms]

    def figures(self, attempts: Sequence[Attempt]) -> dict[str, Any]:
        """What those met that were due in it, and what all used."""
        held = self.holds(attempts)
        return {
            "jobs": len(held),
            **lateness_figures(held),
            **self.samples[-1].cpu_since(self.samples[0], max(len(held), 1)),
            "memory_mb": self.samples[-1].memory_mb,
            "memory_mb_per_minute": self._growth(),
            "series": self._series(),
        }

    def _growth(self) -> dict[str, float]:
        """By least squares, so that a garbage collection at either end does not matter."""
        at_minutes = [(sample.at_s - self.begin_s) / 60 for sample in self.samples]
        return {name: round(slope(at_minutes, values), 2) for name, values in self._memory().items()}

    def _series(self) -> dict[str, Any]:
        at_s = [round(sample.at_s - self.begin_s, 1) for sample in self.samples]
        return {"at_s": at_s, "memory_mb": self._memory()}

    def _memory(self) -> dict[str, list[float]]:
        names = self.samples[0].memory_mb
        return {name: [sample.memory_mb[name] for sample in self.samples] for name in names}


def lateness_figures(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Of all, and of each priority."""
    by_priority = {
        priority.value: percentiles([a.lateness_ms for a in attempts if a.priority is priority])
        for priority in Priority
    }
    return {
        "lateness_ms": percentiles([attempt.lateness_ms for attempt in attempts]),
        "lateness_ms_by_priority": by_priority,
    }
