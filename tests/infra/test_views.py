"""What the views compute, as pure functions, and what they read, on a real Cassandra."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueline.address import shard_of
from dueline.clock import ManualClock, from_ms
from dueline.codec import encode_job, encode_run_event
from dueline.errors import NotFound, Unavailable
from dueline.ids import IdGenerator, generated_at_ms, run_id
from dueline.job import Job, Priority
from dueline.runs import Heartbeat, RunEvent
from dueline.scheduling.values import JobRow
from dueline.states import ENDS, AttemptState, JobState, RunState
from dueline.triggers import Every, Once, Trigger
from infra.cassandra import connect, ensure_tables
from infra.settings import Settings
from infra.store import Store
from infra.view_values import AttemptView, job_state, next_due_ms, run_state, run_view
from infra.views import FIRST_OF_ALL, PAGE_ROWS, Scanned, Views, job_view, open_views
from tests.conftest import Servers

NOW_MS = 1_900_000_000_000
#: Each test happens a year after the one before, so that its jobs are the newest.
BEGINNINGS_MS = count(NOW_MS, 365 * 24 * 3600 * 1000)


def attempt(number: int, state: AttemptState, *, retry_ms: int | None = None) -> AttemptView:
    return AttemptView(
        attempt=number,
        state=state,
        executor_class="command",
        executor="executor-1",
        started_ms=NOW_MS + 100 * number,
        ended_ms=None,
        retry_ms=retry_ms,
    )


# -- what follows from what is stored ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("due_ms", "state"), [(NOW_MS + 1, RunState.SCHEDULED), (NOW_MS, RunState.READY)])
def test_a_run_without_a_record_is_ready_once_it_is_due(due_ms: int, state: RunState) -> None:
    assert run_state(None, None, due_ms, NOW_MS) is state


@pytest.mark.parametrize(("retry_ms", "state"), [(NOW_MS + 1, RunState.SCHEDULED), (NOW_MS, RunState.READY)])
def test_a_failed_attempt_with_a_retry_makes_its_run_wait_for_it(retry_ms: int, state: RunState) -> None:
    assert run_state(AttemptState.FAILED, retry_ms, NOW_MS - 1, NOW_MS) is state


@given(st.sampled_from(AttemptState), st.integers(0, 2 * NOW_MS))
def test_without_a_retry_a_run_ends_as_its_latest_attempt(state: AttemptState, due_ms: int) -> None:
    found = run_state(state, None, due_ms, NOW_MS)
    if state is AttemptState.INTERRUPTED:
        assert found is RunState.READY
    else:
        assert found.value == state.value


def test_the_lateness_of_a_run_is_that_of_its_first_attempt() -> None:
    attempts = [attempt(1, AttemptState.FAILED, retry_ms=NOW_MS), attempt(2, AttemptState.SUCCEEDED)]
    run = run_view("job", NOW_MS, attempts, NOW_MS)
    assert run.lateness_ms == 100
    assert run.state is RunState.SUCCEEDED
    assert run_view("job", NOW_MS, [], NOW_MS).lateness_ms is None


@given(st.sampled_from(JobState), st.none() | st.integers(0), st.none() | st.sampled_from(RunState))
def test_only_an_active_job_completes_and_only_when_nothing_is_left(
    stored: JobState, next_ms: int | None, last: RunState | None
) -> None:
    found = job_state(stored, next_ms, last)
    if stored is JobState.ACTIVE and next_ms is None and last in ENDS:
        assert found is JobState.COMPLETED
    else:
        assert found is stored


def test_the_next_due_time_is_the_first_until_a_run_is_recorded() -> None:
    start = from_ms(NOW_MS)
    interval = timedelta(seconds=10)
    job = Job(executor_class="command", triggers=(Every(interval, start=start, end=start + 2 * interval),))
    dues = [next_due_ms(job, NOW_MS, None, None)]
    while (due_ms := next_due_ms(job, NOW_MS, None, dues[-1])) is not None:
        dues.append(due_ms)
    assert dues == [NOW_MS, NOW_MS + 10_000, NOW_MS + 20_000]


def test_a_due_time_while_the_submission_was_on_its_way_is_the_next_one() -> None:
    """Though there is none after the acceptance."""
    made, accepted_ms = from_ms(NOW_MS), NOW_MS + 40_000
    job_id = IdGenerator().next(NOW_MS)
    twice = (Once(made + timedelta(seconds=1)), Once(made + timedelta(seconds=20)))
    job = Job(executor_class="command", id=job_id, triggers=twice)
    row = SimpleNamespace(
        job_id=job_id, version=1, accepted_ms=accepted_ms, state="ACTIVE", reason="", since_ms=None
    )
    view = job_view(row, job, None, None, accepted_ms)
    assert (view.state, view.next_due_ms) == (JobState.ACTIVE, NOW_MS + 1000)


# -- what is read ------------------------------------------------------------------------------------------------------


class Platform:
    """Writes what scheduler and ledger would write."""

    def __init__(self, store: Store, views: Views, clock: ManualClock, shards: int) -> None:
        self.store, self.views, self.clock, self.shards = store, views, clock, shards
        self._ids = IdGenerator()
        self._offset = 0

    async def accept(self, *triggers: Trigger, job_id: str | None = None) -> str:
        now_ms = self.clock.now_ms()
        job_id = job_id or self._ids.next(now_ms)
        job = Job(id=job_id, executor_class="command", triggers=triggers).anchored(now_ms)
        self._offset += 1
        row = JobRow(job_id=job_id, version=self._offset, accepted_ms=now_ms, definition=encode_job(job))
        await self.store.save_jobs(shard_of(job_id, self.shards), [row])
        return job_id

    async def record(
        self, job_id: str, due_ms: int, state: AttemptState, number: int = 1, *, recurring: bool = False
    ) -> None:
        self._offset += 1
        event = RunEvent(
            job_id=job_id,
            due_ms=due_ms,
            attempt=number,
            version=1,
            state=state,
            at_ms=due_ms,
            executor_class="command",
            priority=Priority.NORMAL,
            recurring=recurring,
            executor="executor-1",
            started_ms=due_ms + 5,
            ended_ms=due_ms + 9,
        )
        await self.store.save_events(
            shard_of(job_id, self.shards), [(self._offset, event, encode_run_event(event))]
        )


@pytest.fixture(scope="module")
def settings_of_views(servers: Servers) -> Settings:
    """A keyspace of its own: the jobs here lie in the future, and would stand first in others' listings."""
    settings = servers.settings.model_copy(update={"keyspace": "views"})
    ensure_tables(settings)
    return settings


@pytest.fixture
async def platform(settings_of_views: Settings) -> AsyncIterator[Platform]:
    settings = settings_of_views
    store = Store(await connect(settings), settings.partitions)
    clock = ManualClock(next(BEGINNINGS_MS))
    async with open_views(settings, clock) as views:
        yield Platform(store, views, clock, settings.partitions)
    await store.close()


@pytest.mark.servers
async def test_a_one_time_job_goes_from_scheduled_to_completed(platform: Platform) -> None:
    now_ms = platform.clock.now_ms()
    job_id = await platform.accept(Once(from_ms(now_ms + 1000)))
    (run,) = await platform.views.runs(job_id, limit=5)
    assert run.state is RunState.SCHEDULED
    platform.clock.advance(1000)
    assert (await platform.views.run(run.run_id)).state is RunState.READY
    await platform.record(job_id, run.due_ms, AttemptState.RUNNING)
    assert (await platform.views.job(job_id)).state is JobState.ACTIVE
    await platform.record(job_id, run.due_ms, AttemptState.SUCCEEDED)
    view = await platform.views.job(job_id)
    assert view.state is JobState.COMPLETED
    assert view.next_due_ms is None
    assert view.last_run is not None
    assert (view.last_run.lateness_ms, view.last_run.executor) == (5, "executor-1")
    assert await platform.views.run(job_id) == await platform.views.run(run.run_id)


@pytest.mark.servers
async def test_jobs_are_listed_newest_first_page_by_page(platform: Platform) -> None:
    ids = []
    for number in range(25):
        ids.append(await platform.accept(job_id=f"named-{uuid4()}" if number % 5 == 4 else None))
        platform.clock.advance(20_000)
    listed: list[str] = []
    before = None
    while len(listed) < len(ids):
        page = await platform.views.jobs(7, before=before)
        listed += [job.job_id for job in page.jobs]
        before = page.before
    assert listed[: len(ids)] == ids[::-1]


@pytest.mark.servers
async def test_a_bucket_longer_than_a_page_is_listed_without_gaps(platform: Platform) -> None:
    ids = [await platform.accept() for _ in range((PAGE_ROWS + 3) * platform.shards)]
    page = await platform.views.jobs(len(ids))
    assert [job.job_id for job in page.jobs] == ids[::-1]
    assert len({generated_at_ms(job_id) // 60_000 for job_id in ids}) == 1


@pytest.mark.servers
async def test_the_jobs_of_a_shard_are_gone_through_in_parts_without_gaps(platform: Platform) -> None:
    jobs = {await platform.accept(Once(from_ms(NOW_MS)), job_id=f"scanned-{uuid4()}") for _ in range(3)}
    for _ in range(5):
        jobs.add(await platform.accept(Once(from_ms(NOW_MS))))
        platform.clock.advance(45_000)
    unreadable = JobRow(job_id=f"unreadable-{uuid4()}", version=1, accepted_ms=NOW_MS, definition=b"any")
    await platform.store.save_jobs(shard_of(unreadable.job_id, platform.shards), [unreadable])
    found: list[str] = []
    for shard in range(platform.shards):
        behind: Scanned | None = FIRST_OF_ALL
        while behind is not None:
            part = await platform.views.scan(shard, behind, 2)
            assert len(part.jobs) <= 2
            found += [view.job_id for view in part.jobs]
            behind = part.behind
    assert len(found) == len(set(found))
    assert jobs <= set(found)


@pytest.mark.servers
async def test_a_job_that_can_not_be_read_hides_no_other(platform: Platform) -> None:
    older = await platform.accept()
    platform.clock.advance(1)
    job_id = IdGenerator().next(platform.clock.now_ms())
    unreadable = JobRow(job_id=job_id, version=1, accepted_ms=NOW_MS, definition=b"any")
    await platform.store.save_jobs(shard_of(job_id, platform.shards), [unreadable])
    platform.clock.advance(1)
    newer = await platform.accept()
    first = await platform.views.jobs(1)
    second = await platform.views.jobs(1, before=first.before)
    assert [view.job_id for page in (first, second) for view in page.jobs] == [newer, older]


@pytest.mark.servers
async def test_a_listing_by_state_passes_over_the_others(platform: Platform) -> None:
    done = await platform.accept(Once(from_ms(platform.clock.now_ms())))
    await platform.record(done, platform.clock.now_ms(), AttemptState.FAILED)
    for _ in range(3):
        await platform.accept(Once(from_ms(platform.clock.now_ms() + 60_000)))
    page = await platform.views.jobs(1, state=JobState.COMPLETED)
    assert [job.job_id for job in page.jobs] == [done]


@pytest.mark.servers
async def test_the_runs_of_a_recurring_job_reach_back_through_the_periods(platform: Platform) -> None:
    start_ms, month = platform.clock.now_ms(), timedelta(days=31)
    job_id = await platform.accept(Every(month, start=from_ms(start_ms)))
    dues = [start_ms + n * month // timedelta(milliseconds=1) for n in range(4)]
    for due_ms in dues[:3]:
        await platform.record(job_id, due_ms, AttemptState.SUCCEEDED, recurring=True)
    platform.clock.advance(dues[2] - start_ms + 1)
    runs = await platform.views.runs(job_id, limit=10)
    assert [run.due_ms for run in runs] == dues[::-1]
    assert runs[0].state is RunState.SCHEDULED
    assert [run.due_ms for run in await platform.views.runs(job_id, limit=1, before_ms=dues[2])] == [dues[1]]
    assert (await platform.views.run(job_id)).due_ms == dues[2]


@pytest.mark.servers
async def test_a_retry_of_an_earlier_run_does_not_bring_back_a_later_one(platform: Platform) -> None:
    start_ms = platform.clock.now_ms()
    job_id = await platform.accept(Every(timedelta(seconds=10), start=from_ms(start_ms)))
    for due_ms, number in ((start_ms, 1), (start_ms + 10_000, 1), (start_ms, 2)):
        await platform.record(job_id, due_ms, AttemptState.SUCCEEDED, number, recurring=True)
    platform.clock.advance(15_000)
    assert (await platform.views.job(job_id)).next_due_ms == start_ms + 20_000


@pytest.mark.servers
async def test_executors_are_shown_by_their_latest_heartbeat(platform: Platform) -> None:
    name = f"executor-{uuid4()}"
    for at_ms in (1, 2):
        beat = Heartbeat(
            executor=name, host="here", pid=7, started_ms=1, at_ms=at_ms, slots=2, classes=("a", "b")
        )
        await platform.store.save_heartbeat(at_ms, beat)
    assert [beat.at_ms for beat in await platform.views.executors() if beat.executor == name] == [2]
    assert [beat.classes for beat in await platform.views.executors() if beat.executor == name] == [
        ("a", "b")
    ]


@pytest.mark.servers
@pytest.mark.parametrize(
    "unknown", ["no-such-job", "ffffffff-ffff-7fff-bfff-ffffffffffff", run_id("no-such-job", 10**20)]
)
async def test_what_is_not_there_is_not_found(platform: Platform, unknown: str) -> None:
    with pytest.raises(NotFound, match="there is no"):
        await platform.views.run(unknown)


async def test_a_cassandra_that_is_down_is_told_with_the_remedy(tmp_path: Path) -> None:
    begun = datetime.now(UTC)
    with pytest.raises(Unavailable, match="make up"):
        async with open_views(Settings(data=tmp_path, cassandra="127.0.0.1:1")):
            pass
    assert datetime.now(UTC) - begun < timedelta(seconds=8)
