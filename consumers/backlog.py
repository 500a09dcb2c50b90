"""The ready runs that wait for a slot of this executor, and the order in which they get one."""

import heapq
from collections import defaultdict, deque
from collections.abc import Collection
from dataclasses import dataclass

from consumers.findings import NOTHING, Past
from dueline.job import Priority
from dueline.policies import Overlap
from dueline.runs import ReadyRun, RunKey

#: A run that is later than this goes before all that is not: a third of the fifteen minutes within which each is to
#: start, so low priorities get through while the high ones do not end.
AGING_LIMIT_MS = 5 * 60_000
_RANK = {priority: rank for rank, priority in enumerate(Priority)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A ready run, and the record that it came in."""

    #: The run as it is to be performed: under a higher attempt than its record's, if that was begun in vain before.
    run: ReadyRun
    #: What the record asks for.
    key: RunKey
    #: Topic and partition.
    place: tuple[str, int]
    offset: int
    #: The run's bytes, for the slot that performs it.
    record: bytes
    #: What former owners of the shard have done for it.
    past: Past = NOTHING
    #: Whether it starts only when its start is in the log.
    announced: bool = False

    @property
    def partition(self) -> int:
        return self.place[1]


class Backlog:
    """High before normal before low, then by emit time; one run of a job at a time.

    What becomes of a run whose job is being performed when it comes, or when its turn comes, is for its overlap policy to say.
    A retry always waits: its run has begun.
    """

    def __init__(self) -> None:
        self._heaps: dict[Priority, list[tuple[int, int, Taken]]] = {priority: [] for priority in Priority}
        self._arrivals = 0
        #: Runs whose job is being performed, in the order of their turn.
        self._behind: defaultdict[str, deque[Taken]] = defaultdict(deque)
        self._performed: set[str] = set()
        self._count = 0
        #: Runs that their policy leaves out, and the jobs whose performed run has to make room. For the performer to take.
        self.skipped: list[Taken] = []
        self.displaced: set[str] = set()

    def __len__(self) -> int:
        """How many runs wait."""
        return self._count

    def add(self, taken: Taken) -> None:
        self._count += 1
        if taken.run.job_id in self._performed:
            self._overlap(taken)
        else:
            self._push(taken)

    def next(self, now_ms: int) -> Taken | None:
        """The run whose turn it is, from now on performed; None if none may start."""
        while (heap := self._first_heap(now_ms)) is not None:
            taken = heapq.heappop(heap)[2]
            if taken.run.job_id in self._performed:
                self._overlap(taken)
                continue
            self._performed.add(taken.run.job_id)
            self._count -= 1
            return taken
        return None

    def ended(self, taken: Taken) -> None:
        """The run is performed no more: the next of its job may have its turn."""
        job_id = taken.run.job_id
        self._performed.discard(job_id)
        self.displaced.discard(job_id)  # or the one behind it would be ended in its place
        if job_id in self._behind:
            self._push(self._behind[job_id].popleft())
            if not self._behind[job_id]:
                del self._behind[job_id]

    def drop(self, shards: Collection[int]) -> None:
        """Forget what waits of shards that are given up; their next owner reads it again."""
        for heap in self._heaps.values():
            heap[:] = [entry for entry in heap if entry[2].partition not in shards]
            heapq.heapify(heap)
        for job_id, waiting in list(self._behind.items()):
            if waiting[0].partition in shards:
                del self._behind[job_id]
        self.skipped = [taken for taken in self.skipped if taken.partition not in shards]
        self._count = sum(map(len, self._heaps.values())) + sum(map(len, self._behind.values()))

    def _overlap(self, taken: Taken) -> None:
        """Have a run wait for the one of its job that is performed, or not."""
        job_id, policy = taken.run.job_id, taken.run.overlap
        is_one_too_many = policy is Overlap.SKIP or (policy is Overlap.QUEUE_ONE and job_id in self._behind)
        if taken.run.attempt == 1 and is_one_too_many:
            self._count -= 1
            self.skipped.append(taken)
            return
        waiting = self._behind[job_id]
        if policy is Overlap.CANCEL_RUNNING and taken.run.attempt == 1:
            self.displaced.add(job_id)
            # It would displace them too, as soon as they begin.
            older = [other for other in waiting if other.run.attempt == 1 and other.run.overlap is policy]
            for other in older:
                waiting.remove(other)
            self._count -= len(older)
            self.skipped += older
        waiting.append(taken)

    def _push(self, taken: Taken) -> None:
        self._arrivals += 1
        heapq.heappush(self._heaps[taken.run.priority], (taken.run.emit_ms, self._arrivals, taken))

    def _first_heap(self, now_ms: int) -> list[tuple[int, int, Taken]] | None:
        def turn(heap: list[tuple[int, int, Taken]]) -> tuple[int, int]:
            emit_ms, _, taken = heap[0]
            aged = now_ms - emit_ms > AGING_LIMIT_MS
            return (0 if aged else _RANK[taken.run.priority]), emit_ms

        return min((heap for heap in self._heaps.values() if heap), key=turn, default=None)
