"""What is kept of jobs and of their runs to come."""

from dataclasses import dataclass
from typing import Protocol

from dueline.job import Priority
from dueline.runs import RunKey
from dueline.states import JobState

CANCELLED_REASON = "its job was cancelled"
#: Where a row of the schedule stands in the order of emission: emit time, run id, attempt, submission.
Position = tuple[int, str, int, int]


class Stamped(Protocol):
    """A record of the submissions, as far as what it asks for depends on more than its content."""

    @property
    def offset(self) -> int: ...

    @property
    def stamp_ms(self) -> int:
        """When the broker appended it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledRun:
    """A row of the schedule: an attempt to come, with its ready event as it will be sent."""

    emit_ms: int
    run_id: str
    attempt: int
    priority: Priority
    #: The submissions offset of the record that asked for it, or for the first run of its job.
    submission: int
    #: The ready event, encoded.
    run: bytes
    #: The encoded definition of a job with more runs to come; None where none follows.
    definition: bytes | None = None

    @property
    def position(self) -> Position:
        return self.emit_ms, self.run_id, self.attempt, self.submission

    @property
    def key(self) -> RunKey:
        return self.run_id, self.attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """What the scheduler says of a job."""

    job_id: str
    #: The submissions offset of what it goes by: its first submission, or the last change of its definition or state.
    version: int
    #: When it was first accepted.
    accepted_ms: int
    #: The encoded job with its triggers anchored, if it has any; None for a rejected one.
    definition: bytes | None
    state: JobState = JobState.ACTIVE
    #: Why it was rejected, or is paused or cancelled.
    reason: str = ""
    #: From when on due times are this version's, or will be once it is resumed; None for a job as first accepted.
    since_ms: int | None = None
    #: When its present definition was accepted; None for the first.
    defined_ms: int | None = None
    #: The version of its last cancel: runs of lower ones have ended. 0 if there was none.
    cancelled: int = 0

    @property
    def anchor_ms(self) -> int:
        """The time of acceptance that its definition's triggers go by."""
        return self.accepted_ms if self.defined_ms is None else self.defined_ms

    @property
    def cancel_reason(self) -> str:
        """Why runs of versions before its last cancel have ended; a job that was revived since has kept no more of it."""
        return self.reason if self.version == self.cancelled else CANCELLED_REASON


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """That rows of the schedule count no more, which lower versions of a job have left there."""

    job_id: str
    #: The version of the job that this made.
    version: int
    #: Of lower versions, runs due from here on are not emitted.
    since_ms: int
    #: The latest emit time of a row that it concerns.
    until_ms: int
    #: Whether all runs of lower versions end CANCELLED, whenever they are due.
    cancels: bool = False
    #: Why, for people.
    reason: str = ""
