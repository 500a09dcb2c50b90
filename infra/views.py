"""The read side of Cassandra, for people and programs: jobs, runs, executors. Nothing here writes.

    async with open_views(settings) as views:
        page = await views.jobs(limit=20)

`infra.view_values` has what is shown and how it follows from what is stored. Importing this module without the packages of
the extra `platform` raises Unavailable, and so does whatever Cassandra does not answer.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from dueline.address import BUCKET_MS, NAMED_BUCKETS, bucket_of, minute_of, shard_of
from dueline.clock import Clock, SystemClock
from dueline.codec import decode_run_event
from dueline.errors import InvalidJob, NotFound, Unavailable, UndecodableRecord
from dueline.ids import generated_at_ms, is_generated, parse_run_id, run_id
from dueline.job import Job
from dueline.runs import Heartbeat, RunEvent
from dueline.scheduling.rows import base_ms, due_from_ms, job_of
from dueline.states import FAILURES, JobState
from infra.settings import Settings
from infra.statements import Statement
from infra.view_values import (
    AttemptView,
    JobPage,
    JobScan,
    JobView,
    LastRun,
    RunPage,
    RunView,
    job_state,
    lateness_ms,
    next_due_ms,
    run_state,
    run_view,
)

try:
    from cassandra import DriverException
    from cassandra.cluster import NoHostAvailable

    from infra.cassandra import Session, connect
    from infra.store import DAY, DAY_MS, PERIOD
except ModuleNotFoundError as error:
    raise Unavailable(
        f"views need the package {error.name}, which is not installed here: pip install 'dueline[platform]'"
    ) from error

log = logging.getLogger(__name__)

#: Rows asked of one shard at once: with 8 shards a screen or two of jobs in one go, and never many megabytes.
PAGE_ROWS = 50
#: A listing that looks for a rare state ends here with what it has found and a place to continue at.
SCAN_S = 5.0
#: Later than any job's place in a listing, and than any due time: the last minute that fits into a bucket's number.
END_MS = 2**31 * BUCKET_MS - 1

#: Periods before a job's acceptance in which runs of backfills are looked for: a year.
BACKFILLED_PERIODS = 12
#: As long as the table of failures keeps its rows.
FAILURES_KEPT_DAYS = 30

#: How far a shard's jobs have been gone through: the bucket and the id of the last, both descending.
Scanned = tuple[int, str]
#: Before all of them; an id is made of characters that sort before this one.
FIRST_OF_ALL: Scanned = (2**31 - 1, "~")

#: Where a job stands in a listing: when it came, and its id; or a failed run: when it ended, and its id.
Place = tuple[int, str]


@asynccontextmanager
async def open_views(settings: Settings, clock: Clock | None = None) -> AsyncIterator["Views"]:
    """Views on the Cassandra of the settings. Raises Unavailable when it does not answer."""
    session = await connect(settings, (s for s in Statement if s.name.startswith("VIEW_")))
    try:
        yield Views(session, settings, clock or SystemClock())
    finally:
        await session.close()


class Views:
    """Answers questions about jobs, runs and executors."""

    def __init__(self, session: Session, settings: Settings, clock: Clock) -> None:
        self._session = session
        self._settings = settings
        self._clock = clock

    async def job(self, job_id: str) -> JobView:
        """One job. Raises NotFound."""
        row = await self._find(job_id)
        if row is None:
            raise NotFound(f"there is no job {job_id}; `dueline jobs` lists the jobs there are")
        return await self._job_view(row)

    async def jobs(self, limit: int, *, before: str | None = None, state: JobState | None = None) -> JobPage:
        """The newest jobs before one of them, newest first: by the time in a generated id, by the acceptance of a
        named job. With a state, only those in it. One whose definition can't be read is passed over."""
        found: list[JobView] = []
        give_up_s = self._clock.elapsed_s() + SCAN_S
        async with aclosing(self._newest_first(await self._place(before))) as rows:
            async for row in rows:
                view = await self._readable_view(row)
                if view is not None and (state is None or view.state is state):
                    found.append(view)
                if len(found) == limit or self._clock.elapsed_s() > give_up_s:
                    return JobPage(jobs=tuple(found), before=row.job_id)
        return JobPage(jobs=tuple(found))

    async def scan(self, shard: int, behind: Scanned, limit: int) -> JobScan:
        """A part of all jobs of one shard, in the order in which they are stored: to go through them, not to show them.

        One whose definition can't be read is passed over, since the others don't depend on it. Looks at no more jobs, nor buckets, than the limit.
        """
        views: list[JobView] = []
        looked_at = 0
        async with aclosing(self._buckets_from(behind[0])) as buckets:
            async for bucket in buckets:
                if looked_at == limit:
                    return JobScan(jobs=tuple(views), behind=(bucket, FIRST_OF_ALL[1]))
                start = behind[1] if bucket == behind[0] else FIRST_OF_ALL[1]
                left = limit - len(views)
                rows = await self._ask(Statement.VIEW_JOBS, bucket, shard, start, left)
                views += filter(None, await asyncio.gather(*map(self._readable_view, rows)))
                if len(rows) == left:
                    return JobScan(jobs=tuple(views), behind=(bucket, rows[-1].job_id))
                looked_at += 1
        return JobScan(jobs=tuple(views))

    async def run(self, run: str) -> RunView:
        """One run, by its id, or the latest run of a job, by the job's. Raises NotFound."""
        try:
            job_id, due_ms = parse_run_id(run)
        except ValueError:
            latest = await self.runs(run, limit=2)
            # A run to come is the latest of a recurring job, and who asks for its run means one that began.
            return next((r for r in latest if r.attempts), latest[0])
        found = await self._run(job_id, due_ms)
        if not found.attempts:
            row = await self._find(job_id)
            if row is None or (await self._job_view(row)).next_due_ms != due_ms:
                raise NotFound(f"there is no run {run}; `dueline runs {job_id}` lists those of its job")
        return found

    async def runs(self, job_id: str, limit: int, *, before_ms: int = END_MS) -> tuple[RunView, ...]:
        """The runs of a job that are due before a time, latest first; one of them, as a rule the first, may be one to come."""
        view = await self.job(job_id)
        # Of a job with one due time there is a history only if more than its trigger has asked for runs of it.
        known = set(await self._history(view, limit, before_ms))
        if view.last_run is not None and view.last_run.due_ms < before_ms:
            known.add(view.last_run.due_ms)
        if view.next_due_ms is not None and view.next_due_ms < before_ms:
            known.add(view.next_due_ms)
        dues = sorted(known, reverse=True)
        if not dues and before_ms == END_MS:
            raise NotFound(
                f"job {job_id} has no runs: it is {view.state}{view.reason and f' ({view.reason})'}"
            )
        return tuple(await asyncio.gather(*(self._run(job_id, due_ms) for due_ms in dues[:limit])))

    async def failed(self, limit: int, *, before: str | None = None) -> RunPage:
        """The runs that ended without success in the last thirty days and stand so, the latest end first.

        `before`: only those behind this run in that order, which has to be one of them.
        """
        now_ms = self._clock.now_ms()
        place = (END_MS, "") if before is None else (await self._failed_at(before), before)
        found: list[RunView] = []
        for day in range(min(place[0], now_ms) // DAY_MS, now_ms // DAY_MS - FAILURES_KEPT_DAYS - 1, -1):
            async for run in self._failed_on(day, place):
                if len(found) == limit:
                    return RunPage(runs=tuple(found), before=found[-1].run_id)
                found.append(run)
        return RunPage(runs=tuple(found))

    async def executors(self, role: str = "executor") -> tuple[Heartbeat, ...]:
        """The latest heartbeat of each process of a role within a week, the latest first."""
        rows = await self._ask(Statement.VIEW_EXECUTORS, role)
        beats = [
            Heartbeat(role=role, **row._asdict() | {"classes": tuple(row.classes or ())}) for row in rows
        ]
        return tuple(sorted(beats, key=lambda beat: beat.at_ms, reverse=True))

    # -- jobs ------------------------------------------------------------------------------------------------------

    async def _find(self, job_id: str) -> Any | None:
        bucket = bucket_of(job_id)
        if bucket > minute_of(END_MS):
            return None  # an id that nobody can have been given
        rows = await self._ask(Statement.VIEW_JOB, bucket, self._shard_of(job_id), job_id)
        return rows[0] if rows else None

    async def _job_view(self, row: Any) -> JobView:
        now_ms = self._clock.now_ms()
        last = decode_run_event(row.last_run) if row.last_run else None
        latest_ms = last.due_ms if last else None
        job = _definition(row)
        if job is not None and job.recurring and latest_ms is not None:
            next_ms = job.next_ms(latest_ms)
            if next_ms is not None and next_ms <= now_ms:
                # The run heard of last may be a retry of an earlier one than the latest.
                latest_ms = max(latest_ms, await self._latest_due_ms(row.job_id, latest_ms, now_ms))
        return job_view(row, job, last, latest_ms, now_ms)

    async def _readable_view(self, row: Any) -> JobView | None:
        try:
            return await self._job_view(row)
        except (UndecodableRecord, InvalidJob) as error:
            log.error("job %s passed over: %s", row.job_id, error, extra={"action": "unreadable_job"})
            return None

    async def _newest_first(self, before: Place) -> AsyncGenerator[Any, None]:
        named = await self._named(before)
        async with aclosing(self._generated(before)) as generated:
            async for row in generated:
                while named and named[0] > _place(row):
                    if (earlier := await self._find(named.popleft()[1])) is not None:
                        yield earlier
                yield row
        for _, job_id in named:
            if (row := await self._find(job_id)) is not None:
                yield row

    async def _named(self, before: Place) -> "deque[Place]":
        """The places of all named jobs before one: they are few, and lie in the order of their names."""
        shards = list(range(self._settings.partitions))
        buckets = range(-1, -1 - NAMED_BUCKETS, -1)
        pages = await asyncio.gather(*(self._ask(Statement.VIEW_NAMED, bucket, shards) for bucket in buckets))
        places = (_place(row) for page in pages for row in page)
        return deque(sorted((place for place in places if place < before), reverse=True))

    async def _generated(self, before: Place) -> AsyncGenerator[Any, None]:
        """The rows of the jobs with generated ids before a place, newest first."""
        async with aclosing(self._generated_buckets(minute_of(before[0]))) as buckets:
            async for bucket in buckets:
                async for row in self._bucket(bucket, before):
                    yield row

    async def _generated_buckets(self, last: int) -> AsyncGenerator[int, None]:
        """The buckets of generated ids that are not empty, from one on backwards."""
        for day in sorted((row.day for row in await self._ask(Statement.VIEW_DAYS)), reverse=True):
            if day <= last // DAY:
                for row in await self._ask(Statement.VIEW_BUCKETS, day, last):
                    yield row.bucket

    async def _buckets_from(self, last: int) -> AsyncGenerator[int, None]:
        """All buckets from one on, in descending order: those of generated ids, then those of named jobs."""
        if last >= 0:
            async with aclosing(self._generated_buckets(last)) as generated:
                async for bucket in generated:
                    yield bucket
        for bucket in range(min(last, -1), -1 - NAMED_BUCKETS, -1):
            yield bucket

    async def _bucket(self, bucket: int, before: Place) -> AsyncGenerator[Any, None]:
        """The rows of all shards of one bucket, merged."""
        start = _id_after(min(before[0], (bucket + 1) * BUCKET_MS))
        while True:
            asked = (Statement.VIEW_JOBS, bucket)
            shards = range(self._settings.partitions)
            pages = await asyncio.gather(*(self._ask(*asked, shard, start, PAGE_ROWS) for shard in shards))
            # A full page says nothing about what lies behind its last row.
            known = max((page[-1].job_id for page in pages if len(page) == PAGE_ROWS), default="")
            rows = (row for page in pages for row in page if row.job_id >= known)
            for row in sorted(rows, key=lambda row: row.job_id, reverse=True):
                if _place(row) < before:
                    yield row
            if not known:
                return
            start = known

    async def _place(self, job_id: str | None) -> Place:
        if job_id is None:
            return END_MS, ""
        if is_generated(job_id):
            return generated_at_ms(job_id), job_id
        row = await self._find(job_id)
        if row is None:
            raise NotFound(f"there is no job {job_id} to list jobs before")
        return _place(row)

    # -- runs ------------------------------------------------------------------------------------------------------

    async def _run(self, job_id: str, due_ms: int) -> RunView:
        home = (minute_of(due_ms), self._shard_of(job_id), run_id(job_id, due_ms))
        rows = await self._ask(Statement.VIEW_ATTEMPTS, *home) if due_ms <= END_MS else ()
        return run_view(
            job_id, due_ms, [_attempt(decode_run_event(row.event)) for row in rows], self._clock.now_ms()
        )

    async def _failed_on(self, day: int, before: Place) -> AsyncGenerator[RunView, None]:
        """The runs that ended without success on a day, of all shards, merged."""
        while True:
            asked = (Statement.VIEW_FAILURES, day)
            shards = range(self._settings.partitions)
            pages = await asyncio.gather(*(self._ask(*asked, shard, *before, PAGE_ROWS) for shard in shards))
            # A full page says nothing about what lies behind its last row.
            known = max((tuple(page[-1]) for page in pages if len(page) == PAGE_ROWS), default=None)
            places = sorted((tuple(row) for page in pages for row in page), reverse=True)
            places = [place for place in places if known is None or place >= known]
            for ended_ms, run in places:
                try:
                    view = await self._run(*parse_run_id(run))
                except ValueError as error:  # a foreign row is no reason to show nothing
                    log.error("a failure passed over: %s", error, extra={"action": "foreign_row"})
                    continue
                # A run that was retried is no failure any more, and one that failed again has another place.
                if view.state in FAILURES and view.last and view.last.ended_ms == ended_ms:
                    yield view
            if known is None:
                return
            before = known

    async def _failed_at(self, run: str) -> int:
        try:
            parse_run_id(run)
        except ValueError as error:
            raise NotFound(str(error)) from error
        view = await self.run(run)
        if view.state not in FAILURES or view.last is None or view.last.ended_ms is None:
            raise NotFound(f"run {run} is {view.state}, and no place in the listing of failed runs")
        return view.last.ended_ms

    async def _history(self, view: JobView, limit: int, before_ms: int) -> list[int]:
        """The due times of a recurring job of which anything is recorded, latest first."""
        last = view.last_run.due_ms if view.last_run else 0
        latest = minute_of(min(before_ms, max(last, self._clock.now_ms()))) // PERIOD
        dues: list[int] = []
        # A backfill may have asked for due times of before the job.
        earliest = minute_of(view.accepted_ms or 0) // PERIOD - BACKFILLED_PERIODS
        for period in range(latest, earliest - 1, -1):
            if len(dues) >= limit:
                break
            rows = await self._ask(Statement.VIEW_HISTORY, view.job_id, period, before_ms, limit)
            dues += [row.due_ms for row in rows]
        return dues

    async def _latest_due_ms(self, job_id: str, from_ms: int, until_ms: int) -> int:
        for period in range(minute_of(until_ms) // PERIOD, minute_of(from_ms) // PERIOD - 1, -1):
            if rows := await self._ask(Statement.VIEW_HISTORY, job_id, period, END_MS, 1):
                return int(rows[0].due_ms)
        return from_ms

    # -- asking ----------------------------------------------------------------------------------------------------

    async def _ask(self, statement: Statement, *values: Any) -> Sequence[Any]:
        try:
            return await self._session.run(statement, *values)
        except (DriverException, NoHostAvailable) as error:
            raise Unavailable(
                f"Cassandra at {self._settings.cassandra} does not answer any more: {error}; is it up? (make status)"
            ) from error

    def _shard_of(self, job_id: str) -> int:
        return shard_of(job_id, self._settings.partitions)


def job_view(
    row: Any, job: Job | None, event: RunEvent | None, latest_due_ms: int | None, now_ms: int
) -> JobView:
    """What a row of `jobs` shows, given its last event and the latest due time of which anything is recorded."""
    stored = JobState(row.state) if row.state else JobState.ACTIVE
    last = _last_run(event, now_ms) if event else None
    next_ms = None
    if stored is JobState.ACTIVE and job is not None:
        begin_ms = due_from_ms(row.job_id, row.accepted_ms)
        next_ms = next_due_ms(job, begin_ms, row.since_ms, latest_due_ms)
    complete = job is not None
    return JobView(
        job_id=row.job_id,
        state=job_state(stored, next_ms, last.state if last and complete else None),
        reason=row.reason or "",
        job=job,
        version=row.version,
        accepted_ms=row.accepted_ms,
        next_due_ms=next_ms,
        last_run=last,
    )


def _last_run(event: RunEvent, now_ms: int) -> LastRun:
    return LastRun(
        run_id=event.run_id,
        due_ms=event.due_ms,
        state=run_state(event.state, event.retry_ms, event.due_ms, now_ms),
        attempts=event.attempt,
        started_ms=event.started_ms,
        ended_ms=event.ended_ms,
        executor=event.executor,
        lateness_ms=lateness_ms(event.started_ms, event.due_ms) if event.attempt == 1 else None,
    )


def _attempt(event: RunEvent) -> AttemptView:
    return AttemptView(
        attempt=event.attempt,
        state=event.state,
        executor_class=event.executor_class,
        executor=event.executor,
        started_ms=event.started_ms,
        ended_ms=event.ended_ms,
        retry_ms=event.retry_ms,
        reason=event.reason,
        exit_status=event.exit_status,
        output=event.output,
        progress=event.progress,
        heard_ms=event.at_ms,
    )


def _definition(row: Any) -> Job | None:
    if not row.definition:
        return None
    # As in `definition_of`: only the first definition of a job may leave open when it is due.
    return job_of(row.definition).anchored(base_ms(row.job_id, row.accepted_ms))


def _place(row: Any) -> Place:
    made_ms = generated_at_ms(row.job_id) if is_generated(row.job_id) else row.accepted_ms or 0
    return made_ms, row.job_id


def _id_after(ms: int) -> str:
    """A text that sorts behind every id generated up to an instant, and before those generated later."""
    text = f"{ms + 1:012x}"
    return f"{text[:8]}-{text[8:]}"
