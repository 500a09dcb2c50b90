"""What the views show of jobs and runs, and how it follows from what is stored: values and pure functions.

Nobody stores that a job is completed or that a run is ready. Both follow from the definition, the attempts recorded so
far and the time, so they are computed here when somebody asks, and cannot contradict what they follow from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dueline.commands import JobFilter
from dueline.ids import run_id
from dueline.job import Job
from dueline.states import ENDS, AttemptState, JobState, RunState, run_state_after


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """One try of a run, as the ledger recorded it."""

    #: From 1.
    attempt: int
    state: AttemptState
    executor_class: str
    #: Who performed it; empty for what ended before emission.
    executor: str
    started_ms: int | None
    ended_ms: int | None
    #: When the next attempt is due, if one follows.
    retry_ms: int | None = None
    #: Why it ended as it did, for people.
    reason: str = ""
    exit_status: int | None = None
    #: Where the output lies in the output store; empty when there is none.
    output: str = ""
    #: How far it says that it is, or was when it ended in vain: JSON text; empty if it said nothing.
    progress: str = ""
    #: When it was heard of last: while it runs and reports, some seconds ago at most.
    heard_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """One execution of a job for one due time."""

    job_id: str
    due_ms: int
    state: RunState
    #: In their order; empty while nothing is recorded.
    attempts: tuple[AttemptView, ...] = ()

    @property
    def run_id(self) -> str:
        return run_id(self.job_id, self.due_ms)

    @property
    def last(self) -> AttemptView | None:
        """The latest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def lateness_ms(self) -> int | None:
        """The actual start minus the due time: that of the first attempt, since later ones are late on purpose."""
        return lateness_ms(self.attempts[0].started_ms, self.due_ms) if self.attempts else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPage:
    """A part of the listing of failed runs."""

    runs: tuple[RunView, ...]
    #: The run to continue before; None at the end.
    before: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """The run of a job that was last heard of."""

    run_id: str
    due_ms: int
    state: RunState
    #: The number of its latest attempt, of which the times and the executor are.
    attempts: int
    started_ms: int | None
    ended_ms: int | None
    executor: str
    #: None after a retry, whose start does not tell it; the run itself does.
    lateness_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """One job."""

    job_id: str
    state: JobState
    #: Why it was rejected, or is paused or cancelled; else empty.
    reason: str = ""
    #: Its definition with its triggers anchored. None for a rejected one, and for the moment in which a run was recorded
    #: and the job was not yet.
    job: Job | None = None
    #: The submissions offset of the record that it goes by: its first submission, or its last change.
    version: int | None = None
    accepted_ms: int | None = None
    #: The first due time after all those of which anything is recorded; in the past when it waits for an executor.
    next_due_ms: int | None = None
    last_run: LastRun | None = None

    def fits(self, matching: JobFilter) -> bool:
        return matching.fits(self.job_id, self.job.executor_class if self.job else None, self.state)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """A part of the listing of jobs."""

    jobs: tuple[JobView, ...]
    #: The job id to continue before; None at the end.
    before: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobScan:
    """Some of the jobs of a shard, in the order in which they are stored."""

    jobs: tuple[JobView, ...]
    #: The bucket and the job id to go on behind; None at the end.
    behind: tuple[int, str] | None = None


def run_state(state: AttemptState | None, retry_ms: int | None, due_ms: int, now_ms: int) -> RunState:
    """How a run stands whose latest recorded attempt is in this state; None when nothing is recorded.

    An attempt that is due and not recorded waits for an executor: its run is READY.
    """
    if state is None:
        return RunState.READY if due_ms <= now_ms else RunState.SCHEDULED
    after = run_state_after(state, retry_ms is not None)
    if after is RunState.SCHEDULED and retry_ms is not None and retry_ms <= now_ms:
        return RunState.READY
    return after


def run_view(job_id: str, due_ms: int, attempts: Sequence[AttemptView], now_ms: int) -> RunView:
    last = attempts[-1] if attempts else None
    state = run_state(last.state if last else None, last.retry_ms if last else None, due_ms, now_ms)
    return RunView(job_id=job_id, due_ms=due_ms, state=state, attempts=tuple(attempts))


def next_due_ms(job: Job, begin_ms: int, since_ms: int | None, latest_due_ms: int | None) -> int | None:
    """The first due time of an anchored job after the latest of which anything is recorded.

    `begin_ms`: from when on due times are those of the job as it was accepted: see `due_from_ms`. `since_ms`: from when on
    they are those of this definition, if it is not the first.
    """
    if since_ms is not None:
        return job.next_ms(max(since_ms - 1, latest_due_ms or 0))
    first_ms = job.first_due_ms(begin_ms)
    if latest_due_ms is None or (job.recurring and first_ms and latest_due_ms < first_ms):
        return first_ms  # earlier ones are those of a backfill
    return job.next_ms(latest_due_ms)


def job_state(stored: JobState, next_ms: int | None, last: RunState | None) -> JobState:
    """How a job stands: an accepted one is completed when no due time is left and its last run has ended."""
    if stored is JobState.ACTIVE and next_ms is None and last in ENDS:
        return JobState.COMPLETED
    return stored


def lateness_ms(started_ms: int | None, due_ms: int) -> int | None:
    return None if started_ms is None else started_ms - due_ms
