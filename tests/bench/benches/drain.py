"""`drain`: how many jobs a second come through when all are due now, from the first submission to the last record."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.bed import Shape
from tests.bench.drains import drain, warm_up
from tests.bench.options import size
from tests.bench.session import Line, Place, Session, say

#: By name, how many callers submit one by one.
WAYS = {"bulk": 0, "one caller": 1, "eight callers": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Jobs due now: jobs a second from the first submission to the last recorded completion."""

    jobs: int = size(60_000, 300, "Jobs of a round.")
    warm_up: int = size(30_000, 50, "Jobs of the warm-up.")

    def run(self, session: Session) -> None:
        place = session.place(Shape())
        warm_up(place, self.warm_up, session.seed)
        for way in WAYS:
            names = {"bench": "drain", "way": way, "seed": session.seed}
            session.tell_rounds(names, self._rounds(session, place, way))

    def _rounds(self, session: Session, place: Place, way: str) -> Iterator[Line]:
        for number in range(session.rounds):
            say(f"drain {way}: round {number + 1} of {session.rounds}")
            plan = {"make": "due_now", "seed": session.seed * 1000 + number, "count": self.jobs}
            yield drain(place, plan, callers=WAYS[way])
