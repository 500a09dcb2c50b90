"""What the platform says about runs: the records of the ready topics, of `jobs.runs` and of `jobs.executors`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dueline.ids import run_id
from dueline.job import Job, Priority
from dueline.policies import TIMEOUT_KIND, Overlap, Retry
from dueline.states import AttemptState, RunState, run_state_after

#: What names one try of one run, everywhere: the run id and the attempt, from 1.
RunKey = tuple[str, int]
#: The crash that ends a run.
CRASHES_MAX = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyRun:
    """An attempt that may start: all that its execution needs. Published on `jobs.ready.*`."""

    job_id: str
    #: The due time that the run is for.
    due_ms: int
    #: When it was to be emitted: the due time, or the acceptance if that came later, or the time of the retry.
    emit_ms: int
    #: Which try of the run this is, from 1. One that is interrupted is repeated as the next.
    attempt: int
    #: The submissions offset of the definition that asked for it.
    version: int
    executor_class: str
    priority: Priority
    params: Mapping[str, Any]
    timeout_ms: int
    retry: Retry
    name: str = ""
    #: Whether its job can have more runs.
    recurring: bool = False
    #: How many attempts before this one have failed or timed out: what the retry policy counts.
    failures: int = 0
    #: How many attempts before this one have ended by the death of their own process.
    crashes: int = 0
    #: What becomes of it if another run of its job is performed when its turn comes.
    overlap: Overlap = Overlap.QUEUE_ALL
    #: After this time its first attempt starts no more, and the run is MISSED; None for no such limit.
    start_by_ms: int | None = None
    #: After this time nothing of it is performed any more; None for no such limit.
    end_by_ms: int | None = None
    #: What an earlier attempt of the run reported last, to go on from: JSON text; empty if none has.
    progress: str = ""

    @classmethod
    def of(
        cls, job: Job, *, due_ms: int, emit_ms: int, version: int, recurring: bool | None = None
    ) -> "ReadyRun":
        """The first attempt of a job's run for a due time. `recurring`: more than its triggers say of that."""
        assert job.id is not None
        return cls(
            job_id=job.id,
            due_ms=due_ms,
            emit_ms=emit_ms,
            attempt=1,
            version=version,
            executor_class=job.executor_class,
            priority=job.priority,
            params=job.params,
            timeout_ms=round(job.timeout_s * 1000),
            retry=job.retry,
            name=job.name,
            recurring=job.recurring if recurring is None else recurring,
            overlap=job.overlap_policy,
            start_by_ms=_limit_ms(due_ms, job.start_within_s),
            end_by_ms=_limit_ms(due_ms, job.end_within_s),
        )

    @property
    def run_id(self) -> str:
        return run_id(self.job_id, self.due_ms)

    @property
    def key(self) -> RunKey:
        return self.run_id, self.attempt

    def expired(self, now_ms: int) -> str | None:
        """Why it is not worth starting any more, if it isn't."""
        if self.attempt == 1 and self.start_by_ms is not None and now_ms > self.start_by_ms:
            return f"it could not start within {(self.start_by_ms - self.due_ms) / 1000:g} s of its due time"
        if self.end_by_ms is not None and now_ms >= self.end_by_ms:
            return f"it could not end within {(self.end_by_ms - self.due_ms) / 1000:g} s of its due time"
        return None

    def within_its_end(self, now_ms: int) -> "ReadyRun":
        """The run with no more time than is left until its end."""
        if self.end_by_ms is None or (left_ms := self.end_by_ms - now_ms) >= self.timeout_ms:
            return self
        return replace(self, timeout_ms=left_ms)

    def unstarted(self, state: AttemptState, reason: str, at_ms: int) -> "RunEvent":
        """The end of an attempt that was never handed to an executor."""
        return RunEvent(
            job_id=self.job_id,
            due_ms=self.due_ms,
            attempt=self.attempt,
            version=self.version,
            state=state,
            at_ms=at_ms,
            executor_class=self.executor_class,
            priority=self.priority,
            recurring=self.recurring,
            reason=reason,
        )

    def after(
        self,
        state: AttemptState,
        ended_ms: int,
        *,
        final: bool = False,
        retry_ms: int | None = None,
        chance: float | None = None,
        progress: str = "",
    ) -> "ReadyRun | None":
        """The attempt that follows upon this one, which ended like this; None if none does.

        Failures are the retry policy's to count. A process that dies by itself is not one of them, as it tells of the
        machine as often as of the run: it is repeated, whatever the policy, but no more than `CRASHES_MAX` times in all.

        A failed run may want no further attempt, `final`, or its next one at `retry_ms`, where the policy would have one.
        It may have reported `progress`; else that of the attempts before it stands.
        `chance` in [0, 1) takes the place of the random number in the pause.
        """
        failures, crashes, pause_ms = self.failures, self.crashes, None
        if state in (AttemptState.FAILED, AttemptState.TIMED_OUT):
            failures += 1
            final = final or (state is AttemptState.TIMED_OUT and TIMEOUT_KIND in self.retry.give_up_on)
            pause_ms = None if final else self.retry.pause_ms(failures, chance)
            if pause_ms is not None and retry_ms is not None:
                pause_ms = max(0, retry_ms - ended_ms)
        elif state is AttemptState.CRASHED:
            crashes += 1
            pause_ms = self.retry.backoff_ms(crashes, chance) if crashes < CRASHES_MAX else None
        if pause_ms is None or (self.end_by_ms is not None and ended_ms + pause_ms >= self.end_by_ms):
            return None
        return replace(
            self,
            attempt=self.attempt + 1,
            emit_ms=ended_ms + pause_ms,
            failures=failures,
            crashes=crashes,
            progress=progress or self.progress,
        )

    def out_of_time(self, state: AttemptState, ended_ms: int, *, final: bool) -> str:
        """Why no attempt follows upon one that ended like this, if that is for lack of time; else empty."""
        if self.end_by_ms is None or self.after(state, ended_ms, final=final) is not None:
            return ""
        if replace(self, end_by_ms=None).after(state, ended_ms, final=final) is None:
            return ""
        within_s = (self.end_by_ms - self.due_ms) / 1000
        return f"no attempt follows, as it has to end within {within_s:g} s of its due time"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """What became of an attempt. Published on `jobs.runs`."""

    job_id: str
    due_ms: int
    attempt: int
    version: int
    state: AttemptState
    #: When the event was made, by the clock of who made it.
    at_ms: int
    executor_class: str
    priority: Priority
    recurring: bool
    #: Who performed it; empty for what ended before emission.
    executor: str = ""
    #: The owner epoch of the shard at its executor; 0 before there is one.
    epoch: int = 0
    started_ms: int | None = None
    ended_ms: int | None = None
    #: When the next attempt is due, if one follows.
    retry_ms: int | None = None
    #: Why it ended as it did, for people.
    reason: str = ""
    #: Of the process, for executor classes that have one; negative is the signal that ended it.
    exit_status: int | None = None
    #: Where the output lies in the output store; empty when there is none.
    output: str = ""
    #: How far it was, as it said last: JSON text; empty if it said nothing or succeeded.
    progress: str = ""

    @property
    def run_id(self) -> str:
        return run_id(self.job_id, self.due_ms)

    @property
    def key(self) -> RunKey:
        return self.run_id, self.attempt

    @property
    def run_state(self) -> RunState:
        return run_state_after(self.state, self.retry_ms is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerStarted:
    """That an executor owns a shard from here on. Published on the shard's partition of `jobs.runs`."""

    shard: int
    #: One more than that of the owner before.
    epoch: int
    #: Who owns it.
    executor: str
    #: When it was made, by the clock of who made it.
    at_ms: int


@dataclass(slots=True)
class Succession:
    """Which events of a partition of `jobs.runs` count: an executor whose shard has passed on has no say any more.

    The partition's records are given to it in their order, from any point on.
    """

    #: The highest owner epoch that was met.
    epoch: int = 0

    def admits(self, record: RunEvent | OwnerStarted) -> bool:
        """Whether the record counts: it is no executor's whose successor has spoken before it."""
        if isinstance(record, RunEvent) and not record.executor:
            return True  # ended before emission, by the scheduler, which has epochs of its own
        admitted = record.epoch >= self.epoch
        self.epoch = max(self.epoch, record.epoch)
        return admitted


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """That a process is there, and what it can do. Published on `jobs.executors` every few seconds."""

    #: Its id, a new one for each start.
    executor: str
    #: What it is: executor, scheduler or ledger.
    role: str = "executor"
    host: str
    pid: int
    started_ms: int
    at_ms: int
    #: How many runs it can perform at once.
    slots: int = 0
    #: How many runs it performs right now.
    running: int = 0
    #: The executor classes that it has.
    classes: tuple[str, ...] = field(default_factory=tuple)
    #: False in its last heartbeat before it stops.
    alive: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What an attempt wrote, as it lies in the output store."""

    run_id: str
    attempt: int
    state: AttemptState
    started_ms: int
    ended_ms: int
    exit_status: int | None = None
    #: The value that the executor class returned, as JSON text; empty when it returned none.
    result: str = ""
    #: The error with its trace, for people; empty after a success.
    error: str = ""
    stdout: bytes = b""
    stderr: bytes = b""
    #: Bytes that were written beyond the limit and not kept.
    bytes_dropped: int = 0


def _limit_ms(due_ms: int, within_s: float | None) -> int | None:
    return None if within_s is None else due_ms + round(within_s * 1000)
