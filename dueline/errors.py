"""Every error that Dueline raises on purpose.

    DuelineError
    ├── InvalidJob          a field of a submission is wrong; `field` names it
    ├── UndecodableRecord   bytes that are no record of ours
    ├── NotAccepted         Kafka did not acknowledge a submission in time
    ├── NotFound            no job or run has this id
    ├── Unavailable         Kafka, Cassandra or an extra of this package is missing
    └── OwnershipLost       another process has taken the shard

A message names the thing it is about and says what to do next, so that it can be shown to a person as it is.
"""


class DuelineError(Exception):
    """The root: `except DuelineError` catches whatever Dueline raises on purpose."""


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


class NotFound(DuelineError, LookupError):
    """No job or run has this id."""


class Unavailable(DuelineError):
    """Something outside this process is missing: a server, or a package of an extra."""


class OwnershipLost(DuelineError):
    """Another process has taken the shard; whoever gets this must stop working on it at once."""
