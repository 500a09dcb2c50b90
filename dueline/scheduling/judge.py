"""What becomes of a row of the schedule whose time has come: emitted, ended without that, or of no account any more.

    was its job changed since? ──► was it missed? ──► is it still worth while? ──► emitted
             │                          │                     │
             ▼                          ▼                     ▼
     nothing, or CANCELLED      SKIPPED or MISSED           MISSED          … and the row of the job's next run

A *change* says from which due time on the rows of a job's lower versions count no more; its own version has rows of its own
from there on. So what is due before a change is run as it was asked for then, and every due time belongs to one version. A
cancel ends all rows of lower versions.

A due time is *missed* if nobody could emit its run for `MISSED_AFTER_MS`: the platform was down, or the job was paused. What
is left out of them, by the job's policy, ends in an event for each. They are gone through `LEFT_OUT_MAX` at a time, each
time from a row that is durable. A verdict depends on the time, so an owner that repeats the work of one that was lost
might come to another one. It doesn't for runs that were emitted: those it finds in the log. And a due time that was left out
once is so ever after, since the later one which is run instead has become due already: but for a calendar that was replaced
meanwhile, or a change that was still to be read.
"""

import heapq
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import NamedTuple

from dueline.calendars import Calendars
from dueline.codec import decode_ready_run, may_expire
from dueline.errors import InvalidJob, UndecodableRecord
from dueline.ids import parse_run_id
from dueline.job import Job
from dueline.policies import Missed
from dueline.runs import ReadyRun, RunEvent, RunKey
from dueline.scheduling.rows import job_of, next_row, row_of, run_at
from dueline.scheduling.values import Change, ScheduledRun
from dueline.states import AttemptState

#: Longer than a shard takes to pass from one scheduler to another, so that nothing is left out because of that.
MISSED_AFTER_MS = 60_000
#: Due times that are left out in one go: some 10 ms of work, 50 for a cron expression.
LEFT_OUT_MAX = 250
#: A run that is emitted in time is for its executor to judge, which knows better when it could start.
IN_TIME_MS = 1_000
#: A row of which this process can make nothing, such as one with a time zone that is newer than its database of them, comes again so
#: much later: another scheduler, or this one with another database, may make something of it then. One that a former owner had
#: emitted already may be emitted once more that way.
UNREADABLE_WAITS_MS = 60_000

log = logging.getLogger(__name__)


class Judged(NamedTuple):
    """The verdict on a row."""

    #: Whether its run is to be emitted.
    ready: bool
    #: What ended without being emitted: this run, or others of its job behind it.
    events: tuple[RunEvent, ...] = ()
    #: The row of the next run of its job, or this one as it is to come again.
    following: ScheduledRun | None = None

    def waits(self, row: ScheduledRun) -> bool:
        """Whether the row itself is to come again."""
        return self.following is not None and self.following.key == row.key


EMIT, VOID = Judged(True), Judged(False)


class Judge:
    """The verdicts of one shard."""

    def __init__(self, emitted: Collection[RunKey] = (), calendars: Calendars | None = None) -> None:
        #: The runs that earlier owners have emitted beyond the cursor.
        self._emitted = emitted
        self._calendars: Calendars = {} if calendars is None else calendars
        self._changes: defaultdict[str, list[Change]] = defaultdict(list)
        #: The ends of the changes, the earliest first, with their versions and whose they are.
        self._ends: list[tuple[int, int, str]] = []
        #: The versions of those that have passed their ends, the lowest first, and whose they are.
        self._passed: list[tuple[int, str]] = []

    def learn(self, changes: Iterable[Change]) -> None:
        """Heed these changes from now on."""
        for change in changes:
            others = [other for other in self._changes[change.job_id] if other.version != change.version]
            same = [other for other in self._changes[change.job_id] if other.version == change.version]
            longest = max((change, *same), key=lambda one: one.until_ms)
            self._changes[change.job_id] = [*others, longest]
            heapq.heappush(self._ends, (longest.until_ms, longest.version, change.job_id))

    def forget(self, before_ms: int, satisfied: int) -> None:
        """Drop the changes that concern no row from this emit time on, and that were asked for below a submissions offset.

        One that was asked for later may concern rows whose own submissions are still to be read, before it.
        """
        while self._ends and self._ends[0][0] < before_ms:
            _, version, job_id = heapq.heappop(self._ends)
            heapq.heappush(self._passed, (version, job_id))
        while self._passed and self._passed[0][0] < satisfied:
            _, job_id = heapq.heappop(self._passed)
            changes = self._changes.get(job_id, ())
            if left := [c for c in changes if c.until_ms >= before_ms or c.version >= satisfied]:
                self._changes[job_id] = left
            else:
                self._changes.pop(job_id, None)

    def judge(self, row: ScheduledRun, now_ms: int) -> Judged:
        try:
            return self._judge(row, now_ms)
        except (InvalidJob, UndecodableRecord) as error:
            log.error(
                "%s waits, as its job can't be read here: %s; look at the versions of this scheduler and of its time zones",
                *(row.run_id, error),
                extra={"action": "unreadable_job"},
            )
            return Judged(False, following=replace(row, emit_ms=now_ms + UNREADABLE_WAITS_MS))

    def _judge(self, row: ScheduledRun, now_ms: int) -> Judged:
        if self._changes:
            job_id, _ = parse_run_id(row.run_id)
            if job_id in self._changes and (verdict := self._changed(row, job_id, now_ms)):
                return verdict
        if row.definition is not None and row.attempt == 1:
            return self._judge_recurring(row, row.definition, now_ms)
        if now_ms - row.emit_ms > IN_TIME_MS and may_expire(row.run):
            run = decode_ready_run(row.run)
            if (reason := run.expired(now_ms)) is not None:
                return Judged(False, (run.unstarted(AttemptState.MISSED, reason, now_ms),))
        return EMIT

    def _changed(self, row: ScheduledRun, job_id: str, now_ms: int) -> Judged | None:
        """What the changes of its job make of a row; None if nothing."""
        run = decode_ready_run(row.run)
        # A run that was asked for besides the schedule belongs to no version; nor does a retry, whose run has begun.
        if row.attempt == 1 and row.submission == run.version and self.is_void(run):
            return VOID
        if row.key in self._emitted:
            return None  # it is the executor's by now, and what follows on it has its own verdict
        cancel = next((c for c in self._changes[job_id] if c.cancels and run.version < c.version), None)
        if cancel is None:
            return None
        events = [run.unstarted(AttemptState.CANCELLED, cancel.reason, now_ms)]
        if row.definition is None or row.attempt > 1:
            return Judged(False, tuple(events))
        try:
            job = job_of(row.definition)
        except (InvalidJob, UndecodableRecord):
            # The cancel is heeded, though it can't be told what else it ends.
            return Judged(False, tuple(events))
        # What was due before the cancel, and is late, ends by it too.
        while (next_ms := job.next_ms(run.due_ms)) is not None and next_ms < cancel.since_ms:
            run = run_at(job, next_ms, row.submission)
            to_come = run.emit_ms > now_ms or run.key in self._emitted or self.is_void(run)
            if to_come or len(events) == LEFT_OUT_MAX:
                return Judged(False, tuple(events), next_row(row, job, next_ms))
            events.append(run.unstarted(AttemptState.CANCELLED, cancel.reason, now_ms))
        return Judged(False, tuple(events))

    def is_void(self, run: ReadyRun) -> bool:
        """Whether a run belongs to a later version than its own. That of a cancelled job belongs to none: it has an end."""
        return any(
            run.version < change.version and run.due_ms >= change.since_ms and not change.cancels
            for change in self._changes.get(run.job_id, ())
        )

    def _judge_recurring(self, row: ScheduledRun, definition: bytes, now_ms: int) -> Judged:
        job = job_of(definition)
        _, due_ms = parse_run_id(row.run_id)
        excludes = any(trigger.excluding for trigger in job.triggers)
        if not excludes and now_ms - job.emit_ms(due_ms) <= IN_TIME_MS:
            return Judged(True, following=_following(row, due_ms, job))  # as it is with nearly all
        # Made anew rather than decoded: that is quicker, and the row's own bytes are what is emitted.
        run = run_at(job, due_ms, row.submission)
        events: list[RunEvent] = []
        while run.key not in self._emitted and (why := self._left_out(job, run, now_ms)) is not None:
            if events and self.is_void(run):
                return Judged(False, tuple(events))
            if len(events) == LEFT_OUT_MAX:
                break
            events.append(run.unstarted(*why, now_ms))
            if (next_ms := job.next_ms(run.due_ms)) is None:
                return Judged(False, tuple(events))
            run = run_at(job, next_ms, row.submission)
        if events:
            return Judged(False, tuple(events), row_of(run, row.submission, definition))
        return Judged(True, following=_following(row, run.due_ms, job))

    def _left_out(self, job: Job, run: ReadyRun, now_ms: int) -> tuple[AttemptState, str] | None:
        """Why a due time is not run, if it isn't."""
        if job.emit_ms(run.due_ms) > now_ms:
            return None  # its time is still to come
        if any(trigger.excluding for trigger in job.triggers):
            try:
                name = job.excluded_by(run.due_ms, self._calendars)
            except InvalidJob:
                # Acceptance has found the calendar, so this can't be; and a run too much does less harm than a stop.
                name = None
            if name is not None:
                return AttemptState.SKIPPED, f"it lies on a date of the calendar {name}"
        return self._missed(job, run, now_ms)

    def _missed(self, job: Job, run: ReadyRun, now_ms: int) -> tuple[AttemptState, str] | None:
        """Why a due time that nobody could run in time is not run, if it isn't."""
        late_ms = now_ms - job.emit_ms(run.due_ms)
        if late_ms > IN_TIME_MS and (reason := run.expired(now_ms)) is not None:
            return AttemptState.MISSED, reason
        if late_ms <= MISSED_AFTER_MS:
            return None
        if late_ms > job.catch_up_s * 1000:
            return (
                AttemptState.MISSED,
                f"nobody could start it within {job.catch_up_s:g} s, to which catch_up_s limits what is caught up",
            )
        if job.missed is Missed.SKIP:
            return AttemptState.SKIPPED, "it was missed, and the policy of its job skips what was"
        if job.missed is Missed.LATEST:
            next_ms = self._next_ms(job, run)
            if next_ms is not None and job.emit_ms(next_ms) <= now_ms:
                return (
                    AttemptState.SKIPPED,
                    "it was missed, and by the policy of its job only the latest of what was is run",
                )
        return None

    def _next_ms(self, job: Job, run: ReadyRun) -> int | None:
        """The next due time at which there is to be a run of the same version; None if there is none."""
        try:
            next_ms = job.next_ms(run.due_ms, self._calendars)
        except InvalidJob:
            next_ms = job.next_ms(run.due_ms)
        return None if next_ms is None or self.is_void(replace(run, due_ms=next_ms)) else next_ms


def _following(row: ScheduledRun, due_ms: int, job: Job) -> ScheduledRun | None:
    """The row of the next run of its job, if it has one."""
    next_ms = job.next_ms(due_ms)
    return None if next_ms is None else next_row(row, job, next_ms)
