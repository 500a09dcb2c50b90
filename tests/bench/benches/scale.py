"""`scale`: what more processes bring where jobs wait instead of compute, and what more partitions cost."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.bed import Shape
from tests.bench.drains import drain, warm_up
from tests.bench.options import size
from tests.bench.session import Line, Place, Session, say


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """One, two and four executors and schedulers with jobs that wait; 4, 16 and 64 partitions."""

    processes_max: int = size(4, 2, "Executors and schedulers: 1, 2, 4 and so on up to so many.")
    slots: int = size(32, 4, "Slots of each executor.")
    nap: float = size(0.5, 0.2, "Seconds that a job waits.")
    naps: int = size(1_600, 20, "Jobs of a round, for each executor.")
    partitions_min: int = size(4, 4, "Partitions: from so many, four times as many, and so on …")
    partitions_max: int = size(64, 4, "… up to so many.")
    jobs: int = size(60_000, 100, "Jobs of a drain, for each number of partitions.")
    idle: float = size(30.0, 2.0, "Seconds for which nothing is submitted, to see what it costs.")
    warm_up: int = size(30_000, 50, "Jobs of the warm-up.")

    def run(self, session: Session) -> None:
        processes = 1
        while processes <= self.processes_max:
            place = session.place(Shape(schedulers=processes, executors=processes, slots=self.slots))
            warm_up(place, self.warm_up, session.seed)
            names = {"bench": "scale", "executors": processes, "seed": session.seed}
            session.tell_rounds(names, self._naps(session, place, processes))
            processes *= 2
        partitions = self.partitions_min
        while partitions <= self.partitions_max:
            place = session.place(Shape(partitions=partitions))
            warm_up(place, self.warm_up, session.seed)
            names = {"bench": "scale", "partitions": partitions, "seed": session.seed}
            session.tell_rounds(names, self._drains(session, place))
            partitions *= 4

    def _naps(self, session: Session, place: Place, processes: int) -> Iterator[Line]:
        at_best = processes * self.slots / self.nap
        for number in range(session.rounds):
            say(f"scale, {processes} executors: round {number + 1} of {session.rounds}")
            seed, count = session.seed * 1000 + number, self.naps * processes
            done = drain(place, {"make": "naps", "seed": seed, "count": count, "seconds": self.nap})
            yield {**done, "share_of_best": round(done["jobs_per_s"] / at_best, 3)}

    def _drains(self, session: Session, place: Place) -> Iterator[Line]:
        for number in range(session.rounds):
            say(f"scale, {place.bed.shape.partitions} partitions: round {number + 1} of {session.rounds}")
            seed = session.seed * 1000 + number
            done = drain(place, {"make": "due_now", "seed": seed, "count": self.jobs})
            before = place.bed.usage()
            time.sleep(self.idle)
            yield {**done, "cores_busy_idle": place.bed.usage().cpu_since(before, 1)["cores_busy"]}
