"""The schedule in memory, in the scheduler's place: from submissions to runs that are due, or that end without being emitted."""

import heapq
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count

from dueline.address import SUBMISSIONS
from dueline.calendars import Calendar
from dueline.clock import Clock, from_ms
from dueline.codec import decode_ready_run, decode_submission, encode_definition
from dueline.commands import Action, BulkCommand, ControlCommand, RetryCommand
from dueline.errors import DuelineError, InvalidJob
from dueline.ids import id_of_record
from dueline.job import Job
from dueline.policies import IfExists
from dueline.runs import ReadyRun, RunEvent, RunKey
from dueline.scheduling.control import backfilled, changed, is_same, obeyed, retried, run_now, runs_named
from dueline.scheduling.judge import Judge
from dueline.scheduling.rows import base_ms, definition_of, first_row, row_of
from dueline.scheduling.values import Change, JobRow, ScheduledRun
from dueline.states import JobState, RunState
from dueline.testing.views import Rejected

#: What was recorded of a run: its latest attempt, and how it stands.
Latest = Callable[[str, int], tuple[int, RunState] | None]


@dataclass(frozen=True, slots=True)
class _Record:
    """A submission, as it lies in the log."""

    offset: int
    stamp_ms: int


class Schedule:
    """The jobs that were accepted, and their runs until they have ended. Records may come from any thread."""

    def __init__(self, clock: Clock, latest: Latest) -> None:
        self._clock = clock
        self._latest = latest
        #: By their ids, in the order of acceptance.
        self.jobs: dict[str, JobRow] = {}
        self.rejected: list[Rejected] = []
        self._calendars: dict[str, Calendar] = {}
        self._judge = Judge(calendars=self._calendars)
        #: Rows that wait, with their numbers: they are counted as they come.
        self._waiting: list[tuple[int, int, ScheduledRun]] = []
        #: The runs of each job that have not ended: waiting, emitted, or performed.
        self._open: defaultdict[str, dict[tuple[RunKey, int], ReadyRun]] = defaultdict(dict)
        self._offsets, self._rows = count(), count()
        self._lock = threading.RLock()
        self._run_now_ms: dict[str, int] = {}

    def receive(self, key: str, value: bytes) -> None:
        """A record of the submissions topic. One that can't be accepted is kept as rejected."""
        with self._lock:
            record = _Record(next(self._offsets), self._clock.now_ms())
            try:
                submission = decode_submission(value)
                if isinstance(submission, Job):
                    self._accept(submission, record)
                elif isinstance(submission, RetryCommand):
                    self._retry(submission.run, record)
                elif isinstance(submission, ControlCommand):
                    self._obey(submission, record)
                elif isinstance(submission, BulkCommand):
                    self._obey_for_many(submission)
                else:
                    self._calendars[submission.name] = submission
            except DuelineError as error:
                at = from_ms(record.stamp_ms)
                self.rejected.append(Rejected(job_id=key, reason=str(error), at=at))

    def emit_due(self, *, in_time: bool) -> list[ReadyRun | RunEvent]:
        """What becomes of the rows whose time has come: runs to perform, and ends of those that aren't.

        `in_time`: the time has passed while a run was performed, and the scheduler was there; else it was not.
        """
        due: list[ReadyRun | RunEvent] = []
        with self._lock:
            while self._waiting and self._waiting[0][0] <= self._clock.now_ms():
                row = heapq.heappop(self._waiting)[2]
                run = decode_ready_run(row.run)
                verdict = self._judge.judge(row, row.emit_ms if in_time else self._clock.now_ms())
                if verdict.following is not None:
                    self._put(verdict.following)
                due += verdict.events
                if verdict.ready:
                    due.append(run)
                else:
                    self.ended(run)
        return due

    def ended(self, run: ReadyRun) -> None:
        """The attempt has ended; one that follows upon it was received before."""
        with self._lock:
            self._open[run.job_id].pop((run.key, run.version), None)

    def cancelled(self, run: ReadyRun) -> str | None:
        """Why a run that was emitted must not start any more, if its job was cancelled."""
        row = self.jobs.get(run.job_id)
        return row.cancel_reason if row is not None and run.version < row.cancelled else None

    @property
    def next_emit_ms(self) -> int | None:
        """When there is something to emit again."""
        return self._waiting[0][0] if self._waiting else None

    def state_of(self, job_id: str) -> JobState:
        """How an accepted job stands: it is completed without a due time to come, or a run that has not ended."""
        state = self.jobs[job_id].state
        return JobState.COMPLETED if state is JobState.ACTIVE and not self._open.get(job_id) else state

    def next_due_ms(self, job_id: str) -> int | None:
        """The due time of the first run of an active job of which no attempt has ended."""
        row = self.jobs[job_id]
        if row.state is not JobState.ACTIVE:
            return None
        runs = (run for run in self._open.get(job_id, {}).values() if run.attempt == 1)
        return min((run.due_ms for run in runs if not self._judge.is_void(run)), default=None)

    def _accept(self, job: Job, record: _Record) -> None:
        job_id = job.id or id_of_record(record.stamp_ms, SUBMISSIONS, 0, record.offset)
        known = self.jobs.get(job_id)
        if known is None:
            job = replace(job, id=job_id, if_exists=IfExists.REPLACE)
            job = job.anchored(base_ms(job_id, record.stamp_ms))
            row = JobRow(
                job_id=job_id,
                version=record.offset,
                accepted_ms=record.stamp_ms,
                definition=encode_definition(job),
            )
            self._keep(row, [], record)
        elif not is_same(known, job):
            self._keep(*changed(known, job, record, self._calendars), record)

    def _retry(self, run: ReadyRun, record: _Record) -> None:
        run = replace(run, emit_ms=max(run.emit_ms, record.stamp_ms))
        self._put(row_of(run, record.offset, None))

    def _obey(self, command: ControlCommand, record: _Record) -> None:
        known = self.jobs.get(command.job_id)
        if known is None:
            raise InvalidJob("id", f"there is no job {command.job_id} to {command.action}")
        if command.action is Action.RUN:
            # One more of its job at the same moment has its own time.
            due_ms = max(record.stamp_ms, self._run_now_ms.get(command.job_id, 0) + 1)
            self._put(row_of(run_now(known, due_ms, record), record.offset, None))
            self._run_now_ms[command.job_id] = due_ms
        elif command.action in (Action.BACKFILL, Action.RETRY):
            named = runs_named(known, command, record.stamp_ms)
            latest = {run_id: self._latest(*whose) for run_id, whose in named.items()}
            make = backfilled if command.action is Action.BACKFILL else retried
            for run in make(known, latest, record):
                self._put(row_of(run, record.offset, None))
        elif (outcome := obeyed(known, command, record, self._calendars)) is not None:
            self._keep(*outcome, record)

    def _obey_for_many(self, command: BulkCommand) -> None:
        fitting = [
            job_id
            for job_id, row in self.jobs.items()
            if command.matching.fits(job_id, definition_of(row).executor_class, self.state_of(job_id))
        ]
        for job_id in fitting:
            with suppress(InvalidJob):  # it is asked of those alone of which it can be
                record = _Record(next(self._offsets), self._clock.now_ms())
                self._obey(command.for_job(job_id), record)

    def _keep(self, row: JobRow, changes: list[Change], record: _Record) -> None:
        """A new version of a job, and what it puts into the schedule."""
        first = first_row(row, definition_of(row), record.stamp_ms, self._calendars)
        self.jobs[row.job_id] = row
        # Retries lie further ahead than a change tells; here nothing has to be forgotten.
        self._judge.learn(changes)
        if first is not None:
            self._put(first)

    def _put(self, row: ScheduledRun) -> None:
        run = decode_ready_run(row.run)
        self._open[run.job_id][run.key, run.version] = run
        heapq.heappush(self._waiting, (row.emit_ms, next(self._rows), row))
