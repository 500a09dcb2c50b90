"""What else than jobs can be asked for on `jobs.submissions`, and what the scheduler passes on of it to the executors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dueline.errors import InvalidJob
from dueline.job import Priority
from dueline.runs import ReadyRun
from dueline.states import JobState
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


#: What can be asked of many jobs at once: the other two need the times of one job's runs.
ACTIONS_FOR_MANY = (Action.CANCEL, Action.PAUSE, Action.RESUME, Action.RUN, Action.CHANGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Describes jobs: those of which all that is given holds. To describe every job there is, say so: `prefix=""`."""

    executor_class: str | None = None
    state: JobState | None = None
    #: What their ids begin with.
    prefix: str | None = None

    def __post_init__(self) -> None:
        given = {"executor_class": self.executor_class, "prefix": self.prefix}
        if self.state is None and not any(text is not None for text in given.values()):
            raise InvalidJob(
                "matching", "describes no jobs; give an executor_class, a state or a prefix of ids"
            )
        for name, text in given.items():
            if text is not None and not isinstance(text, str):
                raise InvalidJob(f"matching.{name}", f"must be a text, not {type(text).__name__}")
        if not isinstance(self.state, JobState | None):
            raise InvalidJob("matching.state", f"{self.state!r:.80} is no JobState, such as JobState.PAUSED")

    def fits(self, job_id: str, executor_class: str | None, state: JobState) -> bool:
        return (
            self.executor_class in (None, executor_class)
            and self.state in (None, state)
            and job_id.startswith(self.prefix or "")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkCommand:
    """Changes what becomes of many jobs: of those accepted before it that a filter fits when their turn comes.

    Each gets a command of its own, in the order in which they are found. What can't be asked of a job is not asked of it.
    """

    matching: JobFilter
    action: Action
    #: Why, for people.
    note: str = ""
    #: Of a change, as in a ControlCommand.
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.action not in ACTIONS_FOR_MANY:
            raise InvalidJob(
                "action",
                f"{self.action} is for one job, by its id; for many there are {', '.join(ACTIONS_FOR_MANY)}",
            )
        self.for_job("any")  # refuses what no command can have

    def for_job(self, job_id: str) -> ControlCommand:
        return ControlCommand(job_id=job_id, action=self.action, note=self.note, fields=self.fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelOrder:
    """Tells the owner of a shard's runs that a job was cancelled. Published on `jobs.control`, which is never paused."""

    job_id: str
    #: The submissions offset of the cancel: it is for runs of lower versions.
    version: int
    reason: str
    #: The ends of the shard's ready partitions, in which such runs lie below: later there are none.
    ready: Mapping[Priority, int]
