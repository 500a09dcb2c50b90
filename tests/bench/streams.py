"""A stream of jobs that wait for their time, and what is seen of the platform meanwhile."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from dueline.job import Priority
from tests.bench.figures import percentiles, slope
from tests.bench.helper import Helper, helper
from tests.bench.meter import Usage, now_s
from tests.bench.runs_log import Attempt, Ends
from tests.bench.session import Place

#: Between two looks at memory and CPU: each costs some milliseconds.
SAMPLE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """How much comes, and for how long."""

    rate: float
    seconds: float
    due_min_s: float
    due_max_s: float

    @property
    def settle_s(self) -> float:
        """From here on, and until the stream ends, jobs fall due at the full rate."""
        return self.due_max_s


@dataclass(slots=True, kw_only=True)
class Watched:
    """A stream that goes on."""

    place: Place
    flow: Flow
    submitter: Helper
    #: Where the log ended before it.
    since: Ends
    begun_s: float
    begun_ms: int
    samples: list[Usage] = field(default_factory=list)

    @property
    def window_ms(self) -> tuple[int, int]:
        """Jobs that are due from the first to the second of these count."""
        settled, over = round(self.flow.settle_s * 1000), round(self.flow.seconds * 1000)
        return self.begun_ms + settled, self.begun_ms + over

    def watch(self) -> None:
        """Take samples until the stream ends, the first of them when it has settled."""
        at_s = self.begun_s + self.flow.settle_s
        end_s = self.begun_s + self.flow.seconds
        while True:
            time.sleep(max(0.0, at_s - now_s()))
            self.samples.append(self.place.bed.usage(self.submitter.pid))
            if at_s == end_s:
                return
            at_s = end_s if end_s - at_s < 1.5 * SAMPLE_S else at_s + SAMPLE_S

    def within(self, attempts: Sequence[Attempt]) -> Sequence[Attempt]:
        begin, end = self.window_ms
        return [attempt for attempt in attempts if begin <= attempt.due_ms < end]

    def figures(self, attempts: Sequence[Attempt]) -> dict[str, Any]:
        """What was seen within the window."""
        jobs = len(attempts)
        return {
            "jobs": jobs,
            **lateness_figures(attempts),
            **self.samples[-1].cpu_since(self.samples[0], max(jobs, 1)),
            "memory_mb": self.samples[-1].memory_mb,
            "memory_mb_per_minute": self._growth(),
            "series": self._series(),
        }

    def _growth(self) -> dict[str, float]:
        """By least squares, so that a garbage collection at either end does not matter."""
        at_minutes = [(sample.at_s - self.begun_s) / 60 for sample in self.samples]
        names = self.samples[0].memory_mb
        memory = {name: [sample.memory_mb[name] for sample in self.samples] for name in names}
        return {name: round(slope(at_minutes, values), 2) for name, values in memory.items()}

    def _series(self) -> dict[str, Any]:
        return {
            "at_s": [round(sample.at_s - self.begun_s, 1) for sample in self.samples],
            "memory_mb": {
                name: [sample.memory_mb[name] for sample in self.samples]
                for name in self.samples[0].memory_mb
            },
        }


@contextmanager
def stream(place: Place, flow: Flow, seed: int) -> Iterator[Watched]:
    """Jobs are submitted and fall due, from the begin of the block on."""
    since = place.log.ends()
    arguments = {
        "--kafka": place.bed.settings.kafka,
        "--seed": seed,
        "--rate": flow.rate,
        "--seconds": flow.seconds,
        "--settle": flow.settle_s,
        "--due-min": flow.due_min_s,
        "--due-max": flow.due_max_s,
    }
    words = [word for pair in arguments.items() for word in pair]
    with helper("tests.bench.stream", *words) as submitter:
        submitter.go()
        yield Watched(
            place=place,
            flow=flow,
            submitter=submitter,
            since=since,
            begun_s=now_s(),
            begun_ms=time.time_ns() // 1_000_000,
        )


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
