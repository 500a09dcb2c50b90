"""What is asked of jobs that there are, where it needs the platform: what runs, what overlaps, and what dies meanwhile.

The rest is in test_contract.py.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import pytest

from dueline import Client, Every, Job, JobFilter, Once, Overlap, Retry
from dueline.address import READY, RUNS, SUBMISSIONS
from dueline.states import JobState, RunState
from infra.log_reader import bounds_of
from infra.view_values import JobView, RunView
from infra.views import Views, open_views
from stream_processors.scheduler.bulk import PAGE_ROWS
from tests.conftest import Servers
from tests.platform.conftest import Platform, lines_of, serving, wait_for
from tests.platform.test_kinds import await_ends

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]
T = TypeVar("T")
LIMIT_S = 40
SOON = timedelta(seconds=1)


class Jobs:
    """The client, and what the views say."""

    def __init__(self, platform: Platform, client: Client) -> None:
        self.platform = platform
        self.client = client

    def name(self) -> str:
        return f"job-{uuid4()}"

    def job(self, job_id: str) -> JobView:
        return self._ask(lambda views: views.job(job_id))

    def states(self, job_ids: Iterable[str]) -> list[JobState | None]:
        """None for those that are not stored yet."""

        async def state(views: Views, job_id: str) -> JobState | None:
            try:
                return (await views.job(job_id)).state
            except LookupError:
                return None

        async def all_of_them(views: Views) -> list[JobState | None]:
            return await asyncio.gather(*(state(views, job_id) for job_id in job_ids))

        return self._ask(all_of_them)

    def runs(self, job_id: str) -> list[RunView]:
        """Those of which anything is recorded, the earliest first."""
        try:
            found = self._ask(lambda views: views.runs(job_id, 1000))
        except LookupError:
            return []
        return [run for run in reversed(found) if run.attempts]

    def failed(self, limit: int) -> Iterator[RunView]:
        """All failed runs, asked for page by page."""
        page = self._ask(lambda views: views.failed(limit))
        while page.before is not None:
            yield from page.runs
            before = page.before
            page = self._ask(lambda views, before=before: views.failed(limit, before=before))  # type: ignore[misc]
        yield from page.runs

    def until(self, job_id: str, state: JobState) -> JobView:
        wait_for(lambda: self.states([job_id]) == [state], f"{job_id} to be {state}", LIMIT_S)
        return self.job(job_id)

    def until_runs(self, job_id: str, count: int, state: RunState) -> list[RunView]:
        def in_state() -> list[RunView]:
            return [run for run in self.runs(job_id) if run.state is state]

        wait_for(lambda: len(in_state()) >= count, f"{count} runs of {job_id} to be {state}", LIMIT_S)
        return in_state()

    def _ask(self, question: Callable[[Views], Awaitable[T]]) -> T:
        async def ask() -> T:
            async with open_views(self.platform.settings) as views:
                return await question(views)

        return asyncio.run(ask())


@pytest.fixture(scope="module")
def platform(servers: Servers) -> Iterator[Platform]:
    """A platform whose topics keep no more than it needs, so whoever takes over from the dead has to do with that."""
    keeping = servers.settings.model_copy(update={"keep_days": 0.0, "keep_runs_days": 0.0})
    with serving(replace(servers, settings=keeping)) as platform:
        yield platform


@pytest.fixture(autouse=True)
def _nothing_is_trimmed_too_early(platform: Platform) -> Iterator[None]:
    logs = [process.supervisor.log_file for process in platform.processes.values()]
    sizes = [log.stat().st_size for log in logs]
    yield
    for log, size in zip(logs, sizes, strict=True):
        assert b"gone before their time" not in log.read_bytes()[size:]


@pytest.fixture
def jobs(platform: Platform) -> Iterator[Jobs]:
    with Client(platform.settings.kafka) as client:
        yield Jobs(platform, client)


def soon() -> Once:
    return Once(datetime.now(UTC) + timedelta(seconds=2))


def test_a_cancel_ends_what_runs_and_all_its_retries(jobs: Jobs, history: Path) -> None:
    job_id = jobs.client.submit("pulse", {"history": str(history), "seconds": 60})
    wait_for(lambda: "alive" in history.read_text(), "the run to begin", LIMIT_S)
    jobs.client.cancel(job_id)
    (end,) = await_ends(jobs.platform, job_id, 1)
    assert (end.state, end.reason) == ("CANCELLED", "its job was cancelled")
    assert end.executor
    assert not any(line.startswith("end") for line in lines_of(history))


def test_a_cancel_holds_when_everything_dies_behind_it(jobs: Jobs, history: Path) -> None:
    retried = jobs.client.submit(
        "command", {"argv": ["/bin/false"]}, retry=Retry(max_attempts=5, backoff_s=8, jitter=0)
    )
    jobs.until_runs(retried, 1, RunState.SCHEDULED)
    later = jobs.client.submit("record", {"history": str(history), "number": 0}, trigger=soon())
    for job_id in (later, retried):
        jobs.client.cancel(job_id)
    jobs.platform.kill("scheduler", "ledger", "executor")
    (end,) = await_ends(jobs.platform, later, 1)
    assert end.state == "CANCELLED"
    first, second = await_ends(jobs.platform, retried, 2, told_twice=True)
    assert (first.state, second.state, second.attempt) == ("FAILED", "CANCELLED", 2)
    assert history.read_text() == ""


def test_a_cancel_of_many_reaches_all_of_them_though_schedulers_die_behind_it(jobs: Jobs) -> None:
    prefix, later = f"{jobs.name()}-", Once(datetime.now(UTC) + timedelta(days=1))
    count = jobs.platform.settings.partitions * PAGE_ROWS * 2
    many = [Job(id=f"{prefix}{n}", executor_class="command", triggers=(later,)) for n in range(count)]
    ids = jobs.client.submit_many(many)
    jobs.until(ids[-1], JobState.ACTIVE)
    jobs.client.control_all("cancel", JobFilter(prefix=prefix), "moved")
    wait_for(lambda: JobState.CANCELLED in jobs.states(ids[::50]), "the first to be cancelled", LIMIT_S)
    jobs.platform.kill("scheduler")
    wait_for(lambda: set(jobs.states(ids[::50])) == {JobState.CANCELLED}, "some to be cancelled", LIMIT_S)
    wait_for(lambda: set(jobs.states(ids)) == {JobState.CANCELLED}, "all to be cancelled", LIMIT_S)


def test_a_paused_job_waits_and_then_runs_what_it_missed(jobs: Jobs, history: Path) -> None:
    params = {"history": str(history), "number": 0}
    every = jobs.client.submit("record", params, id=jobs.name(), trigger=Every(SOON))
    jobs.until_runs(every, 2, RunState.SUCCEEDED)
    once = jobs.client.submit("record", params, id=jobs.name(), trigger=soon())
    jobs.client.pause(every, "the disk is full")
    jobs.client.pause(once)
    paused = jobs.until(every, JobState.PAUSED)
    assert (paused.reason, paused.next_due_ms) == ("the disk is full", None)
    known = len(jobs.runs(every))
    jobs.platform.kill("scheduler")
    jobs.client.run_now(every)  # also while it is paused
    wait_for(lambda: len(jobs.runs(every)) > known, "the run besides", LIMIT_S)
    assert len(jobs.runs(every)) <= known + 2, "one may have been due in the moment of the pause"
    assert not jobs.runs(once)
    jobs.client.resume(every)
    jobs.client.resume(once)
    assert jobs.until(every, JobState.ACTIVE).reason == ""
    (end,) = await_ends(jobs.platform, once, 1)
    assert end.state == "SUCCEEDED"
    began_ms = jobs.runs(every)[0].due_ms
    jobs.until_runs(every, known + 8, RunState.SUCCEEDED)
    on_time = [run.due_ms for run in jobs.runs(every) if (run.due_ms - began_ms) % 1000 == 0]
    assert on_time == list(range(began_ms, on_time[-1] + 1, 1000)), "a short pause leaves nothing out"
    jobs.client.cancel(every)
    jobs.until(every, JobState.CANCELLED)


@pytest.mark.parametrize(
    ("overlap", "states"),
    [
        (Overlap.SKIP, {RunState.SUCCEEDED, RunState.SKIPPED}),
        (Overlap.QUEUE_ONE, {RunState.SUCCEEDED, RunState.SKIPPED}),
        (Overlap.CANCEL_RUNNING, {RunState.CANCELLED}),
    ],
)
def test_runs_that_overlap_go_by_their_policy(
    jobs: Jobs, history: Path, overlap: Overlap, states: set[RunState]
) -> None:
    job_id = jobs.client.submit(
        "pulse",
        {"history": str(history), "seconds": 2.5},
        id=jobs.name(),
        trigger=Every(SOON),
        overlap=overlap,
    )
    for state in states:
        jobs.until_runs(job_id, 2, state)
    jobs.client.cancel(job_id)
    jobs.until(job_id, JobState.CANCELLED)
    lines = [line.split() for line in lines_of(history)]
    spans = [(int(line[-1]), line[0]) for line in lines if line[0] in ("start", "alive", "end")]
    assert spans == sorted(spans), "two at a time"


def test_failed_runs_are_listed_page_by_page_until_they_succeed(jobs: Jobs) -> None:
    fails = {"argv": ["/bin/false"]}
    ids = [jobs.client.submit("command", fails, id=jobs.name(), trigger=Every(SOON)) for _ in range(2)]
    for job_id in ids:
        jobs.until_runs(job_id, 3, RunState.FAILED)
        jobs.client.change(job_id, {"params": {"argv": ["/bin/true"]}})
        jobs.client.pause(job_id)
        jobs.until(job_id, JobState.PAUSED)
    wanted = {run.run_id for job_id in ids for run in jobs.until_runs(job_id, 3, RunState.FAILED)}
    assert wanted <= {run.run_id for run in jobs.failed(1000)}
    pages = list(jobs.failed(2))
    assert [run.run_id for run in pages] == [run.run_id for run in jobs.failed(1000)]
    ends = [run.last.ended_ms for run in pages if run.last and run.last.ended_ms]
    assert ends == sorted(ends, reverse=True)
    for run in wanted:
        jobs.client.retry(run)
    wait_for(lambda: not wanted & {run.run_id for run in jobs.failed(1000)}, "none to be failed", LIMIT_S)


def test_topics_keep_no_more_than_is_needed(jobs: Jobs) -> None:
    shards = range(jobs.platform.settings.partitions)
    done_with = [(topic, shard) for topic in (SUBMISSIONS, *READY.values()) for shard in shards]
    jobs.until(jobs.client.submit("command", {"argv": ["/bin/true"]}), JobState.COMPLETED)

    def nothing_is_left() -> bool:
        return all(low == high for low, high in bounds_of(jobs.platform.settings, done_with).values())

    wait_for(nothing_is_left, "the topics to be trimmed", LIMIT_S)
    runs = bounds_of(jobs.platform.settings, [(RUNS, shard) for shard in shards]).values()
    assert any(low < high for low, high in runs), "the next executor of a shard needs the latest"
