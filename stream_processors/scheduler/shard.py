"""The worker of one partition of the submissions: takes the shard over, accepts, reads ahead, emits, stores its row."""

import asyncio
import logging
from collections.abc import Callable, Container, Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from confluent_kafka import Message as LogMessage
from faust.types import Message

from dueline.address import BUCKET_MS, CONTROL, READY, RUNS, SUBMISSIONS, minute_of
from dueline.codec import decode_ready_run, encode_cancel_order, encode_run_event
from dueline.commands import CancelOrder
from dueline.errors import InvalidJob, OwnershipLost, UndecodableRecord
from dueline.ids import parse_run_id
from dueline.job import Priority
from dueline.runs import RunEvent, RunKey
from dueline.scheduling.judge import Judge
from dueline.scheduling.values import Change, JobRow, ScheduledRun
from infra.cassandra import PASSING
from infra.log_reader import answered, ends_of, read_to_end
from infra.publisher import Placed, Publisher, Record
from infra.settings import Settings
from infra.store import DAY, ShardRow, Store, persist
from infra.views import Views
from stream_processors.partitions import BATCH_MAX, Worker, report_failure
from stream_processors.scheduler.acceptance import Acceptance, Asked
from stream_processors.scheduler.broker_clock import BrokerClock
from stream_processors.scheduler.bulk import page_of
from stream_processors.scheduler.calendars import CalendarsAtHand, KeptCalendars
from stream_processors.scheduler.gathering import Gathering
from stream_processors.scheduler.received import Received, changed_id, received_from_log
from stream_processors.scheduler.wheel import PRIORITY_OF, Wheel

log = logging.getLogger(__name__)

STORE_INTERVAL_S = 1.0
#: A wheel whose last store is older emits nothing, and a new owner waits for as long: then the old one is silent.
STORE_TRUSTED_S = 5.0
#: How far ahead of the time the schedule is read: many times what reading a few pages takes.
READ_AHEAD_MS = 10_000
#: Rows of one page, and rows in the heap above which no page is read: some 5 MB a shard, however many share a minute.
PAGE_ROWS, HEAP_ROWS_MAX = 500, 4_000
#: While what was read is waited for to be satisfied and stored, it is looked at as often as this.
SATISFIED_INTERVAL_S = 0.02
#: An offset below which all is satisfied, for who only rehearses; and how many records are read for that at a time.
ALL_SATISFIED, REHEARSED_MAX = 1 << 62, 5_000
#: Without anything due a wheel turns as often as this, so that its cursor keeps up with the time.
TURN_INTERVAL_S = 1.0
#: Under load the wheels of a process turn together, with so much time between two turns: what is due meanwhile leaves in one request.
TURN_PACE_S = 0.01
#: Turns that begin within this are one.
TOGETHER_S = 0.002
#: How long a released shard waits for the acknowledgement of what it has sent.
RELEASE_TIMEOUT_S = 3.0
#: Changes are heeded for so long behind the cursor: for rows that are late, and wait for their emission.
CHANGES_KEPT_MS = 10 * 60_000
#: Buckets are deleted this many minutes after they were read, so that there is time to look at what went wrong.
KEPT_MINUTES = 24 * 60


class Turning:
    """When the wheels of a process turn: at once for what comes alone, and together for what comes thick and fast."""

    def __init__(self) -> None:
        self._last_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """How long a wheel has to wait that would turn now. It may if that is zero."""
        since_s = now_s - self._last_s
        if since_s >= TURN_PACE_S:
            self._last_s = now_s
            return 0.0
        return 0.0 if since_s <= TOGETHER_S else TURN_PACE_S - since_s


class Shard(Worker):
    """Owns one shard's wheel for as long as its partition is assigned."""

    def __init__(
        self,
        partition: int,
        *,
        owner: str,
        settings: Settings,
        store: Store,
        views: Views,
        publisher: Publisher,
        clock: BrokerClock,
        calendars: KeptCalendars,
        turning: Turning,
        failed: Callable[[BaseException], None],
    ) -> None:
        super().__init__(partition)
        self._owner = owner
        self._settings = settings
        self._store = store
        self._views = views
        self._publisher = publisher
        self._clock = clock
        self._calendars = calendars
        self._turning = turning
        self._failed = failed
        self._row: ShardRow
        #: Whether the shard is ours, and who had it before is known to be silent.
        self._nobody_sends = False
        self._wheel: Wheel | None = None
        self._judge: Judge
        #: Changes that concern rows with an emit time before this are known to the judge.
        self._changes_until_ms = 0
        self._acceptance: Acceptance
        self._gathering: Gathering
        #: The offset behind the last submission that was in the log at the take-over: its end may hold none, but ends of transactions.
        self._unread_end: int
        #: Likewise of the ready partitions.
        self._found_ends: dict[Priority, int] = {}
        self._stored_at_s = 0.0
        self._page_rows = PAGE_ROWS
        #: The row as it is stored; None before this owner's first store. A commit beyond its submissions offset would hide from the
        #: next owner what it has to replay.
        self.stored: ShardRow | None = None
        self._turn_now, self._read_now = asyncio.Event(), asyncio.Event()
        #: Set when the row should be stored at once, and each time it was stored.
        self._store_now, self._has_stored = asyncio.Event(), asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._storing: asyncio.Task[None]

    # -- the worker ------------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        await self._clock.known()
        now_ms = self._clock.now_ms()
        began_s = self._clock.elapsed_s()
        ready = dict.fromkeys(Priority, 0)
        first = ShardRow(
            shard=self.partition, epoch=1, owner=self._owner, cursor_ms=now_ms, submissions=0, ready=ready
        )
        self._row, released = await self._store.take_shard(self.partition, self._owner, first)
        if not released:
            # The last owner may still be sending: until its last store, which lies before ours, is too old to trust.
            await asyncio.sleep(STORE_TRUSTED_S)
        self._nobody_sends = True
        emitted = await answered(lambda: self._emitted_since(self._row))
        await self._calendars.refresh()
        self._judge = Judge(emitted, self._calendars)
        self._changes_until_ms = self._row.cursor_ms - CHANGES_KEPT_MS
        await self._learn_changes(now_ms + READ_AHEAD_MS)
        self._unread_end = self._row.submissions
        await self._learn_unread(self._row.submissions)
        self._wheel = Wheel(
            cursor_ms=self._row.cursor_ms,
            submissions=self._row.submissions,
            ready=self._row.ready,
            emitted=emitted,
            found_ends=self._found_ends,
            unread=self._unread_end if emitted else 0,
            publish=self._emit,
            judge=self._judge.judge,
            save=lambda rows: self._gathering.save(rows),
            progress=self._turn_now.set,
            failed=self._failed,
        )
        self._acceptance = Acceptance(self.partition, self._settings.partitions, self._store, self._calendars)
        self._gathering = Gathering(self.partition, self._store, self._wheel, self._clock)
        self._storing = self._start_loop(self._gathering.keep_stored())
        self._loops = [
            self._start_loop(self._keep_stored(self._wheel)),
            self._start_loop(self._keep_read(self._wheel)),
            self._start_loop(self._keep_turning(self._wheel)),
        ]
        log.info(
            "shard %d taken over in %.1f s: epoch %d, %d runs found emitted beyond the cursor",
            *(self.partition, self._clock.elapsed_s() - began_s, self._row.epoch, len(emitted)),
            extra={"action": "shard_taken"},
        )

    async def handle(self, batch: Sequence[Message]) -> None:
        assert self._wheel is not None
        # What lies below the stored offset was satisfied by the last owner.
        received = [_received(message) for message in batch if message.offset >= self._row.submissions]
        if not received:
            self._wheel.admit((), batch[-1].offset + 1)
            return
        while received:
            satisfied = (self.stored or self._row).submissions
            self._acceptance.forget(satisfied)
            asked = await self._acceptance.read(received, satisfied)
            received = [record for record in received if record.offset >= asked.end]
            if asked.end and asked.plain:
                self._make_late(self._wheel)
                await self._gathering.add(asked)
            elif asked.end:
                await self._gathering.store()
                await self._do(asked, self._wheel)
            if asked.coming is not None:
                self._judge.learn(map(self._for_loaded, asked.coming))
                await self._gathering.store()
                await self._until_satisfied(self._wheel.admitted, self._wheel)

    async def _do(self, asked: Asked, wheel: Wheel) -> None:
        """Make all that was asked for durable, in an order in which nothing counts before what it rests on."""
        if asked.changes:
            await self._store.save_changes(self.partition, asked.changes)
            self._judge.learn(map(self._for_loaded, asked.changes))
        self._make_late(wheel)
        rows = [row for row in asked.rows if not wheel.is_late(row)]
        await self._store.save_rows(self.partition, rows)
        if asked.history:
            await self._store.save_history(asked.history)  # a job as it is now asks for none of it any more
        await self._store.save_jobs(self.partition, asked.jobs)
        await self._calendars.keep(asked.calendars)
        records = asked.records + [self._record(event) for event in asked.events]
        if asked.cancelled:
            records += await self._orders(asked.cancelled, wheel)
        if asked.bulk:
            records += await page_of(*asked.bulk, self._views)
        if records:
            await self._publisher.deliver(records)
        wheel.admit(asked.rows, asked.end)

    def _make_late(self, wheel: Wheel) -> None:
        """Have the wheel take in what was admitted, and what is due now count as late, so that it need not be in the schedule."""
        if self._may_emit():
            wheel.step(self._clock.now_ms())

    async def _until_satisfied(self, offset: int, wheel: Wheel) -> None:
        """Until all submissions below an offset are satisfied, and stored as such: they are not read again."""
        self._turn_now.set()
        rounds = wheel.rounds
        while (self.stored or self._row).submissions < offset:
            if wheel.rounds > rounds:
                rounds = wheel.rounds
                self.progressed()
            if wheel.submissions >= offset:
                self._store_now.set()
            self._has_stored.clear()
            await _wait(self._has_stored, SATISFIED_INTERVAL_S)

    async def _orders(self, cancelled: Sequence[JobRow], wheel: Wheel) -> list[Record]:
        """What the executor has to be told of jobs that were cancelled, now that no run of theirs is emitted any more."""
        await wheel.acknowledged()
        places = [(topic, self.partition) for topic in READY.values()]
        ends = await answered(lambda: ends_of(self._settings, places))
        ready = {priority: ends[topic, self.partition] for priority, topic in READY.items()}
        return [
            Record(
                CONTROL,
                job.job_id.encode(),
                encode_cancel_order(
                    CancelOrder(job_id=job.job_id, version=job.version, reason=job.reason, ready=ready)
                ),
                self.partition,
            )
            for job in cancelled
        ]

    def committable(self) -> int | None:
        return None if self.stored is None else self.stored.submissions

    async def release(self) -> None:
        for loop in self._loops:
            loop.cancel()
        if self._wheel is None:
            if self._nobody_sends:
                await self._release_row()
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                await self._gathering.store()  # else the next owner reads it again
        self._make_late(self._wheel)
        await self._wheel.close(RELEASE_TIMEOUT_S)
        self._storing.cancel()  # what was emitted has waited for it
        await self._release_row(self._state(self._wheel))

    async def _release_row(self, state: ShardRow | None = None) -> None:
        """Tell the next owner that it need not wait, and how far this one is if it has begun."""
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                if state is not None:
                    await self._store.save_shard(state)
                await self._store.release_shard(self._row)
        except (OwnershipLost, TimeoutError, *PASSING) as error:
            # The next owner waits a little, or is there already.
            log.info("shard %d not released: %s", self.partition, error, extra={"action": "release_failed"})

    # -- the loops -------------------------------------------------------------------------------------------------

    async def _keep_turning(self, wheel: Wheel) -> None:
        while True:
            if wait_s := self._turning.wait_s(self._clock.elapsed_s()):
                await asyncio.sleep(wait_s)
                continue
            self._turn_now.clear()
            delay_s = TURN_INTERVAL_S
            if self._may_emit():
                now_ms = self._clock.now_ms()
                next_ms = wheel.step(now_ms)
                if len(wheel) < HEAP_ROWS_MAX:
                    self._read_now.set()
                if next_ms is not None:
                    delay_s = min(delay_s, (next_ms - now_ms) / 1000)
            await _wait(self._turn_now, delay_s)

    async def _keep_read(self, wheel: Wheel) -> None:
        while True:
            self._read_now.clear()
            ahead_ms = wheel.position[0] - self._clock.now_ms()
            if ahead_ms >= READ_AHEAD_MS or len(wheel) >= HEAP_ROWS_MAX or self._outruns(wheel):
                # Until the time has come, or a turn of the wheel has made room.
                await _wait(self._read_now, max(TURN_INTERVAL_S, (ahead_ms - READ_AHEAD_MS) / 1000))
                continue
            await self._read_page(wheel)
            self._turn_now.set()

    def _outruns(self, wheel: Wheel) -> bool:
        """Whether to read on would delete what a next owner may still have to read, after an outage of days."""
        stored_ms = (self.stored or self._row).cursor_ms
        return wheel.position[0] - stored_ms >= (KEPT_MINUTES - 1) * BUCKET_MS

    async def _read_page(self, wheel: Wheel) -> None:
        minute = minute_of(wheel.position[0])
        end_ms = (minute + 1) * BUCKET_MS
        await self._learn_changes(end_ms)
        wheel.reading_until_ms = end_ms
        behind = wheel.position

        async def read() -> tuple[int, list[ScheduledRun]]:
            # A page of the largest submissions is hundreds of megabytes, and never comes: what fails is asked for in
            # smaller pieces.
            limit, self._page_rows = self._page_rows, max(1, self._page_rows // 4)
            return limit, await self._store.read_rows(minute, self.partition, behind, limit)

        limit, rows = await persist("reading the schedule", read)
        self._page_rows = min(PAGE_ROWS, 2 * limit)
        await self._learn_cancels(rows)
        wheel.reading_until_ms = 0
        if len(rows) == limit:
            wheel.read(rows, rows[-1].position)
        else:
            wheel.read(rows, (end_ms, "", 0, 0))
            old = minute - KEPT_MINUTES
            await persist("deleting a bucket", lambda: self._store.delete_bucket(old, self.partition))
            if old % DAY == 0:
                day = old // DAY - 1
                await persist("deleting changes", lambda: self._store.delete_changes(day, self.partition))

    async def _learn_changes(self, end_ms: int) -> None:
        """Have the judge know of all changes that concern rows with an earlier emit time, and forget those that have passed."""
        end_ms = max(end_ms, self._clock.now_ms() + BUCKET_MS)
        if end_ms > self._changes_until_ms:
            begin_ms, self._changes_until_ms = self._changes_until_ms, end_ms
            self._judge.learn(await self._store.read_changes(self.partition, begin_ms, end_ms))
        if self._wheel is not None:
            self._judge.forget(self._wheel.cursor_ms - CHANGES_KEPT_MS, self._wheel.submissions)

    def _for_loaded(self, change: Change) -> Change:
        """A change, as far as it concerns rows that are loaded, or being loaded.

        When later ones are, it is read again: else a pause of a million jobs would be in memory until next month. A cancel also ends
        the retries among them, which lie further ahead than any due time tells.
        """
        loaded_ms = self._changes_until_ms + 2 * BUCKET_MS
        return replace(change, until_ms=loaded_ms if change.cancels else min(change.until_ms, loaded_ms))

    async def _learn_unread(self, offset: int) -> None:
        """Have the judge know what submissions from an offset on, that lie in the log already, will change.

        Else what has become due since would be emitted before the cancel is heard of. It is a rehearsal of what is read later,
        of the records alone that name jobs which may be changed.
        """
        ids = await answered(lambda: {changed_id(m.key(), m.value() or b"") for m in self._unread(offset)})
        ids.discard(None)
        if not ids:
            return
        at_hand = CalendarsAtHand(self._calendars)  # one that is behind is waited for when the record is read
        rehearsal = Acceptance(self.partition, self._settings.partitions, self._store, at_hand)
        end = self._unread_end
        while offset < end:
            records, offset = await answered(partial(self._unread_of, ids, offset, end))
            while records:
                self.progressed()
                asked = await rehearsal.read(records[:BATCH_MAX], ALL_SATISFIED)
                self._judge.learn(map(self._for_loaded, asked.changes))
                records = [record for record in records if record.offset >= asked.end]

    def _unread_of(self, ids: Container[str | None], offset: int, end: int) -> tuple[list[Received], int]:
        """Some submissions from an offset on that name one of these jobs, and the offset from which to read on. Blocking."""
        found: list[Received] = []
        for message in self._unread(offset):
            key, value = message.key() or b"", message.value() or b""
            if key.decode(errors="replace") in ids or changed_id(key, value) in ids:
                found.append(received_from_log(message))
                if len(found) == REHEARSED_MAX:
                    return found, found[-1].offset + 1
        return found, end

    async def _learn_cancels(self, rows: Sequence[ScheduledRun]) -> None:
        """Retries lie further ahead than any due time tells: whether their job was cancelled is asked of the job."""
        retried = {parse_run_id(row.run_id)[0]: row.emit_ms for row in rows if row.attempt > 1}
        if not retried:
            return
        jobs = await self._store.find_jobs(self.partition, retried)
        self._judge.learn(
            Change(
                job_id=job_id,
                version=job.cancelled,
                since_ms=0,
                until_ms=max(row.emit_ms for row in rows),
                cancels=True,
                reason=job.cancel_reason,
            )
            for job_id, job in jobs.items()
            if job.cancelled
        )

    async def _keep_stored(self, wheel: Wheel) -> None:
        while True:
            began_s = self._clock.elapsed_s()
            state = self._state(wheel)
            try:
                await self._store.save_shard(state)
            except PASSING as error:
                log.warning(
                    "shard %d not stored: %s", self.partition, error, extra={"action": "store_failed"}
                )
                await asyncio.sleep(STORE_INTERVAL_S / 4)
                continue
            if not self._may_emit():
                self._turn_now.set()  # it may again, if this took less than it is trusted for
            self._stored_at_s, self.stored = began_s, state
            self._has_stored.set()
            self._store_now.clear()
            await _wait(self._store_now, began_s + STORE_INTERVAL_S - self._clock.elapsed_s())

    # -- what they do ----------------------------------------------------------------------------------------------

    def _may_emit(self) -> bool:
        return self._clock.elapsed_s() - self._stored_at_s < STORE_TRUSTED_S

    def _state(self, wheel: Wheel) -> ShardRow:
        return replace(
            self._row, cursor_ms=wheel.cursor_ms, submissions=wheel.submissions, ready=dict(wheel.ready)
        )

    async def _emit(self, rows: Sequence[ScheduledRun], events: Sequence[RunEvent]) -> Sequence[Placed]:
        records = [
            Record(READY[row.priority], parse_run_id(row.run_id)[0].encode(), row.run, self.partition)
            for row in rows
        ]
        if events:
            records += [self._record(event) for event in events]
        return await self._publisher.deliver(records)

    def _record(self, event: RunEvent) -> Record:
        return Record(RUNS, event.job_id.encode(), encode_run_event(event), self.partition)

    def _unread(self, offset: int) -> Iterator[LogMessage]:
        """The submissions from an offset on that lie in the log. Blocking."""
        for number, message in enumerate(
            read_to_end(self._settings, {(SUBMISSIONS, self.partition): offset})
        ):
            if number % BATCH_MAX == 0:
                self.progressed()
            self._unread_end = (message.offset() or 0) + 1
            yield message

    def _emitted_since(self, row: ShardRow) -> dict[RunKey, int]:
        """The runs that the ready topics hold from the offsets of a shard row on, with their emit times."""
        starts = {(READY[priority], self.partition): offset for priority, offset in row.ready.items()}
        emitted: dict[RunKey, int] = {}
        # None was emitted before its time. A foreign one that says so would keep the ready offsets where they are for ever. The row of
        # one that was put off (`dueline.scheduling.judge`) had a later time than its run, nearer to that of the record.
        latest_ms = self._clock.now_ms() + BUCKET_MS
        for message in read_to_end(self._settings, starts):
            self._found_ends[PRIORITY_OF[message.topic() or ""]] = (message.offset() or 0) + 1
            try:
                run = decode_ready_run(message.value() or b"")
                emitted[run.key] = min(max(run.emit_ms, message.timestamp()[1]), latest_ms)
            except (UndecodableRecord, InvalidJob) as error:
                log.warning(
                    "a foreign record on %s: %s", message.topic(), error, extra={"action": "foreign_record"}
                )
        return emitted

    def _start_loop(self, loop: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(loop)
        report_failure(task, self._failed)
        return task


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    """Until the event is set, or the time is over."""
    handle = asyncio.get_running_loop().call_later(max(0.0, timeout_s), event.set)
    await event.wait()
    handle.cancel()


def _received(message: Message) -> Received:
    headers: Any = message.headers or ()  # a mapping or pairs, by the transport
    return Received(
        partition=message.partition,
        offset=message.offset,
        stamp_ms=round(message.timestamp * 1000),
        key=message.key,
        value=message.value,
        headers=tuple(headers.items() if isinstance(headers, dict) else headers),
    )
