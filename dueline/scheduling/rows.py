"""What a version of a job puts into the schedule."""

from dataclasses import replace

from dueline.calendars import Calendars, calendar_named
from dueline.codec import decode_submission, encode_ready_run, moved_ready_run
from dueline.errors import InvalidJob
from dueline.ids import generated_at_ms, is_generated, run_id
from dueline.job import Job
from dueline.runs import ReadyRun
from dueline.scheduling.values import JobRow, ScheduledRun
from dueline.states import JobState

#: How long a submission may be on its way, from the making of its id to its acceptance, for its first due time.
ON_ITS_WAY_MS = 60_000
#: Dates that are looked at for one that no calendar leaves out: more than a year's, in some 50 ms.
LEFT_OUT_DATES_MAX = 400
DATE_MS = 24 * 3600 * 1000


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


def next_row(row: ScheduledRun, job: Job, due_ms: int) -> ScheduledRun:
    """The row of a later run of a recurring job, from that of the first attempt of an earlier one of the same version."""
    if job.start_within_s is not None or job.end_within_s is not None:
        return row_of(run_at(job, due_ms, row.submission), row.submission, row.definition)
    emit_ms = job.emit_ms(due_ms)  # without limits the two times are all that differs
    return ScheduledRun(
        emit_ms=emit_ms,
        run_id=run_id(job.id or "", due_ms),
        attempt=1,
        priority=row.priority,
        submission=row.submission,
        run=moved_ready_run(row.run, due_ms, emit_ms),
        definition=row.definition,
    )


def run_at(job: Job, due_ms: int, version: int) -> ReadyRun:
    """The run of a version of a recurring job for a due time."""
    return ReadyRun.of(job, due_ms=due_ms, emit_ms=job.emit_ms(due_ms), version=version)


def base_ms(job_id: str, accepted_ms: int) -> int:
    """What a job without a due time is due at, and intervals without a start begin at."""
    return generated_at_ms(job_id) if is_generated(job_id) else accepted_ms


def due_from_ms(job_id: str, accepted_ms: int) -> int:
    """From when on the due times of a job are its own, as it was accepted.

    What began while the submission was on its way is its first due time too; an old id brings no old due times.
    """
    return max(min(base_ms(job_id, accepted_ms), accepted_ms), accepted_ms - ON_ITS_WAY_MS)


def definition_of(row: JobRow) -> Job:
    """The job of a row, with what its definition leaves open taken from the time of its acceptance."""
    assert row.definition is not None
    return job_of(row.definition).anchored(base_ms(row.job_id, row.anchor_ms))


def job_of(definition: bytes) -> Job:
    """The job of a stored definition. One without triggers is due at its acceptance, of which its row knows."""
    job = decode_submission(definition)
    assert isinstance(job, Job)
    return job


def first_row(row: JobRow, job: Job, stamp_ms: int, calendars: Calendars) -> ScheduledRun | None:
    """The first run of a version of a job, which a record of this time has asked for; None if there is none.

    Raises InvalidJob for a job that is never due, or leaves out the dates of a calendar that there is not.
    """
    if row.state is not JobState.ACTIVE:
        return None
    due_ms = _first_due_ms(row, job, calendars)
    if due_ms is None:
        return None
    recurring = job.recurring or row.since_ms is not None
    emit_ms = max(job.emit_ms(due_ms), stamp_ms)
    run = ReadyRun.of(job, due_ms=due_ms, emit_ms=emit_ms, version=row.version, recurring=recurring)
    return row_of(run, row.version, row.definition if job.recurring else None)


def _first_due_ms(row: JobRow, job: Job, calendars: Calendars) -> int | None:
    if row.since_ms is not None:
        return job.next_ms(row.since_ms - 1)
    begin_ms = due_from_ms(row.job_id, row.accepted_ms)
    # What a calendar leaves out before that ends in a record when its time has come.
    require_some_date(job, begin_ms, calendars)
    return job.first_ms(begin_ms)


def require_due_since(job: Job, since_ms: int, calendars: Calendars) -> None:
    """Raises InvalidJob for a changed job that is never due from the change on."""
    require_some_date(job, since_ms, calendars)
    if job.first_ms(since_ms) < since_ms:
        raise InvalidJob(
            "trigger",
            "its only due time was before the change, and belongs to the job as it was; give a later one",
        )


def require_some_date(job: Job, begin_ms: int, calendars: Calendars) -> None:
    """Raises InvalidJob for a job that its calendars leave no date for a long time, or that names one which there is not."""
    names = {name for trigger in job.triggers for name in trigger.excluding}
    for name in names:
        calendar_named(name, calendars)
    if not names:
        return
    left = LEFT_OUT_DATES_MAX
    for trigger in job.triggers:
        due_ms = trigger.next_ms(begin_ms - 1)
        while due_ms is not None and left > 0:
            if trigger.excluded_by(due_ms, calendars) is None:
                return
            left -= 1
            due_ms = trigger.next_ms(due_ms + DATE_MS)
    raise InvalidJob(
        "trigger.excluding",
        f"{', '.join(sorted(names))} leave out each of the first {LEFT_OUT_DATES_MAX - left} dates on which it is due, or all; "
        "check the dates",
    )


def extra_run(row: JobRow, job: Job, due_ms: int, stamp_ms: int) -> ReadyRun:
    """A run that somebody asks for besides those that are scheduled: none of them is left out, and no limit counts."""
    run = ReadyRun.of(job, due_ms=due_ms, emit_ms=stamp_ms, version=row.version, recurring=True)
    return replace(run, start_by_ms=None, end_by_ms=None)


def last_emit_ms(job: Job, since_ms: int) -> int:
    """The latest emit time of a row that counts no more from a change on: there is one such row, of the first run from then on."""
    due_ms = job.next_ms(since_ms - 1)
    return since_ms if due_ms is None else max(since_ms, job.emit_ms(due_ms))
