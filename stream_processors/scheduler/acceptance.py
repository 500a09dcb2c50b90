"""From submissions to what they ask for: rows of the schedule, rows of jobs, records to pass on, records to refuse.

    record ──► decode ──► in its shard? ──► known already? ──► due when? ──► row of the schedule, row of jobs
                  │              │                │               │
                  ▼              ▼                ▼               ▼
               refused        passed on        nothing         refused

Nothing here is written; the shard does that. What a record asks for follows from the record and from what was stored
before it, never from the time at which it is read: a replay asks for the same.
"""

import asyncio
import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from dueline.address import REJECTED, SUBMISSIONS, shard_of
from dueline.calendars import Calendar, Calendars
from dueline.codec import (
    SUBMISSION_LENGTH_MAX,
    Submission,
    decode,
    decode_ready_run,
    decode_submission,
    encode_job,
    encode_ready_run,
)
from dueline.commands import ControlCommand, RetryCommand
from dueline.contracts import SINGLE_OBJECT_MARK
from dueline.errors import DuelineError, InvalidJob, UndecodableRecord
from dueline.ids import generated_at_ms, id_of_record, is_generated, is_name
from dueline.job import Job
from dueline.runs import ReadyRun, RunKey
from dueline.states import ENDS, JobState, RunState
from infra.kafka import RECORD_LENGTH_MAX
from infra.publisher import Record
from infra.rejects import CUT, PLACE, REASON
from infra.store import JobRow, ScheduledRun

log = logging.getLogger(__name__)

#: Ids of this age are remembered; a generated id that is older is looked up. It need only span the time for which a
#: client may repeat a submission, and the look-up covers the rest.
REMEMBERED_MS = 60_000
#: Clocks of clients may be this far ahead of the brokers' before a submission that they repeat, just when its shard
#: moves, makes a second run.
CLOCKS_AHEAD_MS = 5_000
#: How long a submission may be on its way, from the making of its id to its acceptance, for its first due time.
ON_ITS_WAY_MS = 60_000
#: How long a record may have been passed on for its first time to count; an outage of the platform in between.
PASSED_ON_WITHIN_MS = 24 * 3600 * 1000
#: None are kept yet, so jobs that name one are refused.
NO_CALENDARS: Calendars = {}
#: A record that was passed on says with these headers when it first came, and from where.
FIRST_STAMP, FIRST_PLACE = "dueline-first-timestamp", "dueline-first-place"
#: Characters of a reason: a message may quote what it is about at length.
REASON_LENGTH_MAX = 2000
#: Room that the headers of a refused record may need.
HEADERS_LENGTH_MAX = 64_000

_Decoded = Submission | DuelineError
_Jobs = Mapping[str, JobRow]
_Runs = Mapping[RunKey, tuple[int, RunState] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A record of the submissions topic."""

    partition: int
    offset: int
    #: When the broker appended it.
    stamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()

    @property
    def place(self) -> str:
        return f"{SUBMISSIONS}/{self.partition}/{self.offset}"

    @property
    def first_stamp_ms(self) -> int:
        """When it was appended for the first time, if it was passed on; never later than now, nor long before."""
        for name, value in self.headers:
            if name == FIRST_STAMP and value and value.isdigit() and len(value) < 16:  # anybody can send any
                return max(min(int(value), self.stamp_ms), self.stamp_ms - PASSED_ON_WITHIN_MS)
        return self.stamp_ms

    @property
    def passed_on(self) -> bool:
        return any(name == FIRST_PLACE for name, _ in self.headers)


@dataclass(slots=True)
class Asked:
    """What a batch of submissions asks for."""

    rows: list[ScheduledRun] = field(default_factory=list)
    jobs: list[JobRow] = field(default_factory=list)
    #: Passed on to another shard, or refused.
    records: list[Record] = field(default_factory=list)


class Known(Protocol):
    """What was stored before. See `infra.store.Store`."""

    async def find_jobs(self, shard: int, job_ids: Collection[str]) -> Mapping[str, JobRow]: ...

    async def latest_attempt(self, run_id: str, job_id: str, due_ms: int) -> tuple[int, RunState] | None: ...


class Acceptance:
    """Reads the submissions of one shard, in order."""

    def __init__(self, shard: int, shards: int, known: Known) -> None:
        self._shard = shard
        self._shards = shards
        self._known = known
        #: Generated ids of before this time may have come before the first record that is read here, to an earlier owner.
        self._since_ms: int | None = None
        #: The jobs accepted lately, oldest first, with the time until which they are remembered.
        self._recent: OrderedDict[str, tuple[JobRow, int]] = OrderedDict()

    async def read(self, records: Sequence[Received]) -> Asked:
        """What the records ask for, together."""
        if records:
            if self._since_ms is None:
                self._since_ms = records[0].stamp_ms + CLOCKS_AHEAD_MS
            # Before the look-up: a job that is forgotten after it would be neither remembered nor found.
            self._forget(records[0].stamp_ms)
        decoded = [(record, _decoded(record)) for record in records]
        jobs, runs = await self._look_up(decoded)
        asked = Asked()
        for record, submission in decoded:
            try:
                if isinstance(submission, Job):
                    self._read_job(record, submission, jobs, asked)
                elif isinstance(submission, RetryCommand):
                    self._read_retry(record, submission, runs, asked)
                elif isinstance(submission, ControlCommand):
                    raise InvalidJob(
                        "action", f"{submission.action} is not understood by this version of the scheduler"
                    )
                elif isinstance(submission, Calendar):
                    raise InvalidJob("calendar", "this version of the scheduler does not keep calendars")
                else:
                    raise submission
            except DuelineError as error:
                self._refuse(record, error, jobs, asked)
            except Exception as error:
                # A mistake of ours, but no record may stop its shard, or vanish.
                self._refuse(record, _mistake(record, error), jobs, asked)
        return asked

    async def _look_up(self, decoded: Iterable[tuple[Received, _Decoded]]) -> tuple[_Jobs, _Runs]:
        """All that was stored before of what the records name, in one go."""
        ids = {
            job_id
            for record, submission in decoded
            if (job_id := _id_of(record, submission)) and not isinstance(submission, RetryCommand)
            if not self._is_elsewhere(job_id)
            and job_id not in self._recent
            and self._may_be_known(job_id, record)
        }
        runs = {s.run.key: s.run for _, s in decoded if isinstance(s, RetryCommand)}
        found = await self._known.find_jobs(self._shard, ids) if ids else {}
        found_runs = await asyncio.gather(
            *(self._known.latest_attempt(run.run_id, run.job_id, run.due_ms) for run in runs.values())
        )
        jobs = {job_id: job for job_id, job in found.items() if job.state is not JobState.REJECTED}
        return jobs, dict(zip(runs, found_runs, strict=True))

    def _read_job(self, record: Received, job: Job, jobs: _Jobs, asked: Asked) -> None:
        job_id = _id_of(record, job)
        assert job_id is not None
        if job.id is None:
            job = replace(job, id=job_id)
        if self._is_elsewhere(job_id):
            asked.records.append(_passed_on(record, job_id, encode_job(job)))
            return
        known = self._recent[job_id][0] if job_id in self._recent else jobs.get(job_id)
        # A job found with the version of this very record was stored before a crash, and is written again.
        if known is not None and known.version != record.offset:
            if known.definition != encode_job(job.anchored(_base_ms(job_id, known.accepted_ms))):
                raise InvalidJob(
                    "id", f"job {job_id} exists with another definition; submit this one under a new id"
                )
            return
        accepted_ms = known.accepted_ms if known else record.first_stamp_ms
        job = job.anchored(_base_ms(job_id, accepted_ms))
        run = first_run(job, job_id, accepted_ms, record)
        definition = encode_job(job)
        row = JobRow(job_id=job_id, version=record.offset, accepted_ms=accepted_ms, definition=definition)
        asked.rows.append(row_of(run, record.offset, definition if job.recurring else None))
        asked.jobs.append(row)
        self._remember(row, record)

    def _read_retry(self, record: Received, command: RetryCommand, runs: _Runs, asked: Asked) -> None:
        run = command.run
        if self._is_elsewhere(run.job_id):
            asked.records.append(_passed_on(record, run.job_id, record.value))
            return
        latest = runs[run.key]
        if latest and (latest[0] > command.follows or latest[1] in ENDS):
            log.info(
                "retry of %s dropped, it is %s", run.run_id, latest[1], extra={"action": "retry_dropped"}
            )
            return
        asked.rows.append(
            row_of(replace(run, emit_ms=max(run.emit_ms, record.stamp_ms)), record.offset, None)
        )

    def _refuse(self, record: Received, error: DuelineError, jobs: _Jobs, asked: Asked) -> None:
        job_id = _readable_id(record)
        if job_id and self._is_elsewhere(job_id) and not record.passed_on:
            # Its own shard refuses it again, and can show it as REJECTED in the order of that shard's log.
            asked.records.append(_passed_on(record, job_id, record.value))
            return
        # A message may quote half a surrogate pair, which neither a header nor Cassandra takes.
        reason = str(error).encode("utf-8", "backslashreplace").decode()[:REASON_LENGTH_MAX]
        log.info("%s refused: %s", record.place, reason, extra={"action": "rejected", "job_id": job_id})
        asked.records.append(_rejected(record, reason))
        if job_id and not self._is_elsewhere(job_id) and job_id not in self._recent and job_id not in jobs:
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

    def _is_elsewhere(self, job_id: str) -> bool:
        return shard_of(job_id, self._shards) != self._shard

    def _may_be_known(self, job_id: str, record: Received) -> bool:
        """Whether a job that is not remembered may have been accepted all the same."""
        if not is_generated(job_id):
            return True
        assert self._since_ms is not None
        return generated_at_ms(job_id) < max(self._since_ms, record.stamp_ms - REMEMBERED_MS)

    def _remember(self, row: JobRow, record: Received) -> None:
        made_ms = generated_at_ms(row.job_id) if is_generated(row.job_id) else 0
        self._recent[row.job_id] = row, max(made_ms, record.stamp_ms) + REMEMBERED_MS

    def _forget(self, stamp_ms: int) -> None:
        while self._recent and next(iter(self._recent.values()))[1] < stamp_ms:
            self._recent.popitem(last=False)


def first_run(job: Job, job_id: str, accepted_ms: int, record: Received) -> ReadyRun:
    """The first run of an anchored job. Raises InvalidJob if there is none."""
    # What began while the submission was on its way is its first due time too; an old id brings no old due times.
    since_ms = max(min(_base_ms(job_id, accepted_ms), accepted_ms), accepted_ms - ON_ITS_WAY_MS)
    due_ms = job.first_ms(since_ms, NO_CALENDARS)
    return ReadyRun(
        job_id=job_id,
        due_ms=due_ms,
        emit_ms=max(job.emit_ms(due_ms), record.stamp_ms),
        attempt=1,
        version=record.offset,
        executor_class=job.executor_class,
        priority=job.priority,
        params=job.params,
        timeout_ms=round(job.timeout_s * 1000),
        retry=job.retry,
        name=job.name,
        recurring=job.recurring,
    )


def following_row(row: ScheduledRun) -> ScheduledRun | None:
    """The row of the run that follows upon one of a recurring job; None after the last."""
    assert row.definition is not None
    job = decode_submission(row.definition)
    assert isinstance(job, Job)
    run = decode_ready_run(row.run)
    due_ms = job.next_ms(run.due_ms)
    if due_ms is None:
        return None
    return row_of(replace(run, due_ms=due_ms, emit_ms=job.emit_ms(due_ms)), row.submission, row.definition)


def row_of(run: ReadyRun, submission: int, definition: bytes | None) -> ScheduledRun:
    return ScheduledRun(
        emit_ms=run.emit_ms,
        run_id=run.run_id,
        attempt=run.attempt,
        priority=run.priority,
        submission=submission,
        run=encode_ready_run(run),
        definition=definition,
    )


def _decoded(record: Received) -> _Decoded:
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
    return _readable_id(record)


def _base_ms(job_id: str, accepted_ms: int) -> int:
    """What a job without a due time is due at, and intervals without a start begin at."""
    return generated_at_ms(job_id) if is_generated(job_id) else accepted_ms


def _readable_id(record: Received) -> str | None:
    """The id that a record which is refused was meant to have, if it can be made out."""
    value = record.value or b""
    candidate: object = None
    try:
        if value.startswith(SINGLE_OBJECT_MARK):
            candidate = decode(value)[1].get("id")
        else:
            candidate = json.loads(value)["id"]
    except (UndecodableRecord, ValueError, TypeError, KeyError, RecursionError):
        candidate = None
    if candidate is None and record.key:
        candidate = record.key.decode("utf-8", "replace")
    return (
        candidate if isinstance(candidate, str) and (is_generated(candidate) or is_name(candidate)) else None
    )


def _passed_on(record: Received, job_id: str, value: bytes | None) -> Record:
    """The record for the shard that its job belongs to, with the time at which it first came."""
    own = tuple(header for header in record.headers if header[0] not in (FIRST_STAMP, FIRST_PLACE))
    marks = ((FIRST_STAMP, str(record.first_stamp_ms).encode()), (FIRST_PLACE, record.place.encode()))
    return Record(SUBMISSIONS, job_id.encode(), value, headers=own + marks)


def _rejected(record: Received, reason: str) -> Record:
    """The record for `jobs.rejected`: bytes unchanged, the reason and the source in headers."""
    value = record.value
    marks: list[tuple[str, bytes | None]] = [(REASON, reason.encode()), (PLACE, record.place.encode())]
    length = (
        len(value or b"") + len(record.key or b"") + sum(len(n) + len(v or b"") for n, v in record.headers)
    )
    if value is not None and length > RECORD_LENGTH_MAX - HEADERS_LENGTH_MAX:
        # It cannot be passed on whole: its hash and its source tell what is missing.
        marks.append((CUT, f"{len(value)} bytes, sha256 {hashlib.sha256(value).hexdigest()}".encode()))
        value = value[:SUBMISSION_LENGTH_MAX]
    return Record(REJECTED, record.key, value, headers=record.headers + tuple(marks))
