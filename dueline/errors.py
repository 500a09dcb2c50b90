"""Every error that Dueline raises on purpose.

    DuelineError
    ├── InvalidJob          a field of a submission is wrong; `field` names it
    ├── UndecodableRecord   bytes that are no record of ours
    ├── NotAccepted         Kafka did not acknowledge a submission in time
    │   └── SomeNotAccepted     … or not all of many; it says which
    ├── NotFound            no job or run has this id
    ├── Unavailable         Kafka, Cassandra or an extra of this package is missing
    └── OwnershipLost       another process has taken the shard

A message names the thing it is about and says what to do next, so that it can be shown to a person as it is.
"""

from collections.abc import Sequence
from typing import Any


class DuelineError(Exception):
    """The root: `except DuelineError` catches whatever Dueline raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """So that it can be sent to another process, though its arguments are not those that it was made with."""
        return _made_again, (type(self), self.args, self.__dict__)


def _made_again(kind: type[DuelineError], args: tuple[Any, ...], fields: dict[str, Any]) -> DuelineError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


class InvalidJob(DuelineError, ValueError):
    """A field of a submission is wrong. `field` is its path (`retry.max_attempts`), the message has the remedy."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class UndecodableRecord(DuelineError, ValueError):
    """Bytes that are neither JSON nor Avro of a schema that this version knows."""


class NotAccepted(DuelineError):
    """Kafka did not acknowledge the submission in the time given; whether it was stored is unknown.

    `job_id` is safe to submit again: the same id twice is one job.
    """

    def __init__(self, job_id: str, why: str) -> None:
        super().__init__(f"job {job_id} was not acknowledged: {why}; submit it again with the same id")
        self.job_id = job_id


class SomeNotAccepted(NotAccepted):
    """Of many submissions some were not acknowledged; whether those were stored is unknown.

    Every id in `sent`, in the order of the jobs given, is either in `accepted` or in `unacknowledged`. Jobs beyond
    the length of `sent` were not sent.
    """

    def __init__(
        self, *, sent: Sequence[str], accepted: Sequence[str], unacknowledged: Sequence[str], why: str
    ) -> None:
        remedy = "; submit those in `unacknowledged` again with the same ids" if unacknowledged else ""
        DuelineError.__init__(
            self,
            f"of {len(sent)} jobs sent {len(accepted)} were acknowledged, and no more were sent: {why}{remedy}",
        )
        self.job_id = unacknowledged[0] if unacknowledged else ""
        self.sent = sent
        self.accepted = accepted
        self.unacknowledged = unacknowledged


class NotFound(DuelineError, LookupError):
    """No job or run has this id."""


class Unavailable(DuelineError):
    """Something outside this process is missing: a server, or a package of an extra."""


class OwnershipLost(DuelineError):
    """Another process has taken the shard; whoever gets this must stop working on it at once."""
