"""What one shard has to emit, when, and how much of it is acknowledged. No I/O: records leave through `publish`.

The wheel's account is a queue of emissions in the order in which they were sent. Each names the cursor and the
submissions offset that hold once it and all before it are acknowledged, so the account moves forward from its head
alone, and what is stored is always true together.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dueline.address import READY
from dueline.job import Priority
from dueline.runs import RunKey
from infra.publisher import Placed
from infra.store import Position, ScheduledRun

#: Rows sent in one go: a few milliseconds' work, so that other shards of this process get their turn.
SEND_MAX = 500
#: Rows sent and not acknowledged: more would only wait in the producer, and a full one is an error there.
UNDER_WAY_MAX = 10_000

PRIORITY_OF = {topic: priority for priority, topic in READY.items()}

#: Sends rows, in order, and tells where they lie once all are acknowledged.
Publish = Callable[[Sequence[ScheduledRun]], Awaitable[Sequence[Placed]]]
#: Makes the rows that follow upon emitted ones of recurring jobs durable, and returns them.
Follow = Callable[[Sequence[ScheduledRun]], Awaitable[Sequence[ScheduledRun]]]


@dataclass(slots=True)
class _Admission:
    """Rows that have become durable but are late, and the submissions offset that holds when they are emitted."""

    rows: Sequence[ScheduledRun]
    submissions: int
    satisfied: "asyncio.Future[None]"


@dataclass(slots=True)
class _Emission:
    """Rows that were sent together, and what may be stored once they are acknowledged."""

    #: The cursor that holds then; None if it says nothing about it.
    cursor_ms: int | None
    submissions: int | None
    #: The latest emit time among its rows.
    latest_ms: int
    rows: int
    satisfied: "asyncio.Future[None] | None" = None
    done: bool = False
    #: The span of its records in each ready partition: first offset and end.
    spans: dict[Priority, tuple[int, int]] = field(default_factory=dict)


class Wheel:
    """The heap of a shard's rows and the account of what was emitted."""

    def __init__(
        self,
        *,
        cursor_ms: int,
        submissions: int,
        ready: Mapping[Priority, int],
        emitted: Iterable[RunKey],
        publish: Publish,
        follow: Follow,
        progress: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        #: What holds now, and may be stored.
        self.cursor_ms = cursor_ms
        self.submissions = submissions
        #: How far the schedule has been read: every row at or before it is in the heap, or was.
        self.position: Position = (cursor_ms, "", 0)
        #: While a page of a bucket is being read, the end of that bucket: rows before it may be in the page or not.
        self.reading_until_ms = 0
        self._ready = dict(ready)
        self._emitted = set(emitted)
        self._publish = publish
        self._follow = follow
        self._progress = progress
        self._failed = failed
        self._heap: list[tuple[Position, ScheduledRun]] = []
        self._keys: set[RunKey] = set()
        self._expected: set[RunKey] = set()
        self._admissions: deque[_Admission] = deque()
        self._account: deque[_Emission] = deque()
        self._claimed_ms = cursor_ms  # the highest cursor that an emission in the account may lead to
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def ready(self) -> Mapping[Priority, int]:
        """In each ready partition, the offset below which no record matters to what is not acknowledged yet."""
        lowest = dict(self._ready)
        for emission in self._account:
            for priority, (first, _) in emission.spans.items():
                lowest[priority] = min(lowest[priority], first)
        return lowest

    def expect(self, rows: Iterable[ScheduledRun]) -> None:
        """Announce rows that are about to be made durable and admitted.

        Until then the reading of the schedule passes them over. Emitted earlier, they could be acknowledged, and their
        ready offsets stored, before their submissions count as satisfied: the next owner would emit them again.
        """
        self._expected.update(row.key for row in rows)

    def admit(self, rows: Sequence[ScheduledRun], submissions: int) -> "asyncio.Future[None]":
        """Take in expected rows that are durable by now, and that a batch of submissions asked for.

        The future ends when every submission below the offset is satisfied.
        """
        self._expected.difference_update(row.key for row in rows)
        late = [row for row in rows if row.emit_ms < self._claimed_ms]
        self.add(row for row in rows if row.emit_ms >= self._claimed_ms)
        admission = _Admission(late, submissions, asyncio.get_running_loop().create_future())
        self._admissions.append(admission)
        return admission.satisfied

    def add(self, rows: Iterable[ScheduledRun]) -> None:
        """Put durable rows into the heap, unless the reading of the schedule is still to come to them."""
        for row in rows:
            if row.position <= self.position or row.emit_ms < self.reading_until_ms:
                self._push(row)

    def read(self, rows: Iterable[ScheduledRun], position: Position) -> None:
        """Put a page of the schedule into the heap; all up to `position` has been read with it."""
        for row in rows:
            if row.key not in self._expected:
                self._push(row)
        self.position = position

    def step(self, now_ms: int) -> int | None:
        """Emit what is due. Returns when to step again, at the latest: the next emit time, or None for any time."""
        while self._admissions and self._under_way < UNDER_WAY_MAX:
            admission = self._admissions.popleft()
            latest_ms = max((row.emit_ms for row in admission.rows), default=0)
            emission = _Emission(
                None, admission.submissions, latest_ms, len(admission.rows), admission.satisfied
            )
            self._emit(emission, admission.rows)
        room = min(SEND_MAX, UNDER_WAY_MAX - self._under_way)
        if room <= 0:
            return None  # the progress of what is under way calls for the next step
        due = self._pop_due(now_ms, room)
        complete = len(due) < room
        # Rows at the instant of the position itself may not all be read yet, so the cursor stops there.
        cursor_ms = min(now_ms + 1, self.position[0]) if complete else due[-1].emit_ms
        if due or cursor_ms > self._claimed_ms:
            self._claimed_ms = max(cursor_ms, self._claimed_ms)
            latest_ms = due[-1].emit_ms if due else 0
            self._emit(_Emission(self._claimed_ms, None, latest_ms, len(due)), due)
        if not complete:
            return now_ms
        return self._heap[0][1].emit_ms if self._heap and self._heap[0][0] <= self.position else None

    async def close(self, timeout_s: float) -> None:
        """Wait for what is under way, at most so long; what is not acknowledged then stays in the account."""
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=timeout_s)
            for task in left:
                task.cancel()

    def _push(self, row: ScheduledRun) -> None:
        if row.key not in self._keys:
            self._keys.add(row.key)
            heapq.heappush(self._heap, (row.position, row))

    def _pop_due(self, now_ms: int, room: int) -> list[ScheduledRun]:
        due: list[ScheduledRun] = []
        while self._heap and len(due) < room:
            position, row = self._heap[0]
            if row.emit_ms > now_ms or position > self.position:
                break
            heapq.heappop(self._heap)
            self._keys.discard(row.key)
            due.append(row)
        return due

    def _emit(self, emission: _Emission, rows: Sequence[ScheduledRun]) -> None:
        self._account.append(emission)
        self._under_way += emission.rows
        if not rows:
            emission.done = True
            self._settle()
            return
        task = asyncio.create_task(self._send(emission, rows))
        self._tasks.add(task)
        task.add_done_callback(self._sent)

    async def _send(self, emission: _Emission, rows: Sequence[ScheduledRun]) -> None:
        while rows:
            fresh = [row for row in rows if row.key not in self._emitted]
            # The next run of a recurring job is durable before the cursor passes this one, emitted now or before.
            recurring = [row for row in rows if row.definition is not None]
            if recurring:
                sent, following = await asyncio.gather(self._publish(fresh), self._follow(recurring))
            else:
                sent, following = await self._publish(fresh), ()
            self.add(row for row in following if row.emit_ms >= self._claimed_ms)
            # Behind the cursor nobody would look for them: they belong to this emission.
            rows = [row for row in following if row.emit_ms < self._claimed_ms]
            for place in sent:
                priority = PRIORITY_OF[place.topic]
                first, end = emission.spans.get(priority, (place.offset, 0))
                emission.spans[priority] = (min(first, place.offset), max(end, place.offset + 1))
        emission.done = True
        self._settle()

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._failed(error)
        self._progress()

    def _settle(self) -> None:
        """Move the account forward over what is acknowledged from its head on.

        A cursor may be stored only when it lies beyond all rows that the stored ready offsets pass over: rows at the
        very instant of a cursor would be read again by the next owner and not be found emitted.
        """
        latest_ms, passed = 0, 0
        for index, emission in enumerate(self._account):
            if not emission.done:
                break
            if emission.satisfied and not emission.satisfied.done():
                emission.satisfied.set_result(None)
            latest_ms = max(latest_ms, emission.latest_ms)
            if max(self.cursor_ms, emission.cursor_ms or 0) > latest_ms:
                passed = index + 1
        for _ in range(passed):
            emission = self._account.popleft()
            self._under_way -= emission.rows
            self.cursor_ms = max(self.cursor_ms, emission.cursor_ms or 0)
            self.submissions = max(self.submissions, emission.submissions or 0)
            for priority, (_, end) in emission.spans.items():
                self._ready[priority] = max(self._ready[priority], end)
