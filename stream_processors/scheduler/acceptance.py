"""From submissions to what they ask for: rows of the schedule, rows of jobs, records to pass on, records to refuse.

    record ──► decode ──► in its shard? ──► known already? ──► due when? ──► row of the schedule, row of jobs
                  │              │                │               │
                  ▼              ▼                ▼               ▼
               refused        passed on     nothing, or        refused
                                            a new version

Nothing here is written; the shard does that. What a record asks for follows from the record and from what was stored
before it, never from the time at which it is read: a replay asks for the same.

A job's row has one version, so what earlier records asked for can't be told from it any more once it is changed. Therefore a
record that changes a job is read only when all records before it that named the job are satisfied and stored as such:
they are never read again. `Asked.end` says how far the reading came, and the shard sees to the rest.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from dueline.address import SUBMISSIONS, shard_of
from dueline.calendars import Calendar
from dueline.codec import (
    Submission,
    decode_submission,
    encode_control_command,
    encode_definition,
    is_definition,
)
from dueline.commands import Action, BulkCommand, ControlCommand, RetryCommand
from dueline.errors import DuelineError, InvalidJob, UndecodableRecord
from dueline.ids import generated_at_ms, id_of_record, is_generated
from dueline.job import Job
from dueline.policies import IfExists
from dueline.runs import RunEvent
from dueline.scheduling.control import (
    backfilled,
    changed,
    is_same,
    obeyed,
    retried,
    run_now,
    runs_named,
)
from dueline.scheduling.rows import base_ms, definition_of, first_row, row_of
from dueline.scheduling.values import Change, JobRow, ScheduledRun
from dueline.states import ENDS, AttemptState, JobState, RunState
from infra.publisher import Record
from stream_processors.scheduler.calendars import KnownCalendars
from stream_processors.scheduler.received import Received, passed_on, readable_id, rejected, spread

log = logging.getLogger(__name__)

#: A generated id that is not older than this is looked up only if it was accepted here before. It need only span the time for
#: which a client may repeat a submission.
REMEMBERED_MS = 60_000
#: Clocks of clients may be this far ahead of the brokers' before a submission that they repeat, just when its shard
#: moves, makes a second run.
CLOCKS_AHEAD_MS = 5_000
#: Characters of a reason: a message may quote what it is about at length.
REASON_LENGTH_MAX = 2000

_Decoded = Submission | DuelineError
_Jobs = Mapping[str, JobRow]
_Latest = tuple[int, RunState] | None


@dataclass(slots=True)
class Asked:
    """What a batch of submissions asks for."""

    #: The offset behind the last record that was read; 0 if none was.
    end: int = 0
    rows: list[ScheduledRun] = field(default_factory=list)
    jobs: list[JobRow] = field(default_factory=list)
    #: What to heed from now on.
    changes: list[Change] = field(default_factory=list)
    #: What the first record that was not read will change, if that has to wait: to be heeded already, so that what is due gets
    #: the right verdict.
    coming: list[Change] | None = None
    #: Jobs that were cancelled: their owner is to be told.
    cancelled: list[JobRow] = field(default_factory=list)
    #: What ended without being emitted.
    events: list[RunEvent] = field(default_factory=list)
    #: Calendars to keep, with the offsets of their records.
    calendars: list[tuple[int, Calendar]] = field(default_factory=list)
    #: Runs of jobs that had one alone and may have more from now on: job id and due time.
    history: list[tuple[str, int]] = field(default_factory=list)
    #: Passed on to another shard, or refused.
    records: list[Record] = field(default_factory=list)
    #: A command for many jobs, of which this shard is to find its own.
    bulk: tuple[Received, BulkCommand] | None = None

    @property
    def plain(self) -> bool:
        """Whether it is jobs and their first runs alone."""
        more = (self.changes, self.cancelled, self.events, self.calendars, self.history, self.records)
        return self.bulk is None and not any(more)


@dataclass(slots=True)
class _Found:
    """What was stored before of what a batch names."""

    jobs: _Jobs
    #: The latest attempt of each run that is retried, or might be filled in.
    runs: Mapping[str, _Latest]
    #: The runs that commands name, by the offsets of their records.
    named: Mapping[int, Mapping[str, tuple[str, int]]]


class Known(Protocol):
    """What was stored before. See `infra.store.Store`."""

    async def find_jobs(self, shard: int, job_ids: Collection[str]) -> Mapping[str, JobRow]: ...

    async def latest_attempt(self, run_id: str, job_id: str, due_ms: int) -> tuple[int, RunState] | None: ...


class Acceptance:
    """Reads the submissions of one shard, in order."""

    def __init__(self, shard: int, shards: int, known: Known, calendars: KnownCalendars) -> None:
        self._shard = shard
        self._shards = shards
        self._known = known
        self._calendars = calendars
        #: Generated ids of before this time may have come before the first record that is read here, to an earlier owner.
        self._since_ms: int | None = None
        #: The jobs accepted or changed whose rows may not be stored yet, in the order of their versions.
        self._unstored: OrderedDict[str, JobRow] = OrderedDict()
        #: The generated ids accepted lately, by the time until which they count as such: in parts, which are forgotten whole.
        self._lately: dict[int, set[str]] = {}
        #: The jobs of which something was asked lately that their rows may not tell of, by the offset of the last such record.
        self._extra: dict[str, int] = {}
        #: The due times of the runs that were asked for besides the schedule last.
        self._run_now_ms: dict[str, int] = {}

    async def read(self, records: Sequence[Received], satisfied: int = 0) -> Asked:
        """What the records ask for, together. All below the offset `satisfied` are so, and stored as such."""
        if records:
            if self._since_ms is None:
                self._since_ms = records[0].stamp_ms + CLOCKS_AHEAD_MS
            part = records[0].stamp_ms // REMEMBERED_MS
            self._lately = {of: ids for of, ids in self._lately.items() if of >= part - 1}
            self._extra = {job_id: offset for job_id, offset in self._extra.items() if offset >= satisfied}
            self._run_now_ms = {j: ms for j, ms in self._run_now_ms.items() if ms >= records[0].stamp_ms}
        decoded = _decoded_together(records)
        if names := {name for _, submission in decoded for name in _calendars_of(submission)}:
            await self._calendars.require(names)
        found = await self._look_up(decoded)
        asked = Asked()
        for record, submission in decoded:
            asked.coming = self._coming(record, submission, found, satisfied)
            if asked.coming is not None:
                break
            before = len(asked.jobs)
            self._read_one(record, submission, found, asked)
            for row in asked.jobs[before:]:
                if row.state is not JobState.REJECTED:
                    self._remember(row, record)
            if isinstance(submission, ControlCommand):
                self._extra[submission.job_id] = record.offset
                if submission.action is Action.RUN:
                    self._run_now_ms[submission.job_id] = self._free_ms(submission.job_id, record)
            asked.end = record.offset + 1
        return asked

    def forget(self, satisfied: int) -> None:
        """Let go of the jobs of all records below an offset: they are stored, and can be looked up."""
        while self._unstored and next(iter(self._unstored.values())).version < satisfied:
            self._unstored.popitem(last=False)

    def _read_one(self, record: Received, submission: _Decoded, found: _Found, asked: Asked) -> None:
        try:
            if isinstance(submission, Job):
                self._read_job(record, submission, found, asked)
            elif isinstance(submission, RetryCommand):
                self._read_retry(record, submission, found, asked)
            elif isinstance(submission, ControlCommand):
                self._read_command(record, submission, found, asked)
            elif isinstance(submission, Calendar):
                self._read_calendar(record, submission, asked)
            elif isinstance(submission, BulkCommand):
                self._read_bulk(record, submission, asked)
            else:
                raise submission
        except DuelineError as error:
            self._refuse(record, submission, error, found, asked)
        except Exception as error:
            # A mistake of ours, but no record may stop its shard, or vanish.
            self._refuse(record, submission, _mistake(record, error), found, asked)

    async def _look_up(self, decoded: Iterable[tuple[Received, _Decoded]]) -> _Found:
        """All that was stored before of what the records name."""
        ids = {
            job_id
            for record, submission in decoded
            if (job_id := _id_of(record, submission))
            if not self._is_elsewhere(job_id)
            and job_id not in self._unstored
            and (not isinstance(submission, Job) or self._may_be_known(job_id, record))
        }
        found = await self._known.find_jobs(self._shard, ids) if ids else {}
        jobs = {job_id: job for job_id, job in found.items() if job.state is not JobState.REJECTED}
        named: dict[int, Mapping[str, tuple[str, int]]] = {}
        runs = {s.run.run_id: (s.run.job_id, s.run.due_ms) for _, s in decoded if isinstance(s, RetryCommand)}
        for record, submission in decoded:
            if isinstance(submission, ControlCommand) and (row := self._find(submission.job_id, jobs)):
                with suppress(DuelineError):  # it is refused when its turn comes
                    named[record.offset] = runs_named(row, submission, record.stamp_ms)
                    runs |= named[record.offset]
        latest = await asyncio.gather(
            *(self._known.latest_attempt(run, *whose) for run, whose in runs.items())
        )
        return _Found(jobs, dict(zip(runs, latest, strict=True)), named)

    def _coming(
        self, record: Received, submission: _Decoded, found: _Found, satisfied: int
    ) -> list[Change] | None:
        """What a record changes that has to wait, since an earlier one that named its job might be read again; None if it needn't."""
        if not isinstance(submission, Job | ControlCommand):
            return None
        job_id = _id_of(record, submission)
        assert job_id is not None
        row = self._find(job_id, found.jobs)
        if row is None or not satisfied <= max(row.version, self._extra.get(job_id, -1)) < record.offset:
            return None
        rehearsed = Asked()
        self._read_one(record, submission, found, rehearsed)
        return rehearsed.changes if rehearsed.jobs else None

    def _read_job(self, record: Received, submitted: Job, found: _Found, asked: Asked) -> None:
        job_id = _id_of(record, submitted)
        assert job_id is not None
        job = submitted if submitted.id is not None else replace(submitted, id=job_id)
        if self._is_elsewhere(job_id):
            asked.records.append(passed_on(record, job_id, encode_definition(job)))
            return
        known = self._find(job_id, found.jobs)
        if known is None:
            self._accept(record, submitted, job, asked)
        elif known.version > record.offset:
            pass  # it was read before its job was changed, and what it asked for is satisfied
        elif known.version == record.offset:
            self._ask(record, known, asked)  # it was stored before a crash, and is written again
        elif not is_same(known, job):
            row, changes = changed(known, job, record, self._calendars)
            asked.changes += changes
            asked.history += _single_run(known, record)
            self._ask(record, row, asked)

    def _read_calendar(self, record: Received, calendar: Calendar, asked: Asked) -> None:
        calendar.require_portable()
        if self._is_elsewhere(calendar.name):
            asked.records.append(passed_on(record, calendar.name, record.value))
        else:
            asked.calendars.append((record.offset, calendar))

    def _read_bulk(self, record: Received, command: BulkCommand, asked: Asked) -> None:
        encode_control_command(command.for_job("any"))  # refuses what no shard could go on with
        if record.passed_on:
            asked.bulk = record, command
        else:
            asked.records += spread(record, self._shards)

    def _accept(self, record: Received, submitted: Job, job: Job, asked: Asked) -> None:
        """A new job: as it was submitted, and with its id."""
        job_id, accepted_ms, value = job.id or "", record.first_stamp_ms, record.value or b""
        if job.if_exists is not IfExists.REPLACE:  # few; to make a job is to check all its fields
            job = replace(job, if_exists=IfExists.REPLACE)
        anchored = job.anchored(base_ms(job_id, accepted_ms))
        # When a job without triggers is due follows from its row. So most are stored as they came.
        stored = anchored if job.triggers else job
        definition = value if stored is submitted and is_definition(value) else encode_definition(stored)
        row = JobRow(job_id=job_id, version=record.offset, accepted_ms=accepted_ms, definition=definition)
        self._ask(record, row, asked, anchored)

    def _ask(self, record: Received, row: JobRow, asked: Asked, job: Job | None = None) -> None:
        """Ask for what a version of a job needs that the record has made."""
        first = first_row(row, job or definition_of(row), record.stamp_ms, self._calendars)
        if first is not None:
            asked.rows.append(first)
        if row.cancelled == record.offset:
            asked.cancelled.append(row)
        asked.jobs.append(row)

    def _read_retry(self, record: Received, command: RetryCommand, found: _Found, asked: Asked) -> None:
        run = command.run
        if self._is_elsewhere(run.job_id):
            asked.records.append(passed_on(record, run.job_id, record.value))
            return
        latest = found.runs[run.run_id]
        if latest and (latest[0] > command.follows or latest[1] in ENDS):
            log.info(
                "retry of %s dropped, it is %s", run.run_id, latest[1], extra={"action": "retry_dropped"}
            )
            return
        row = self._find(run.job_id, found.jobs)
        if row is not None and run.version < row.cancelled:
            asked.events.append(run.unstarted(AttemptState.CANCELLED, row.cancel_reason, record.stamp_ms))
            return
        asked.rows.append(
            row_of(replace(run, emit_ms=max(run.emit_ms, record.stamp_ms)), record.offset, None)
        )

    def _read_command(self, record: Received, command: ControlCommand, found: _Found, asked: Asked) -> None:
        job_id = command.job_id
        if self._is_elsewhere(job_id):
            asked.records.append(passed_on(record, job_id, record.value))
            return
        known = self._find(job_id, found.jobs)
        if known is None:
            raise InvalidJob("id", f"there is no job {job_id} to {command.action}")
        if record.for_many and known.accepted_ms > record.asked_ms:
            return
        asked.history += _single_run(known, record)
        if known.version > record.offset:
            pass  # as above
        elif known.version == record.offset:
            self._ask(record, known, asked)
        elif command.action is Action.RUN:
            run = run_now(known, self._free_ms(job_id, record), record)
            asked.rows.append(row_of(run, record.offset, None))
        elif command.action in (Action.BACKFILL, Action.RETRY):
            named = found.named.get(record.offset, {})  # none if its job came in the same batch
            latest = {run_id: found.runs[run_id] for run_id in named}
            make = backfilled if command.action is Action.BACKFILL else retried
            asked.rows += [row_of(run, record.offset, None) for run in make(known, latest, record)]
        elif (outcome := obeyed(known, command, record, self._calendars)) is not None:
            row, changes = outcome
            asked.changes += changes
            self._ask(record, row, asked)

    def _refuse(
        self, record: Received, submission: _Decoded, error: DuelineError, found: _Found, asked: Asked
    ) -> None:
        job_id = submission.job_id if isinstance(submission, ControlCommand) else readable_id(record)
        if job_id and self._is_elsewhere(job_id) and record.is_movable and not record.passed_on:
            # Its own shard refuses it again, and can show it as REJECTED in the order of that shard's log.
            asked.records.append(passed_on(record, job_id, record.value))
            return
        if record.for_many and isinstance(submission, ControlCommand):
            return  # it is asked of those alone of which it can be
        # A message may quote half a surrogate pair, which neither a header nor Cassandra takes.
        reason = str(error).encode("utf-8", "backslashreplace").decode()[:REASON_LENGTH_MAX]
        log.info("%s refused: %s", record.place, reason, extra={"action": "rejected", "job_id": job_id})
        asked.records.append(rejected(record, reason))
        if (
            job_id
            and not isinstance(submission, ControlCommand)
            and not self._is_elsewhere(job_id)
            and self._find(job_id, found.jobs) is None
        ):
            asked.jobs.append(
                JobRow(
                    job_id=job_id,
                    version=record.offset,
                    accepted_ms=record.stamp_ms,
                    definition=None,
                    state=JobState.REJECTED,
                    reason=reason,
                )
            )

    def _free_ms(self, job_id: str, record: Received) -> int:
        """When a run is due that is asked for besides the schedule: one more of its job asked for in the same moment has its own time."""
        if record.for_many:
            return record.first_stamp_ms  # the same run, should it be asked for once more after a crash
        return max(record.stamp_ms, self._run_now_ms.get(job_id, 0) + 1)

    def _find(self, job_id: str, jobs: _Jobs) -> JobRow | None:
        return self._unstored.get(job_id) or jobs.get(job_id)

    def _is_elsewhere(self, job_id: str) -> bool:
        return shard_of(job_id, self._shards) != self._shard

    def _may_be_known(self, job_id: str, record: Received) -> bool:
        """Whether a job may have been accepted before."""
        if not is_generated(job_id) or any(job_id in ids for ids in self._lately.values()):
            return True
        assert self._since_ms is not None
        return generated_at_ms(job_id) < max(self._since_ms, record.stamp_ms - REMEMBERED_MS)

    def _remember(self, row: JobRow, record: Received) -> None:
        self._unstored[row.job_id] = row
        self._unstored.move_to_end(row.job_id)
        if is_generated(row.job_id):
            # A client's clock may be ahead: until then too its id may come again without being looked up.
            last_ms = max(generated_at_ms(row.job_id), record.stamp_ms)
            self._lately.setdefault(last_ms // REMEMBERED_MS, set()).add(row.job_id)


def _single_run(row: JobRow, record: Received) -> list[tuple[str, int]]:
    """The run that a job with a single instant has had, or has now."""
    job = definition_of(row)
    due_ms = job.next_ms(-1)
    if row.since_ms is not None or job.recurring or due_ms is None or due_ms > record.stamp_ms:
        return []
    return [(row.job_id, due_ms)]


def _decoded_together(records: Sequence[Received]) -> list[tuple[Received, _Decoded]]:
    """The first of the records, as many as are read in one go: one that asks for very many runs is read alone, and a calendar is
    kept before what comes behind it."""
    decoded: list[tuple[Received, _Decoded]] = []
    for record in records:
        submission = _decoded(record)
        is_much = isinstance(submission, BulkCommand) or (
            isinstance(submission, ControlCommand) and submission.action is Action.BACKFILL
        )
        if is_much and decoded:
            break
        decoded.append((record, submission))
        if is_much or isinstance(submission, Calendar):
            break
    return decoded


def _calendars_of(submission: _Decoded) -> Iterable[str]:
    """The calendars that a submission names."""
    if isinstance(submission, Job):
        return [name for trigger in submission.triggers for name in trigger.excluding]
    if isinstance(submission, ControlCommand) and submission.fields:
        several = submission.fields.get("triggers")
        triggers = [submission.fields.get("trigger"), *(several if isinstance(several, list) else ())]
        named = (trigger.get("excluding") for trigger in triggers if isinstance(trigger, Mapping))
        return [name for names in named if isinstance(names, list) for name in names if isinstance(name, str)]
    return ()


def _decoded(record: Received) -> _Decoded:
    if problem := record.envelope_problem:
        return UndecodableRecord(problem)
    try:
        return decode_submission(record.value or b"")
    except DuelineError as error:
        return error
    except Exception as error:
        return _mistake(record, error)


def _mistake(record: Received, error: Exception) -> DuelineError:
    log.exception("%s could not be read", record.place, exc_info=error, extra={"action": "mistake"})
    return DuelineError(f"the scheduler could not read it: {error!r}")


def _id_of(record: Received, submission: _Decoded) -> str | None:
    """The id of the job that a record is about; one without an id gets the same at each reading."""
    if isinstance(submission, Job):
        return submission.id or id_of_record(record.stamp_ms, SUBMISSIONS, record.partition, record.offset)
    if isinstance(submission, RetryCommand):
        return submission.run.job_id
    if isinstance(submission, ControlCommand):
        return submission.job_id
    return readable_id(record)
