"""The states of runs and jobs, and what moves a run from one to the next.

                  ┌──────────────────────────────────────────► MISSED, SKIPPED, CANCELLED
                  │                                    (ended before it was emitted, by the scheduler)
    SCHEDULED ──► READY ──► RUNNING ──► SUCCEEDED
        ▲           ▲          │ ├────► FAILED, TIMED_OUT, CRASHED     (no attempt left)
        │           │          │ └────► CANCELLED
        └───────────┴──────────┘
      retry (a new attempt     interruption
      waits in the schedule)

A run that ends within 250 ms may be reported by its end alone, so READY also goes to every end that RUNNING has.
"""

from enum import StrEnum


class RunState(StrEnum):
    #: Its due time has not come, or it waits for its retry.
    SCHEDULED = "SCHEDULED"
    #: It is due; the scheduler has handed it to a ready topic and no executor has started it.
    READY = "READY"
    #: An executor performs it.
    RUNNING = "RUNNING"
    #: It ended well.
    SUCCEEDED = "SUCCEEDED"
    #: It reported a failure and no attempt is left.
    FAILED = "FAILED"
    #: It was killed at its timeout and no attempt is left.
    TIMED_OUT = "TIMED_OUT"
    #: Its process died by itself for the third time, or its executors did, again and again.
    CRASHED = "CRASHED"
    #: Somebody cancelled the job.
    CANCELLED = "CANCELLED"
    #: A policy, which the reason names, left it out.
    SKIPPED = "SKIPPED"
    #: It could not be emitted; the reason says why.
    MISSED = "MISSED"


class AttemptState(StrEnum):
    """How one attempt stands. An INTERRUPTED one is repeated as the next attempt, and costs the run no retry."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    CRASHED = "CRASHED"
    CANCELLED = "CANCELLED"
    INTERRUPTED = "INTERRUPTED"
    SKIPPED = "SKIPPED"
    MISSED = "MISSED"


class JobState(StrEnum):
    #: It has a due time to come, or a run that has not ended.
    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    CANCELLED = "CANCELLED"
    #: Its last due time has passed and its last run has ended.
    COMPLETED = "COMPLETED"
    #: It could not be accepted; the reason says why.
    REJECTED = "REJECTED"


_BEFORE_EMISSION = {RunState.MISSED, RunState.SKIPPED, RunState.CANCELLED}
_AFTER_A_START = {
    RunState.SUCCEEDED,
    RunState.FAILED,
    RunState.TIMED_OUT,
    RunState.CRASHED,
    RunState.CANCELLED,
    RunState.SKIPPED,  # by an overlap policy, which is the executor's
    RunState.SCHEDULED,  # a retry waits in the schedule
    RunState.READY,  # an interrupted attempt is repeated
}

#: The legal transitions; a state that is missing here is an end.
TRANSITIONS: dict[RunState, set[RunState]] = {
    RunState.SCHEDULED: {RunState.READY} | _BEFORE_EMISSION,
    RunState.READY: {RunState.RUNNING} | _AFTER_A_START - {RunState.READY},
    RunState.RUNNING: _AFTER_A_START,
}

ENDS: frozenset[RunState] = frozenset(RunState) - TRANSITIONS.keys()

#: The ends of runs that were performed without success, and may be performed again if somebody asks for that.
FAILURES: frozenset[RunState] = frozenset({RunState.FAILED, RunState.TIMED_OUT, RunState.CRASHED})


def run_state_after(attempt: AttemptState, retry_follows: bool) -> RunState:
    """The state of a run whose latest attempt stands like this."""
    if retry_follows:
        return RunState.SCHEDULED
    if attempt is AttemptState.INTERRUPTED:
        return RunState.READY
    return RunState(attempt.value)
