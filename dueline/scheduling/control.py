"""What commands make of a job: its next version, or runs besides those of its triggers. Pure functions of job, command and record.

              ┌─── pause ───► PAUSED ────┐
    ACTIVE ◄──┴────────────── resume ────┤ cancel
       └───────── cancel ──────────► CANCELLED ──► resume, or another definition: ACTIVE again

A version of a job says from when on due times are its own, `since_ms`. That is the time of a change; for a resumed job it
is the time of its pause, so that what was missed meanwhile is for its policy to say.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from dueline.calendars import Calendars
from dueline.codec import encode_definition, encode_job
from dueline.commands import Action, ControlCommand
from dueline.errors import InvalidJob
from dueline.ids import run_id
from dueline.job import Job
from dueline.json_form import changed_job
from dueline.policies import IfExists, Overlap
from dueline.runs import ReadyRun
from dueline.scheduling.rows import (
    base_ms,
    definition_of,
    extra_run,
    last_emit_ms,
    require_due_since,
)
from dueline.scheduling.values import CANCELLED_REASON, Change, JobRow, Stamped
from dueline.states import ENDS, JobState, RunState

#: Due times of one backfill: each is looked up, and all are emitted at once.
BACKFILL_MAX = 1_000
#: A due time of an earlier version without a record is run by a backfill only if it is older: it may be on its way to its executor.
ON_ITS_WAY_MS = 15 * 60_000

Latest = Mapping[str, tuple[int, RunState] | None]


def changed(known: JobRow, job: Job, record: Stamped, calendars: Calendars) -> tuple[JobRow, list[Change]]:
    """The job with another definition. Raises InvalidJob if the caller wants none, or it is never due from now on."""
    if job.if_exists is IfExists.REFUSE:
        raise InvalidJob(
            "id", f"job {known.job_id} exists with another definition; submit this one under a new id"
        )
    stamp_ms = begin_ms_of(record)
    # The same triggers go on as they are: an interval without a start keeps its beat.
    keeps = job.triggers and same_job(known, job).triggers == definition_of(known).triggers
    anchor_ms = known.anchor_ms if keeps else stamp_ms
    job = _normal(known, job, anchor_ms)
    revived = known.state is JobState.CANCELLED
    # Of a paused job, what it missed before is for the new definition to say too.
    since_ms = stamp_ms
    if known.state is JobState.PAUSED and known.since_ms is not None:
        since_ms = known.since_ms
    require_due_since(job, since_ms, calendars)
    row = replace(
        known,
        version=record.offset,
        definition=encode_definition(job),
        state=JobState.ACTIVE if revived else known.state,
        reason="" if revived else known.reason,
        since_ms=since_ms,
        defined_ms=anchor_ms,
    )
    return row, _changes(known, record)


def begin_ms_of(record: Stamped) -> int:
    """From when on due times are for what a record says: later than the record. What was due then may have been emitted."""
    return record.stamp_ms + 1


def same_job(known: JobRow, job: Job) -> Job:
    """A job as it would be stored if it were accepted when the present definition was: its own definition changes nothing."""
    return _normal(known, job, known.anchor_ms)


def is_same(known: JobRow, job: Job) -> bool:
    """Whether a job is what the present definition says."""
    encoded = encode_job(same_job(known, job))
    # Who submitted it may have encoded the same in another way.
    return encoded == known.definition or encoded == encode_job(definition_of(known))


def obeyed(
    known: JobRow, command: ControlCommand, record: Stamped, calendars: Calendars
) -> tuple[JobRow, list[Change]] | None:
    """The job as a command wants it; None if it is so already. Raises InvalidJob for what can't be."""
    if command.action is Action.CHANGE:
        return _change(known, command, record, calendars)
    state, stamp_ms = known.state, begin_ms_of(record)
    if command.action is Action.RESUME:
        if state is JobState.ACTIVE:
            return None
        if state is JobState.PAUSED:
            return _version(known, record, JobState.ACTIVE, known.since_ms, command.note), []
        # What a cancelled job was due at meanwhile was not missed.
        return _version(known, record, JobState.ACTIVE, stamp_ms, command.note), _changes(known, record)
    if command.action is Action.PAUSE:
        if state is JobState.CANCELLED:
            raise InvalidJob("action", f"job {known.job_id} is cancelled; resume it first")
        if state is JobState.PAUSED:
            return None
        return _version(known, record, JobState.PAUSED, stamp_ms, command.note), _changes(known, record)
    assert command.action is Action.CANCEL, command.action
    if state is JobState.CANCELLED:
        return None
    reason = CANCELLED_REASON + (command.note and f": {command.note}")
    row = replace(_version(known, record, JobState.CANCELLED, stamp_ms, reason), cancelled=record.offset)
    return row, _changes(known, record, reason)


def run_now(known: JobRow, due_ms: int, record: Stamped) -> ReadyRun:
    """A run besides those of the job's triggers, due at about the time of the command."""
    _require_alive(known)
    return extra_run(known, definition_of(known), due_ms, record.stamp_ms)


def runs_named(known: JobRow, command: ControlCommand, stamp_ms: int) -> dict[str, tuple[str, int]]:
    """The job id and due time of each run that a backfill or a retry asks for, by run id; empty for other commands."""
    if command.action not in (Action.BACKFILL, Action.RETRY):
        return {}
    assert command.start_ms is not None
    assert command.end_ms is not None
    if command.action is Action.RETRY:
        return {run_id(known.job_id, command.start_ms): (known.job_id, command.start_ms)}
    dues = _dues(definition_of(known), command.start_ms, min(command.end_ms, stamp_ms))
    return {run_id(known.job_id, due_ms): (known.job_id, due_ms) for due_ms in dues}


def backfilled(known: JobRow, latest: Latest, record: Stamped) -> Sequence[ReadyRun]:
    """The runs of a backfill: those that were left out, and those of which nothing is known. Raises InvalidJob."""
    _require_alive(known)
    if len(latest) > BACKFILL_MAX:
        raise InvalidJob("end", f"the span has more than {BACKFILL_MAX} due times; ask for it in parts")
    job = definition_of(known)
    runs = []
    # What is due from here on is the schedule's to emit, or to leave out by an event: without one it is still to come.
    begin_ms = known.accepted_ms if known.since_ms is None else known.since_ms
    begin_ms = min(begin_ms, record.stamp_ms - ON_ITS_WAY_MS)
    for run, attempt in latest.items():
        due_ms = int(run.rpartition("@")[2])
        if is_left_out(attempt) or (attempt is None and due_ms < begin_ms):
            again = extra_run(known, job, due_ms, record.stamp_ms)
            number = attempt[0] + 1 if attempt else 1
            runs.append(replace(again, attempt=number, overlap=Overlap.QUEUE_ALL))
    return runs


def retried(known: JobRow, latest: Latest, record: Stamped) -> Sequence[ReadyRun]:
    """The next attempt of a run that has ended without success, by the job's present definition. Raises InvalidJob."""
    _require_alive(known)
    run, attempt = next(iter(latest.items()), ("", None))
    if attempt is None:
        raise InvalidJob(
            "run", "nothing is recorded of it; dueline failed lists the runs that can be retried"
        )
    if attempt[1] not in ENDS or attempt[1] is RunState.SUCCEEDED:
        raise InvalidJob(
            "run", f"run {run} is {attempt[1]}; only one that has ended without success can be retried"
        )
    due_ms = int(run.rpartition("@")[2])
    again = extra_run(known, definition_of(known), due_ms, record.stamp_ms)
    return [replace(again, attempt=attempt[0] + 1, overlap=Overlap.QUEUE_ALL)]


def is_left_out(attempt: tuple[int, RunState] | None) -> bool:
    """Whether a run has ended without being performed."""
    return attempt is not None and attempt[1] in (RunState.SKIPPED, RunState.MISSED)


def _change(
    known: JobRow, command: ControlCommand, record: Stamped, calendars: Calendars
) -> tuple[JobRow, list[Change]] | None:
    _require_alive(known)
    job = changed_job(definition_of(known), command.fields)
    if is_same(known, job):
        return None
    return changed(known, job, record, calendars)


def _normal(known: JobRow, job: Job, anchor_ms: int) -> Job:
    job = job.anchored(base_ms(known.job_id, anchor_ms))
    return replace(job, id=known.job_id, if_exists=IfExists.REPLACE)


def _version(known: JobRow, record: Stamped, state: JobState, since_ms: int | None, reason: str) -> JobRow:
    return replace(known, version=record.offset, state=state, since_ms=since_ms, reason=reason)


def _changes(known: JobRow, record: Stamped, cancel_reason: str = "") -> list[Change]:
    """What the schedule holds of the job as it was and counts no more."""
    # A cancelled job has a row there as an active one has: it ends when its time comes, or belongs to a later version.
    has_row = known.state is not JobState.PAUSED
    if not has_row and not cancel_reason:
        return []
    stamp_ms = begin_ms_of(record)
    return [
        Change(
            job_id=known.job_id,
            version=record.offset,
            since_ms=stamp_ms,
            until_ms=last_emit_ms(definition_of(known), stamp_ms) if has_row else stamp_ms,
            cancels=bool(cancel_reason),
            reason=cancel_reason,
        )
    ]


def _dues(job: Job, start_ms: int, end_ms: int) -> Iterator[int]:
    """The due times of a span, one more than may be asked for at most."""
    due_ms = job.next_ms(start_ms - 1)
    for _ in range(BACKFILL_MAX + 1):
        if due_ms is None or due_ms > end_ms:
            return
        yield due_ms
        due_ms = job.next_ms(due_ms)


def _require_alive(known: JobRow) -> None:
    if known.state is JobState.CANCELLED:
        raise InvalidJob(
            "action", f"job {known.job_id} is cancelled; resume it first, or give it another definition"
        )
