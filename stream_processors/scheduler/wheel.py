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
from dueline.runs import RunEvent, RunKey
from dueline.scheduling.judge import LEFT_OUT_MAX, Judged
from dueline.scheduling.values import Position, ScheduledRun
from infra.publisher import Placed

#: Rows sent in one go: a few milliseconds' work, so that other shards of this process get their turn.
SEND_MAX = 500
#: Rows sent and not acknowledged: more would only wait in the producer, and a full one is an error there.
UNDER_WAY_MAX = 10_000
#: Due times that are left out in one go, of all rows together: as many as one row may leave out. Behind an outage of a night five
#: hundred rows of cron expressions would keep the event loop for half a minute.
EVENTS_MAX = LEFT_OUT_MAX

#: What tells two rows apart: the run's key, and for a first attempt the submission too, since two versions of a job may have rows
#: for one due time. A retry that was asked for twice is one.
Identity = tuple[str, int, int]

PRIORITY_OF = {topic: priority for priority, topic in READY.items()}

#: Sends rows, in order, and what ended instead of being emitted; tells where they lie once all are acknowledged.
Publish = Callable[[Sequence[ScheduledRun], Sequence[RunEvent]], Awaitable[Sequence[Placed]]]
#: What becomes of a row at a time at which it is due.
Verdict = Callable[[ScheduledRun, int], Judged]
#: Makes rows durable.
Save = Callable[[Sequence[ScheduledRun]], Awaitable[None]]


@dataclass(slots=True)
class _Admission:
    """Rows that are late, and the submissions offset that holds when they are emitted; None if it says nothing about that."""

    rows: Sequence[ScheduledRun]
    submissions: int | None
    #: What it is held by in the account, until an admission that releases it: see `Wheel.admit_early`.
    held_by: object = None
    releases: object = None


@dataclass(slots=True)
class _Emission:
    """Rows that were sent together, and what may be stored once they are acknowledged."""

    #: The cursor that holds then; None if it says nothing about it.
    cursor_ms: int | None
    submissions: int | None
    #: How many rows it was made for; those that follow upon them and are late join it without being counted.
    rows: int
    #: As in its admission.
    held_by: object = None
    releases: object = None
    #: The rows that were sent with it, and the latest emit time among them.
    sent: list[Identity] = field(default_factory=list)
    latest_ms: int = 0
    done: bool = False
    #: The span of its records in each ready partition: first offset and end.
    spans: dict[Priority, tuple[int, int]] = field(default_factory=dict)
    #: While records are sent of which it is not known yet where they lie, what lay there before: they lie behind that.
    behind: dict[Priority, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Seen:
    """What is done at the head of the account, and may not leave it yet."""

    #: The cursor that holds when it does, and what that has to lie beyond.
    cursor_ms: int
    latest_ms: int = 0
    #: How many emissions.
    count: int = 0
    holds: set[object] = field(default_factory=set)


class Wheel:
    """The heap of a shard's rows and the account of what was emitted."""

    def __init__(
        self,
        *,
        cursor_ms: int,
        submissions: int,
        ready: Mapping[Priority, int],
        emitted: Mapping[RunKey, int],
        #: The ends of what was read of the ready partitions to find those.
        found_ends: Mapping[Priority, int],
        unread: int,
        publish: Publish,
        judge: Verdict,
        save: Save,
        #: A step is called for, before the time that the last one told.
        progress: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        #: What holds now, and may be stored.
        self.cursor_ms = cursor_ms
        self.submissions = submissions
        #: How far the schedule has been read: every row at or before it is in the heap, or was.
        self.position: Position = (cursor_ms, "", 0, 0)
        #: While a page of a bucket is being read, the end of that bucket: rows before it may be in the page or not.
        self.reading_until_ms = 0
        self._ready = dict(ready)
        #: The ends of what is known to lie in the ready partitions.
        self._ends = dict(ready)
        #: What former owners have emitted, as found in the log from these offsets on, with the emit times; and the end of the
        #: submissions of their time. A next owner has to find the same, until it can't come to emit it again.
        self._emitted, self._found_from, self._unread = emitted, dict(ready), unread
        self._found_until_ms, self._found_ends = max(emitted.values(), default=0), found_ends
        self._publish = publish
        self._judge = judge
        self._save = save
        self._progress = progress
        self._failed = failed
        self._heap: list[tuple[Position, ScheduledRun]] = []
        #: The rows in the heap and in the account: one that comes again, by whatever way, is passed over.
        self._in_hand: set[Identity] = set()
        #: How often something was sent and acknowledged: it grows as long as the wheel gets on.
        self.rounds = 0
        #: The submissions below it have been read, by this owner or by those before it.
        self._admitted = submissions
        #: Those beyond that whose late rows have been taken in.
        self._admitted_early: set[int] = set()
        self._now_ms = 0
        self._stepped = asyncio.Event()
        self._admissions: deque[_Admission] = deque()
        self._account: deque[_Emission] = deque()
        self._seen = _Seen(cursor_ms)
        self._claimed_ms = cursor_ms  # the highest cursor that an emission in the account may lead to
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def ready(self) -> Mapping[Priority, int]:
        """In each ready partition, the offset below which no record matters to what is not acknowledged yet."""
        if self._emitted and (self.submissions < self._unread or self.cursor_ms <= self._found_until_ms):
            return self._found_from
        # What former owners emitted is done with, though nothing may have been emitted since.
        lowest = {
            priority: max(end, self._found_ends.get(priority, 0)) for priority, end in self._ready.items()
        }
        for emission in self._account:
            for priority, (first, _) in emission.spans.items():
                lowest[priority] = min(lowest[priority], first)
            for priority, end in emission.behind.items():
                lowest[priority] = min(lowest[priority], end)
        return lowest

    @property
    def admitted(self) -> int:
        """The submissions below it have been read."""
        return self._admitted

    def is_late(self, row: ScheduledRun) -> bool:
        """Whether nobody will look for the row in the schedule any more, so that it need not be there."""
        return row.emit_ms < self._claimed_ms

    def admit(self, rows: Sequence[ScheduledRun], submissions: int, early: object = None) -> None:
        """Take in rows that are late or durable by now, and that the submissions up to an offset asked for.

        `early`: as given to `admit_early` with others of them.
        """
        self._admitted = max(self._admitted, submissions)
        self._admitted_early = {offset for offset in self._admitted_early if offset >= submissions}
        self.add(row for row in rows if not self.is_late(row))
        late = self._take_in_hand(row for row in rows if self.is_late(row))
        self._admissions.append(_Admission(late, submissions, releases=early))
        self._progress()

    def admit_early(self, rows: Sequence[ScheduledRun], early: object) -> None:
        """Take in rows that are late while their jobs are still to be stored; `admit`, with the offset, follows.

        They are emitted at once, and leave the account together with what is admitted then: a new owner, who would read
        their submissions again, has to find them emitted. `early` is anything that ties the two together.
        """
        if rows:
            self._admitted_early.update(row.submission for row in rows)
            self._admissions.append(_Admission(self._take_in_hand(rows), None, held_by=early))
            self._progress()

    def add(self, rows: Iterable[ScheduledRun]) -> None:
        """Put durable rows into the heap, unless the reading of the schedule is still to come to them."""
        for row in rows:
            if row.position <= self.position or row.emit_ms < self.reading_until_ms:
                self._push(row)

    def read(self, rows: Iterable[ScheduledRun], position: Position) -> None:
        """Put a page of the schedule into the heap; all up to `position` has been read with it.

        Rows of submissions that are still to be admitted are passed over: they come with them. Emitted earlier, they
        could be acknowledged, and their ready offsets stored, before their submissions count as satisfied; those
        are read again by this owner or the next, who would emit them once more. But not those that follow upon what was admitted
        early: they come no other way, and whatever is emitted after that is held up behind it.
        """
        for row in rows:
            if row.submission < self._admitted or row.submission in self._admitted_early:
                self._push(row)
        self.position = position
        self._drop_beyond(position)

    def step(self, now_ms: int) -> int | None:
        """Emit what is due. Returns when to step again, at the latest: the next emit time, or None for any time."""
        self._now_ms = now_ms
        self._stepped.set()
        self._stepped = asyncio.Event()
        while self._admissions and self._under_way < UNDER_WAY_MAX:
            admission = self._admissions.popleft()
            held_by, releases = admission.held_by, admission.releases
            emission = _Emission(None, admission.submissions, len(admission.rows), held_by, releases)
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
            self._emit(_Emission(self._claimed_ms, None, len(due)), due)
        if not complete:
            return now_ms
        return self._heap[0][1].emit_ms if self._heap and self._heap[0][0] <= self.position else None

    async def acknowledged(self) -> None:
        """Wait until all that was sent before is acknowledged."""
        if self._sending:
            await asyncio.wait(set(self._sending))

    async def close(self, timeout_s: float) -> None:
        """Wait for what is under way, at most so long; what is not acknowledged then stays in the account."""
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=timeout_s)
            for task in left:
                task.cancel()

    def _push(self, row: ScheduledRun) -> None:
        if (identity := _identity(row)) not in self._in_hand:
            self._in_hand.add(identity)
            heapq.heappush(self._heap, (row.position, row))

    def _take_in_hand(self, rows: Iterable[ScheduledRun]) -> list[ScheduledRun]:
        """Those of the rows that are not in hand already."""
        new = {i: row for row in rows if (i := _identity(row)) not in self._in_hand}
        self._in_hand.update(new)
        return list(new.values())

    def _drop_beyond(self, position: Position) -> None:
        """Leave to the next page what was added while this one was read and lies behind it.

        Rows that may not be emitted yet would fill the heap, and a full heap lets no page be read.
        """
        if beyond := [entry for entry in self._heap if entry[0] > position]:
            self._in_hand.difference_update(_identity(row) for _, row in beyond)
            self._heap = [entry for entry in self._heap if entry[0] <= position]
            heapq.heapify(self._heap)

    def _pop_due(self, now_ms: int, room: int) -> list[ScheduledRun]:
        due: list[ScheduledRun] = []
        while self._heap and len(due) < room:
            position, row = self._heap[0]
            if row.emit_ms > now_ms or position > self.position:
                break
            heapq.heappop(self._heap)
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
        waiting = list(rows)
        while waiting:
            now_ms = self._now_ms
            due = [row for row in waiting if row.emit_ms <= now_ms]
            waiting = [row for row in waiting if row.emit_ms > now_ms]
            if not due:
                # Behind the cursor and not due yet: the clock is behind the one by which the cursor was moved.
                await self._stepped.wait()
                continue
            judged = self._judged(due, now_ms)
            due, waiting = due[: len(judged)], due[len(judged) :] + waiting
            emission.sent += map(_identity, due)
            emission.latest_ms = max(emission.latest_ms, *(row.emit_ms for row in due))
            ready = [row for row, verdict in zip(due, judged, strict=True) if verdict.ready]
            events = [event for verdict in judged for event in verdict.events]
            following = [verdict.following for verdict in judged if verdict.following is not None]
            # The next run of a recurring job is durable before the cursor passes this one, emitted now or before.
            if following:
                await asyncio.gather(self._publish_new(emission, ready, events), self._save(following))
            else:
                await self._publish_new(emission, ready, events)
            self.rounds += 1
            if following:
                self._let_go(emission, zip(due, judged, strict=True))
            self.add(row for row in following if not self.is_late(row))
            # Behind the cursor nobody would look for them: they belong to this emission.
            waiting += self._take_in_hand(row for row in following if self.is_late(row))
            if following and waiting:
                self._progress()  # what is in the heap may be due before these are done
        # Not when it leaves the account: that may take the acknowledgement of every other row of the same instant.
        self._under_way -= emission.rows
        emission.done = True
        self._settle()

    def _let_go(self, emission: _Emission, judged: Iterable[tuple[ScheduledRun, Judged]]) -> None:
        """Let go of the rows that are to come again: they are in hand no more until they come."""
        if again := {_identity(row) for row, verdict in judged if verdict.waits(row)}:
            self._in_hand -= again
            emission.sent = [identity for identity in emission.sent if identity not in again]

    def _judged(self, rows: Sequence[ScheduledRun], now_ms: int) -> list[Judged]:
        """The verdicts on the first of the rows, at least on one: no more of them when very many due times are left out."""
        judged: list[Judged] = []
        events = 0
        for row in rows:
            judged.append(self._judge(row, now_ms))
            events += len(judged[-1].events)
            if events >= EVENTS_MAX:
                break
        return judged

    async def _publish_new(
        self, emission: _Emission, rows: Sequence[ScheduledRun], events: Sequence[RunEvent]
    ) -> None:
        """Send what the log doesn't hold already."""
        sent = asyncio.get_running_loop().create_future()
        self._sending.add(sent)
        new = [row for row in rows if row.key not in self._emitted]
        emission.behind = {row.priority: self._ends[row.priority] for row in new}
        try:
            places = await self._publish(new, events)
        finally:
            self._sending.discard(sent)
            sent.set_result(None)
        emission.behind = {}
        for place in places:
            priority = PRIORITY_OF.get(place.topic)
            if priority is None:
                continue  # an event's
            first, end = emission.spans.get(priority, (place.offset, 0))
            emission.spans[priority] = (min(first, place.offset), max(end, place.offset + 1))
            self._ends[priority] = max(self._ends[priority], place.offset + 1)

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
        seen, passed = self._seen, 0
        while seen.count < len(self._account) and (emission := self._account[seen.count]).done:
            seen.count += 1
            seen.latest_ms = max(seen.latest_ms, emission.latest_ms)
            seen.cursor_ms = max(seen.cursor_ms, emission.cursor_ms or 0)
            if emission.held_by is not None:
                seen.holds.add(emission.held_by)
            seen.holds.discard(emission.releases)
            if seen.cursor_ms > seen.latest_ms and not seen.holds:
                passed = seen.count
        for _ in range(passed):
            emission = self._account.popleft()
            self._in_hand.difference_update(emission.sent)
            self.cursor_ms = max(self.cursor_ms, emission.cursor_ms or 0)
            self.submissions = max(self.submissions, emission.submissions or 0)
            for priority, (_, end) in emission.spans.items():
                self._ready[priority] = max(self._ready[priority], end)
        if passed:
            self._seen = _Seen(self.cursor_ms)


def _identity(row: ScheduledRun) -> Identity:
    return row.run_id, row.attempt, row.submission if row.attempt == 1 else -1
