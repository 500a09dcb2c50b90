"""The two that the contract suite runs on: the platform in memory, and the platform."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from dueline import Client, NotFound
from dueline.clock import from_ms
from dueline.outputs import read_output
from dueline.runs import Output
from dueline.states import ENDS, AttemptState, RunState
from dueline.testing import AttemptView, JobView, RunView, TestPlatform
from infra import view_values
from infra.views import Views, open_views
from tests.platform.conftest import Platform, wait_for

#: More than any job of the suite takes.
LONG = timedelta(minutes=10)


class System(Protocol):
    """What takes jobs, performs them, and can be asked what came of them."""

    client: Client

    def now(self) -> datetime: ...

    def job(self, job_id: str) -> JobView:
        """A job, when it has been accepted."""

    def job_when(self, job_id: str, condition: Callable[[JobView], bool]) -> JobView:
        """A job, when something holds of it."""

    def ended(self, job_id: str, runs: int = 1) -> tuple[RunView, ...]:
        """The runs of a job, in the order of their due times, when so many of them have ended."""

    def ended_well(self, job_id: str) -> tuple[RunView, ...]:
        """The runs of a job, when one of them has succeeded."""


class InMemory:
    """The platform in memory, whose time passes when somebody waits for something."""

    def __init__(self) -> None:
        self._platform = TestPlatform()
        self.client = self._platform.client

    def now(self) -> datetime:
        return self._platform.clock.now()

    def pause(self, seconds: float) -> None:
        """Takes the place of a run's sleep."""
        self._platform.clock.advance(timedelta(seconds=seconds))

    def job(self, job_id: str) -> JobView:
        return self._platform.job(job_id)

    def job_when(self, job_id: str, condition: Callable[[JobView], bool]) -> JobView:
        job = self._platform.job(job_id)
        assert condition(job)
        return job

    def ended(self, job_id: str, runs: int = 1) -> tuple[RunView, ...]:
        self._platform.advance(LONG)
        return self._platform.runs(job_id)

    def ended_well(self, job_id: str) -> tuple[RunView, ...]:
        return self.ended(job_id)


class OnServers:
    """The platform with its servers, seen through its views."""

    def __init__(self, platform: Platform, client: Client, views: Views, runner: asyncio.Runner) -> None:
        self.client = client
        self._outputs = platform.settings.data / "outputs"
        self._views = views
        self._runner = runner

    def now(self) -> datetime:
        return datetime.now(UTC)

    def job(self, job_id: str) -> JobView:
        found: list[view_values.JobView] = []

        def accepted() -> bool:
            try:
                found[:] = [self._runner.run(self._views.job(job_id))]
            except NotFound:
                return False
            return found[0].job is not None

        wait_for(accepted, f"job {job_id}", 30)
        (view,) = found
        return JobView(
            job_id=view.job_id,
            state=view.state,
            reason=view.reason,
            job=view.job,
            accepted=from_ms(view.accepted_ms or 0),
            next_due=_moment(view.next_due_ms),
        )

    def job_when(self, job_id: str, condition: Callable[[JobView], bool]) -> JobView:
        wait_for(lambda: condition(self.job(job_id)), f"{job_id} to change", 30)
        return self.job(job_id)

    def ended(self, job_id: str, runs: int = 1) -> tuple[RunView, ...]:
        self.job(job_id)
        found: list[view_values.RunView] = []

        def complete() -> bool:
            try:
                views = self._runner.run(self._views.runs(job_id, 100))
            except NotFound:
                return False
            found[:] = [view for view in views if view.attempts]  # the first may be one to come
            return sum(view.state in ENDS for view in found) >= runs

        wait_for(complete, f"{runs} runs of {job_id}", 30)
        return tuple(self._run(view) for view in reversed(found))

    def ended_well(self, job_id: str) -> tuple[RunView, ...]:
        found: list[tuple[RunView, ...]] = []

        def well() -> bool:
            found[:] = [self.ended(job_id, 0)]
            return any(run.state is RunState.SUCCEEDED for run in found[0])

        wait_for(well, f"{job_id} to succeed", 30)
        return found[0]

    def _run(self, view: view_values.RunView) -> RunView:
        attempts = tuple(self._attempt(attempt) for attempt in view.attempts)
        return RunView(job_id=view.job_id, due=from_ms(view.due_ms), state=view.state, attempts=attempts)

    def _attempt(self, view: view_values.AttemptView) -> AttemptView:
        left_out = view.state in (AttemptState.CANCELLED, AttemptState.SKIPPED, AttemptState.MISSED)
        assert (view.started_ms is None) is left_out
        started_ms, ended_ms = view.started_ms or 0, view.ended_ms or 0
        nothing = Output(run_id="", attempt=0, state=view.state, started_ms=0, ended_ms=0)
        return AttemptView(
            attempt=view.attempt,
            state=view.state,
            started=from_ms(started_ms),
            ended=from_ms(ended_ms),
            retry=_moment(view.retry_ms),
            reason=view.reason,
            output=nothing if left_out else read_output(self._outputs, view.output),
        )


@contextmanager
def on_servers(platform: Platform) -> Iterator[OnServers]:
    with asyncio.Runner() as runner, Client(platform.settings.kafka) as client:
        opened: Any = open_views(platform.settings)
        views = runner.run(opened.__aenter__())
        try:
            yield OnServers(platform, client, views, runner)
        finally:
            runner.run(opened.__aexit__(None, None, None))


def _moment(ms: int | None) -> datetime | None:
    return None if ms is None else from_ms(ms)
