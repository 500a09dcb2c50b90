"""The schedule in memory, in the scheduler's place: from submissions to runs that are due."""

import heapq
import threading
from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import count

from dueline.address import SUBMISSIONS
from dueline.calendars import Calendars
from dueline.clock import Clock, from_ms
from dueline.codec import decode_submission, encode_job
from dueline.commands import RetryCommand
from dueline.errors import DuelineError, InvalidJob
from dueline.ids import generated_at_ms, id_of_record, is_generated
from dueline.job import Job
from dueline.runs import ReadyRun, RunKey
from dueline.testing.views import Rejected

#: As in stream_processors/scheduler/acceptance.py.
ON_ITS_WAY_MS = 60_000
NO_CALENDARS: Calendars = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A job that was accepted."""

    #: With its triggers anchored.
    job: Job
    accepted_ms: int


@dataclass(frozen=True, slots=True, order=True)
class _Row:
    """A run that waits for its time. In the order in which those that wait are emitted."""

    emit_ms: int
    #: Rows are counted as they come.
    number: int
    run: ReadyRun = field(compare=False)
    #: The recurring job of which the next run follows upon this one.
    recurring: Job | None = field(compare=False)


class Schedule:
    """The jobs that were accepted, and their runs until they have ended. Records may come from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: By their ids, in the order of acceptance.
        self.jobs: dict[str, Accepted] = {}
        self.rejected: list[Rejected] = []
        self._waiting: list[_Row] = []
        #: The runs of each job that have not ended: waiting, emitted, or performed.
        self._open: defaultdict[str, dict[RunKey, ReadyRun]] = defaultdict(dict)
        self._offsets, self._rows = count(), count()
        self._lock = threading.RLock()

    def receive(self, key: str, value: bytes) -> None:
        """A record of the submissions topic. One that can't be accepted is kept as rejected."""
        with self._lock:
            offset, now_ms = next(self._offsets), self._clock.now_ms()
            try:
                submission = decode_submission(value)
                if isinstance(submission, Job):
                    self._accept(submission, offset, now_ms)
                elif isinstance(submission, RetryCommand):
                    run = submission.run
                    self._put(replace(run, emit_ms=max(run.emit_ms, now_ms)), None)
                else:
                    raise InvalidJob(
                        "submission", f"a TestPlatform does not take a {type(submission).__name__} yet"
                    )
            except DuelineError as error:
                self.rejected.append(Rejected(job_id=key, reason=str(error), at=from_ms(now_ms)))

    def emit_due(self) -> list[ReadyRun]:
        """The runs whose time has come, each once; also those that follow upon them and are late already."""
        due: list[ReadyRun] = []
        with self._lock:
            while self._waiting and self._waiting[0].emit_ms <= self._clock.now_ms():
                row = heapq.heappop(self._waiting)
                if row.recurring is not None:
                    self._follow(row.run, row.recurring)
                due.append(row.run)
        return due

    def ended(self, run: ReadyRun) -> None:
        """The attempt has ended; one that follows upon it was received before."""
        with self._lock:
            del self._open[run.job_id][run.key]

    @property
    def next_emit_ms(self) -> int | None:
        """When there is something to emit again."""
        return self._waiting[0].emit_ms if self._waiting else None

    def is_open(self, job_id: str) -> bool:
        """Whether the job has a due time to come, or a run that has not ended."""
        return bool(self._open.get(job_id))

    def next_due_ms(self, job_id: str) -> int | None:
        """The due time of the first run of a job of which no attempt has ended."""
        runs = self._open.get(job_id, {}).values()
        return min((run.due_ms for run in runs if run.attempt == 1), default=None)

    def _accept(self, job: Job, offset: int, now_ms: int) -> None:
        # The rules of acceptance.py, written once more: that of the platform knows shards and offsets besides.
        job_id = job.id or id_of_record(now_ms, SUBMISSIONS, 0, offset)
        job = replace(job, id=job_id)
        known = self.jobs.get(job_id)
        if known is not None:
            if encode_job(known.job) != encode_job(job.anchored(_base_ms(job_id, known.accepted_ms))):
                raise InvalidJob(
                    "id", f"job {job_id} exists with another definition; submit this one under a new id"
                )
            return
        job = job.anchored(_base_ms(job_id, now_ms))
        run = _first_run(job, job_id, now_ms, offset)
        self.jobs[job_id] = Accepted(job=job, accepted_ms=now_ms)
        self._put(run, job if job.recurring else None)

    def _follow(self, run: ReadyRun, job: Job) -> None:
        """The next run of a recurring job waits for its time, if there is one."""
        due_ms = job.next_ms(run.due_ms)
        if due_ms is not None:
            self._put(replace(run, due_ms=due_ms, emit_ms=job.emit_ms(due_ms)), job)

    def _put(self, run: ReadyRun, recurring: Job | None) -> None:
        self._open[run.job_id][run.key] = run
        heapq.heappush(self._waiting, _Row(run.emit_ms, next(self._rows), run, recurring))


def _base_ms(job_id: str, accepted_ms: int) -> int:
    return generated_at_ms(job_id) if is_generated(job_id) else accepted_ms


def _first_run(job: Job, job_id: str, accepted_ms: int, offset: int) -> ReadyRun:
    since_ms = max(min(_base_ms(job_id, accepted_ms), accepted_ms), accepted_ms - ON_ITS_WAY_MS)
    due_ms = job.first_ms(since_ms, NO_CALENDARS)
    return ReadyRun(
        job_id=job_id,
        due_ms=due_ms,
        emit_ms=max(job.emit_ms(due_ms), accepted_ms),
        attempt=1,
        version=offset,
        executor_class=job.executor_class,
        priority=job.priority,
        params=job.params,
        timeout_ms=round(job.timeout_s * 1000),
        retry=job.retry,
        name=job.name,
        recurring=job.recurring,
    )
