"""What a test sees of jobs and runs: the words of the platform's views, with times as aware datetimes, UTC."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dueline.clock import to_ms
from dueline.ids import run_id
from dueline.job import Job
from dueline.runs import Output
from dueline.states import AttemptState, JobState, RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """One try of a run, ended."""

    #: From 1.
    attempt: int
    state: AttemptState
    #: For one that was left out (CANCELLED, SKIPPED, MISSED), both are the time at which it was.
    started: datetime
    ended: datetime
    #: When the next attempt is due, if one follows.
    retry: datetime | None
    #: Why it ended as it did, in one line.
    reason: str
    #: What the platform would store of it; empty if it was left out.
    output: Output

    @property
    def result(self) -> Any:
        """The value that the executor class returned, as it comes out of JSON."""
        return json.loads(self.output.result) if self.output.result else None

    @property
    def error(self) -> str:
        """The error with its trace; empty after a success."""
        return self.output.error

    @property
    def stdout(self) -> str:
        return self.output.stdout.decode(errors="backslashreplace")

    @property
    def stderr(self) -> str:
        return self.output.stderr.decode(errors="backslashreplace")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """One execution of a job for one due time, of which an attempt at least has ended."""

    job_id: str
    due: datetime
    state: RunState
    #: In their order.
    attempts: tuple[AttemptView, ...]

    @property
    def run_id(self) -> str:
        return run_id(self.job_id, to_ms(self.due))

    @property
    def last(self) -> AttemptView:
        """The latest attempt."""
        return self.attempts[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """One job."""

    job_id: str
    state: JobState
    #: Why it was rejected, or is paused or cancelled; else empty.
    reason: str = ""
    #: Its definition with its triggers anchored; None for a rejected one.
    job: Job | None = None
    accepted: datetime
    #: The due time of the next run to be performed; past when it is late; None when there is none any more.
    next_due: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A submission that was not accepted. Its client has heard nothing of that: the platform says so on `jobs.rejected`."""

    #: As the record's key has it.
    job_id: str
    reason: str
    at: datetime
