"""What else than jobs can be asked for on `jobs.submissions`."""

from dataclasses import dataclass
from enum import StrEnum

from dueline.runs import ReadyRun


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryCommand:
    """Asks the scheduler for the next attempt of a run. Sent by the executor at which an attempt failed."""

    #: The attempt that failed.
    follows: int
    #: What to emit, its attempt and emit time included.
    run: ReadyRun


class Action(StrEnum):
    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlCommand:
    """Changes what becomes of a job. The contract stands; the scheduler refuses such commands until it obeys them."""

    job_id: str
    action: Action
    #: Why, for people.
    note: str = ""
