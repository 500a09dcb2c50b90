"""`boundary`: as many jobs as anybody has at midnight, all due at one instant: alone, and while a stream goes on."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.bed import Shape
from tests.bench.drains import submitter, warm_up
from tests.bench.figures import percentiles
from tests.bench.made_jobs import wall_ms
from tests.bench.meter import wall_ms_at
from tests.bench.options import size
from tests.bench.runs_log import Attempt, Ends
from tests.bench.session import Line, Place, Session, say
from tests.bench.streams import Flow, stream
from tests.bench.windows import lateness_figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """Jobs that are due at one instant, one in three of each priority: alone, and beside a steady stream."""

    alone: int = size(20_000, 60, "Jobs of the instant, with nothing beside.")
    jobs: int = size(70_000, 60, "Jobs of the instant, beside the stream.")
    rate: float = size(1157.0, 20.0, "Jobs a second of the stream.")
    due_min: float = size(30.0, 1.0, "Seconds from a submission of the stream to its due time, at least.")
    due_max: float = size(90.0, 2.0, "Seconds from a submission of the stream to its due time, at most.")
    multiple: int = size(60, 1, "The instant is a multiple of so many seconds since the epoch.")
    lead: float = size(90.0, 10.0, "Seconds from the first submission to the instant, at least.")
    after: float = size(60.0, 3.0, "Seconds for which the stream goes on behind the instant.")
    warm_up: int = size(30_000, 50, "Jobs of the warm-up.")

    def run(self, session: Session) -> None:
        place = session.place(Shape())
        warm_up(place, self.warm_up, session.seed)
        for beside, rounds in (("nothing", self._alone), ("the stream", self._beside_stream)):
            names = {"bench": "boundary", "beside": beside, "seed": session.seed}
            session.tell_rounds(names, rounds(session, place))

    def _alone(self, session: Session, place: Place) -> Iterator[Line]:
        for number in range(session.rounds):
            say(f"boundary alone: round {number + 1} of {session.rounds}")
            instant_ms = self._instant_ms(self.lead)
            since, lead_s = self._submit(place, self.alone, session.seed * 1000 + number, instant_ms)
            time.sleep(max(0.0, (instant_ms - wall_ms()) / 1000 - 0.5))
            before = place.bed.usage()
            finished = place.log.until_recorded(since, self.alone)
            after = place.bed.usage()
            yield {
                **figures_at(instant_ms, finished.firsts),
                "recorded_after_s": round((wall_ms_at(finished.recorded_s) - instant_ms) / 1000, 2),
                "lead_s": lead_s,
                **after.cpu_since(before, self.alone),
            }

    def _beside_stream(self, session: Session, place: Place) -> Iterator[Line]:
        for number in range(session.rounds):
            say(f"boundary beside the stream: round {number + 1} of {session.rounds}")
            seed = session.seed * 1000 + number
            instant_ms = self._instant_ms(self.lead + 1.5 * self.due_max)
            since, lead_s = self._submit(place, self.jobs, seed, instant_ms)
            seconds = (instant_ms - wall_ms()) / 1000 + self.after
            flow = Flow(rate=self.rate, seconds=seconds, due_min_s=self.due_min, due_max_s=self.due_max)
            with stream(place, flow, seed) as running:
                running.window.watch()
                told = running.told()
                finished = place.log.until_recorded(since, told["submitted"] + self.jobs)
            streamed = [a for a in running.window.holds(finished.firsts) if a.due_ms != instant_ms]
            earlier = [a.lateness_ms for a in streamed if a.due_ms < instant_ms]
            later = [a.lateness_ms for a in streamed if a.due_ms > instant_ms]
            yield {
                **figures_at(instant_ms, finished.firsts),
                "lead_s": lead_s,
                "stream_lateness_ms_before": percentiles(earlier),
                "stream_lateness_ms_after": percentiles(later),
                "ack_ms": told["ack_ms"],
                "refused": told["refused"],
            }

    def _instant_ms(self, lead_s: float) -> int:
        unit_ms = self.multiple * 1000
        return -(-(wall_ms() + round(lead_s * 1000)) // unit_ms) * unit_ms

    def _submit(self, place: Place, jobs: int, seed: int, instant_ms: int) -> tuple[Ends, float]:
        """Also tells how many seconds are left to the instant when all are accepted; few or none spoil the round."""
        since = place.log.ends()
        with submitter(place, {"make": "due_at", "seed": seed, "count": jobs, "due_ms": instant_ms}) as found:
            found.go()
            found.told()
        place.log.until_accepted()
        return since, round((instant_ms - wall_ms()) / 1000, 1)


def figures_at(instant_ms: int, attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Of the jobs that were due at the instant."""
    due = [attempt for attempt in attempts if attempt.due_ms == instant_ms]
    last_ms = max((attempt.started_ms for attempt in due), default=instant_ms)
    return {"jobs": len(due), "last_start_after_s": (last_ms - instant_ms) / 1000, **lateness_figures(due)}
