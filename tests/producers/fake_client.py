"""Clients of the command line's that send nothing."""

from collections.abc import Iterable
from typing import Any, ClassVar, Self

from dueline.errors import NotAccepted, SomeNotAccepted
from dueline.job import Job


class FakeClient:
    """Accepts everything, or as many jobs as it is told."""

    jobs: ClassVar[list[Job]] = []
    accepts: ClassVar[int | None] = None

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    def submit_job(self, job: Job, *, timeout: float) -> str:
        if self.accepts is not None:
            raise NotAccepted("some-id", "Kafka did not answer")
        self.jobs.append(job)
        return job.id or f"id-{len(self.jobs)}"

    def submit_many(self, jobs: Iterable[Job], *, timeout: float) -> list[str]:
        given = list(jobs)
        ids = [job.id or f"id-{number}" for number, job in enumerate(given, len(self.jobs) + 1)]
        self.jobs.extend(given)
        if self.accepts is not None:
            sent, kept = ids[: self.accepts + 1], ids[: self.accepts]
            raise SomeNotAccepted(sent=sent, accepted=kept, unacknowledged=sent[self.accepts :], why="gone")
        return ids

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return


class Recorder:
    """A client that writes down its calls."""

    calls: ClassVar[list[tuple[Any, ...]]] = []

    def __init__(self, bootstrap: str) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, timeout: self.calls.append((name, *arguments))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return
