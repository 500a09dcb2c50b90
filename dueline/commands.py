"""What else than jobs can be asked for on `jobs.submissions`, and what the scheduler passes on of it to the executors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dueline.errors import InvalidJob
from dueline.job import Priority
from dueline.runs import ReadyRun
from dueline.triggers import MOMENT_MAX_MS

NOTE_LENGTH_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryCommand:
    """Asks the scheduler for the next attempt of a run. Sent by the executor at which an attempt failed."""

    #: The attempt that failed.
    follows: int
    #: What to emit, its attempt and emit time included.
    run: ReadyRun


class Action(StrEnum):
    """What can be asked of a job that there is."""

    #: No run of it starts any more, and what runs is ended.
    CANCEL = "cancel"
    #: Runs that become due from now on wait until it is resumed.
    PAUSE = "pause"
    #: It goes on; what was missed meanwhile is for its policy to say. A cancelled job starts anew.
    RESUME = "resume"
    #: A run besides those of its triggers, due now.
    RUN = "run"
    #: The job gets new values for some of its fields.
    CHANGE = "change"
    #: The due times of a span that have no run, or one that was left out, are run.
    BACKFILL = "backfill"
    #: A run that has ended without success is performed again.
    RETRY = "retry"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlCommand:
    """Changes what becomes of a job."""

    job_id: str
    action: Action
    #: Why, for people.
    note: str = ""
    #: Of a change: the new values, as in the JSON form of a job; None for one stands for its default.
    fields: Mapping[str, Any] = field(default_factory=dict)
    #: Of a backfill: the first and the last due time, in ms; of a retry, both are that of the run.
    start_ms: int | None = None
    end_ms: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.note, str) or len(self.note) > NOTE_LENGTH_MAX:
            raise InvalidJob("note", f"must be a text of at most {NOTE_LENGTH_MAX} characters")
        try:
            self.note.encode()
        except UnicodeEncodeError as error:
            raise InvalidJob("note", "holds half a surrogate pair, which is no text") from error
        if bool(self.fields) is not (self.action is Action.CHANGE):
            raise InvalidJob(
                "fields",
                'fields are for the action change, which needs them: the new values, such as {"priority": "high"}',
            )
        span = (self.start_ms, self.end_ms)
        has_span = self.action in (Action.BACKFILL, Action.RETRY)
        if (None not in span) is not has_span or span.count(None) == 1:
            raise InvalidJob("start", "start and end are for the action backfill, which needs both")
        if self.action is Action.RETRY and self.start_ms != self.end_ms:
            raise InvalidJob("run", "a retry is of one run, which is named by its id")
        for field_name, ms in (("start", self.start_ms), ("end", self.end_ms)):
            if ms is not None and not 0 <= ms <= MOMENT_MAX_MS:
                raise InvalidJob(field_name, "lies outside the years 1970 to 9000")
        if self.start_ms is not None and self.end_ms is not None and self.end_ms < self.start_ms:
            raise InvalidJob("end", "the end is before the start")


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelOrder:
    """Tells the owner of a shard's runs that a job was cancelled. Published on `jobs.control`, which is never paused."""

    job_id: str
    #: The submissions offset of the cancel: it is for runs of lower versions.
    version: int
    reason: str
    #: The ends of the shard's ready partitions, in which such runs lie below: later there are none.
    ready: Mapping[Priority, int]
