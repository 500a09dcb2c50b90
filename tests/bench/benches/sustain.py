"""`sustain`: lateness, acknowledgements, CPU and memory under a steady stream: 1,157 a second are 100 million a day."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.bed import Shape
from tests.bench.drains import warm_up
from tests.bench.options import size
from tests.bench.session import Line, Place, Session, say
from tests.bench.streams import Flow, stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Sustain:
    """A steady stream of jobs that wait for their time: lateness, acknowledgements, CPU, memory."""

    rate: float = size(1157.0, 40.0, "Jobs a second, on average.")
    seconds: float = size(600.0, 5.0, "How long the stream goes on, a round.")
    due_min: float = size(30.0, 1.0, "Seconds from a submission to its due time, at least.")
    due_max: float = size(90.0, 2.0, "Seconds from a submission to its due time, at most.")
    warm_up: int = size(30_000, 50, "Jobs of the warm-up.")

    def run(self, session: Session) -> None:
        place = session.place(Shape())
        warm_up(place, self.warm_up, session.seed)
        names = {"bench": "sustain", "rate_per_s": self.rate, "seconds": self.seconds, "seed": session.seed}
        session.tell_rounds(names, self._rounds(session, place))

    def _rounds(self, session: Session, place: Place) -> Iterator[Line]:
        flow = Flow(rate=self.rate, seconds=self.seconds, due_min_s=self.due_min, due_max_s=self.due_max)
        for number in range(session.rounds):
            say(f"sustain: round {number + 1} of {session.rounds}, {self.seconds:.0f} s")
            with stream(place, flow, session.seed * 1000 + number) as running:
                running.window.watch()
                told = running.told()
                finished = place.log.until_recorded(running.since, told["submitted"])
            yield {
                **running.window.figures(finished.firsts),
                "ack_ms": told["ack_ms"],
                "refused": told["refused"],
                "repeated": len(finished.attempts) - len(finished.firsts),
            }
