"""Cassandra in the words of the domain: what the scheduler and the ledger write, and what the scheduler reads.

Writes that must not be lost (`persist`) are sent again until they succeed: the record that they go by stays
unacknowledged meanwhile, so an outage of Cassandra delays and loses nothing.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import stamina

from dueline.address import BUCKET_MS, bucket_of, minute_of, shard_of
from dueline.calendars import Calendar
from dueline.codec import decode_run_event, decode_submission, encode_calendar
from dueline.errors import InvalidJob, OwnershipLost, UndecodableRecord
from dueline.job import Priority
from dueline.runs import Heartbeat, OwnerStarted, RunEvent
from dueline.scheduling.values import Change, JobRow, Position, ScheduledRun
from dueline.states import FAILURES, AttemptState, JobState, RunState
from infra.cassandra import PASSING, Call, Session
from infra.statements import Statement

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Minutes in a day, and in a period of `history`: thirty days, so a job due each second has 2.6 million rows in one.
DAY, PERIOD = 24 * 60, 30 * 24 * 60
DAY_MS = DAY * BUCKET_MS

#: The latest due time that a write timestamp tells from later ones: in the year 2255, and it has to fit into 63 bits.
_DUE_MAX_MS = 9_000_000_000_000

#: Jobs that are asked for at once: their definitions may have 256 kB each.
FOUND_AT_ONCE = 50

#: An event with the offset of its record and the record's bytes.
Told = tuple[int, RunEvent, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRow:
    """Who owns a shard's wheel and how far it is. See `stream_processors.scheduler`."""

    shard: int
    #: Grows by one with each owner.
    epoch: int
    #: The process that owns it; empty when it was released.
    owner: str
    #: Every row with an earlier emit time is acknowledged by a ready topic.
    cursor_ms: int
    #: Every submission below this offset is satisfied.
    submissions: int
    #: In each ready partition, no record of a run beyond the cursor or of a later submission lies below this offset.
    ready: Mapping[Priority, int]


class Store:
    """The verbs of scheduler and ledger. Every one raises the driver's error unless it says that it persists."""

    def __init__(self, session: Session, shards: int) -> None:
        self._session = session
        self._shards = shards
        self._buckets_saved: set[int] = set()

    async def close(self) -> None:
        await self._session.close()

    # -- the schedule ----------------------------------------------------------------------------------------------

    async def save_rows(self, shard: int, rows: Iterable[ScheduledRun]) -> None:
        """Make attempts to come durable. Persists."""
        homes: defaultdict[int, list[Call]] = defaultdict(list)
        for row in rows:
            minute = minute_of(row.emit_ms)
            values = (minute, shard, *row.position, row.priority.value, row.run, row.definition)
            homes[minute].append((Statement.SAVE_ROW, values))
        await persist("rows of the schedule", lambda: self._session.write(homes.values()))

    async def read_rows(self, minute: int, shard: int, behind: Position, limit: int) -> list[ScheduledRun]:
        """The next rows of a bucket behind a position, in the order of emission, at most `limit`."""
        rows = await self._session.run(Statement.READ_ROWS, minute, shard, *behind, limit)
        return [
            ScheduledRun(
                emit_ms=row.emit_ms,
                run_id=row.run_id,
                attempt=row.attempt,
                priority=Priority(row.priority),
                submission=row.submission,
                run=row.run,
                definition=row.definition,
            )
            for row in rows
        ]

    async def delete_bucket(self, minute: int, shard: int) -> None:
        await self._session.run(Statement.DELETE_BUCKET, minute, shard)

    async def save_changes(self, shard: int, changes: Iterable[Change]) -> None:
        """Make it durable that rows count no more. Persists."""
        homes: defaultdict[int, list[Call]] = defaultdict(list)
        for change in changes:
            day = change.until_ms // DAY_MS
            values = (day, shard, change.until_ms, change.job_id, change.version)
            more = (change.since_ms, change.cancels, change.reason)
            homes[day].append((Statement.SAVE_CHANGE, (*values, *more)))
        await persist("changes", lambda: self._session.write(homes.values()))

    async def read_changes(self, shard: int, from_ms: int, until_ms: int) -> list[Change]:
        """The changes that concern rows with an emit time from the first on, up to one before the second. Persists."""
        days = range(from_ms // DAY_MS, (until_ms - 1) // DAY_MS + 1)
        run = self._session.run
        found = [
            await persist("changes", partial(run, Statement.READ_CHANGES, day, shard, from_ms, until_ms))
            for day in days
        ]
        return [Change(**row._asdict()) for rows in found for row in rows]

    async def delete_changes(self, day: int, shard: int) -> None:
        await self._session.run(Statement.DELETE_CHANGES, day, shard)

    # -- jobs ------------------------------------------------------------------------------------------------------

    async def save_jobs(self, shard: int, jobs: Iterable[JobRow]) -> None:
        """Make definitions durable and visible. Persists."""
        homes: defaultdict[int, list[Call]] = defaultdict(list)
        for job in jobs:
            bucket = bucket_of(job.job_id)
            home = (bucket, shard, job.job_id)
            values = (*home, job.version, job.accepted_ms, job.definition, job.state.value, job.reason)
            if job.since_ms is None:
                homes[bucket].append((Statement.SAVE_JOB, (*values, job.version + 1)))
            else:
                more = (job.since_ms, job.defined_ms, job.cancelled)
                homes[bucket].append((Statement.SAVE_CHANGED_JOB, (*values, *more, job.version + 1)))
        new = {bucket for bucket in homes if bucket >= 0} - self._buckets_saved
        index: list[list[Call]] = [[(Statement.SAVE_BUCKET, (bucket // DAY, bucket))] for bucket in new]
        writes = [*homes.values(), *index]
        await persist("jobs", lambda: self._session.write(writes))
        if len(self._buckets_saved) > DAY:  # jobs come with ids of about now: the old ones are not met again
            self._buckets_saved.clear()
        self._buckets_saved |= new

    async def save_history(self, dues: Iterable[tuple[str, int]]) -> None:
        """Have runs listed among those of their jobs, by job id and due time. Persists.

        The ledger does so for runs of jobs that can have more than one; of others it keeps the last.
        """
        calls = [
            (Statement.SAVE_HISTORY, (job_id, minute_of(due_ms) // PERIOD, due_ms)) for job_id, due_ms in dues
        ]
        await persist("history", lambda: self._session.write([[call] for call in calls]))

    async def find_jobs(self, shard: int, job_ids: Iterable[str]) -> Mapping[str, JobRow]:
        """What the scheduler has said of jobs of one shard, by id; without those of which it has said nothing. Persists."""
        buckets: defaultdict[int, list[str]] = defaultdict(list)
        for job_id in job_ids:
            buckets[bucket_of(job_id)].append(job_id)
        asked = [
            (bucket, shard, ids[begin : begin + FOUND_AT_ONCE])
            for bucket, ids in buckets.items()
            for begin in range(0, len(ids), FOUND_AT_ONCE)
        ]
        run = self._session.run
        answers = await asyncio.gather(
            *(persist("jobs", partial(run, Statement.FIND_JOBS, *values)) for values in asked)
        )
        return {
            row.job_id: JobRow(
                job_id=row.job_id,
                version=row.version,
                accepted_ms=row.accepted_ms,
                definition=row.definition,
                state=JobState(row.state),
                reason=row.reason or "",
                since_ms=row.since_ms,
                defined_ms=row.defined_ms,
                cancelled=row.cancelled or 0,
            )
            for rows in answers
            for row in rows
            if row.version is not None  # a row without a version was made by the ledger alone
        }

    async def latest_attempt(self, run_id: str, job_id: str, due_ms: int) -> tuple[int, RunState] | None:
        """The latest attempt of a run that the ledger knows, and how the run stands. Persists."""
        home = (minute_of(due_ms), self._shard_of(job_id), run_id)
        rows = await persist("a run", lambda: self._session.run(Statement.VIEW_ATTEMPTS, *home))
        if not rows:
            return None
        last = decode_run_event(rows[-1].event)
        return last.attempt, last.run_state

    async def save_calendar(self, offset: int, calendar: Calendar) -> None:
        """Make a calendar durable. Persists."""
        values = (calendar.name, encode_calendar(calendar), offset + 1)
        await persist("a calendar", lambda: self._session.run(Statement.SAVE_CALENDAR, *values))

    async def read_calendars(self, *, persistently: bool = True) -> Mapping[str, Calendar]:
        """All calendars, by name. Persists, unless told not to."""

        async def read() -> Sequence[Any]:
            return await self._session.run(Statement.READ_CALENDARS)

        rows = await (persist("the calendars", read) if persistently else read())
        found: dict[str, Calendar] = {}
        for row in rows:
            try:
                calendar = decode_submission(row.calendar)
            except (InvalidJob, UndecodableRecord) as error:  # such as a time zone that is newer than ours
                log.error(
                    "the calendar %s can't be read here: %s",
                    row.name,
                    error,
                    extra={"action": "unreadable_calendar"},
                )
                continue
            assert isinstance(calendar, Calendar)
            found[row.name] = calendar
        return found

    # -- the shard row ---------------------------------------------------------------------------------------------

    async def take_shard(self, shard: int, owner: str, first: ShardRow) -> tuple[ShardRow, bool]:
        """Become the owner of a shard, with the next epoch; `first` is its row if it has none yet. Persists.

        Also tells whether the last owner had released it, or there was none.
        """
        return await persist(f"shard {shard}", lambda: self._take_shard(shard, owner, first))

    async def save_shard(self, row: ShardRow) -> None:
        """Store how far the owner is. Raises OwnershipLost if another process has taken the shard."""
        values = (row.cursor_ms, row.submissions, *_ready_offsets(row))
        applied = await self._session.run(Statement.SAVE_SHARD, *values, row.shard, row.epoch, row.owner)
        if not applied[0].applied:
            raise OwnershipLost(f"shard {row.shard} has another owner than {row.owner} of epoch {row.epoch}")

    async def read_shard(self, shard: int) -> ShardRow | None:
        rows = await self._session.run(Statement.READ_SHARD, shard)
        return _shard_row(shard, rows[0]) if rows else None

    async def release_shard(self, row: ShardRow) -> None:
        """Tell the next owner that it need not wait. Raises OwnershipLost if there is one already."""
        applied = await self._session.run(Statement.RELEASE_SHARD, row.shard, row.epoch, row.owner)
        if not applied[0].applied:
            raise OwnershipLost(f"shard {row.shard} has another owner than {row.owner} of epoch {row.epoch}")

    async def _take_shard(self, shard: int, owner: str, first: ShardRow) -> tuple[ShardRow, bool]:
        while True:
            found = await self.read_shard(shard)
            if found is None:
                values = (
                    shard,
                    first.epoch,
                    owner,
                    first.cursor_ms,
                    first.submissions,
                    *_ready_offsets(first),
                )
                applied = await self._session.run(Statement.CREATE_SHARD, *values)
                taken, released = replace(first, owner=owner), True
            else:
                values = (found.epoch + 1, owner, shard, found.epoch)
                applied = await self._session.run(Statement.TAKE_SHARD, *values)
                taken, released = replace(found, epoch=found.epoch + 1, owner=owner), not found.owner
            if applied[0].applied:
                return taken, released
            log.info("shard %d taken by another process", shard, extra={"action": "shard_race"})

    # -- the ledger ------------------------------------------------------------------------------------------------

    async def save_events(self, shard: int, told: Sequence[Told]) -> None:
        """Record what became of attempts, by events of one partition. Persists."""
        # The rows of one number, a minute of `runs` or a bucket of `jobs`, share their partition key, and so a mutation.
        runs: defaultdict[int, list[Call]] = defaultdict(list)
        jobs: defaultdict[int, dict[str, Call]] = defaultdict(dict)
        failures: defaultdict[int, list[Call]] = defaultdict(list)
        history: list[list[Call]] = []
        for offset, event, record in told:
            run, minute, bucket = event.run_id, minute_of(event.due_ms), bucket_of(event.job_id)
            values = (minute, shard, run, event.attempt, event.state.value, record, offset + 1)
            runs[minute].append((Statement.SAVE_RUN, values))
            # Of several events of a job that of its latest attempt counts.
            age = _age(event)
            before = jobs[bucket].get(event.job_id)
            if before is None or before[1][0] <= age:
                jobs[bucket][event.job_id] = (
                    Statement.SAVE_LAST_RUN,
                    (age, record, bucket, shard, event.job_id),
                )
            if event.run_state in FAILURES:
                ended_ms = event.ended_ms or event.at_ms
                day = ended_ms // DAY_MS
                failures[day].append((Statement.SAVE_FAILURE, (day, shard, ended_ms, run)))
            if event.recurring:
                history.append([(Statement.SAVE_HISTORY, (event.job_id, minute // PERIOD, event.due_ms))])
        writes = [[*runs[home], *jobs[home].values()] for home in runs.keys() | jobs.keys()]
        await persist("run events", lambda: self._session.write([*writes, *failures.values(), *history]))

    async def save_owner(self, offset: int, started: OwnerStarted) -> None:
        """Record who owns a shard's runs. Persists."""
        values = (started.shard, started.epoch, started.executor, offset + 1)
        await persist("an owner", lambda: self._session.run(Statement.SAVE_OWNER, *values))

    async def owner_epoch(self, shard: int) -> int:
        """The epoch of the latest owner that was recorded; 0 before the first. Persists."""
        rows = await persist("the owner", lambda: self._session.run(Statement.FIND_OWNER, shard))
        return rows[0].epoch if rows else 0

    async def save_heartbeat(self, offset: int, beat: Heartbeat) -> None:
        """Record that a process is there. Persists."""
        process = (beat.role, beat.executor, beat.host, beat.pid, beat.started_ms, beat.at_ms)
        work = (beat.slots, beat.running, list(beat.classes), beat.alive)
        save = Statement.SAVE_HEARTBEAT
        await persist("a heartbeat", lambda: self._session.run(save, *process, *work, offset + 1))

    def _shard_of(self, job_id: str) -> int:
        return shard_of(job_id, self._shards)


async def persist(what: str, action: Callable[[], Awaitable[T]]) -> T:
    """Repeat an action until Cassandra answers it, with growing pauses of at most two seconds."""
    try:
        return await action()  # as nearly always; the machinery below costs as much as the action
    except PASSING as error:
        log.warning(
            "Cassandra did not take %s, trying again: %s", what, error, extra={"action": "store_retry"}
        )
    async for attempt in stamina.retry_context(on=PASSING, attempts=None, timeout=None, wait_max=2.0):
        with attempt:
            return await action()
    raise AssertionError("unreachable: the attempts are not limited")


def _ready_offsets(row: ShardRow) -> tuple[int, ...]:
    return tuple(row.ready[priority] for priority in Priority)


def _shard_row(shard: int, row: Any) -> ShardRow:
    offsets = (row.ready_high, row.ready_normal, row.ready_low)
    return ShardRow(
        shard=shard,
        epoch=row.epoch,
        owner=row.owner,
        cursor_ms=row.cursor_ms,
        submissions=row.submissions,
        ready=dict(zip(Priority, offsets, strict=True)),
    )


def _age(event: RunEvent) -> int:
    """The write timestamp of a job's last run: by due time, then attempt, then state.

    Not by the log, which may hold the end of an attempt behind that of the next: the retry is asked for before the end is
    told, and an executor to which Kafka didn't answer tells it once more, when the next attempt may be over.
    """
    rank = {AttemptState.RUNNING: 0, AttemptState.INTERRUPTED: 1}.get(event.state, 2)
    return min(event.due_ms, _DUE_MAX_MS) * 1_000_000 + min(event.attempt, 99_999) * 10 + rank
