"""The store's verbs on a real Cassandra: what is written is read back, replays change nothing, and a shard has one owner."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count

import pytest

from dueline.address import BUCKET_MS, bucket_of, minute_of, shard_of
from dueline.codec import decode_run_event, encode_run_event
from dueline.errors import OwnershipLost
from dueline.ids import IdGenerator, run_id
from dueline.job import Priority
from dueline.runs import Heartbeat, RunEvent
from dueline.scheduling.values import Change, JobRow, ScheduledRun
from dueline.states import AttemptState, JobState, RunState
from infra.cassandra import Session, connect
from infra.statements import Statement
from infra.store import DAY, DAY_MS, PERIOD, ShardRow, Store, Told
from tests.conftest import Servers

pytestmark = pytest.mark.servers

SHARDS = 16
NOW_MS = 1_850_000_000_000
#: Each test has minutes and shards of its own.
MINUTES = count(minute_of(NOW_MS), 10)
OTHER_SHARDS = count(1000)
START = (0, "", 0, 0)


@pytest.fixture
async def session(servers: Servers) -> AsyncIterator[Session]:
    session = await connect(servers.settings)
    yield session
    await session.close()


@pytest.fixture
def store(session: Session) -> Store:
    return Store(session, SHARDS)


@pytest.fixture
def minute() -> int:
    return next(MINUTES)


@pytest.fixture
def shard() -> int:
    return next(OTHER_SHARDS)


def row(emit_ms: int, job: str = "job", attempt: int = 1, **fields: object) -> ScheduledRun:
    known: dict[str, object] = {
        "priority": Priority.LOW,
        "submission": 3,
        "run": b"run",
        "definition": None,
    }
    return ScheduledRun(emit_ms=emit_ms, run_id=run_id(job, emit_ms), attempt=attempt, **known | fields)  # type: ignore[arg-type]


# -- the schedule --------------------------------------------------------------------------------------------------


async def test_rows_come_back_as_they_were_in_the_order_of_emission(
    store: Store, minute: int, shard: int
) -> None:
    start_ms = minute * BUCKET_MS
    rows = [
        row(start_ms, "b"),
        row(start_ms, "b", attempt=2),
        row(start_ms, "c", definition=b"definition", priority=Priority.HIGH, submission=2**40),
        row(start_ms + 1, "a"),
        row(start_ms + BUCKET_MS - 1, "z"),
    ]
    await store.save_rows(shard, [*reversed(rows), row(start_ms + BUCKET_MS, "next minute")])
    assert await store.read_rows(minute, shard, START, 100) == rows
    assert await store.read_rows(minute, shard + 1, START, 100) == []


@pytest.mark.parametrize("limit", [1, 2, 3, 200])
async def test_pages_join_without_gap_or_overlap(store: Store, minute: int, shard: int, limit: int) -> None:
    rows = sorted(
        (row(minute * BUCKET_MS + n % 3, f"job-{n}") for n in range(150)), key=lambda row: row.position
    )
    await store.save_rows(shard, rows)
    found: list[ScheduledRun] = []
    position = (minute * BUCKET_MS, "", 0, 0)
    while page := await store.read_rows(minute, shard, position, limit):
        found += page
        position = page[-1].position
    assert found == rows


async def test_a_row_that_is_saved_again_is_the_same_row(store: Store, minute: int, shard: int) -> None:
    rows = [row(minute * BUCKET_MS, f"{n:03}") for n in range(70)]
    await store.save_rows(shard, rows)
    await store.save_rows(shard, rows)
    assert await store.read_rows(minute, shard, START, 100) == rows


async def test_rows_as_large_as_submissions_may_be(store: Store, minute: int, shard: int) -> None:
    rows = [
        row(minute * BUCKET_MS, f"{n:03}", run=bytes(256_000), definition=bytes(256_000)) for n in range(40)
    ]
    await store.save_rows(shard, rows)
    assert await store.read_rows(minute, shard, START, 5) == rows[:5]


async def test_the_last_minute_that_a_trigger_can_name(store: Store, shard: int) -> None:
    far = row(221_881_000_000_000)  # in the year 9000: such a due time may follow upon one of now
    await store.save_rows(shard, [far])
    assert await store.read_rows(minute_of(far.emit_ms), shard, START, 1) == [far]


async def test_a_bucket_is_deleted_whole_and_alone(store: Store, minute: int, shard: int) -> None:
    kept = row((minute + 1) * BUCKET_MS)
    await store.save_rows(shard, [row(minute * BUCKET_MS), kept])
    await store.save_rows(shard + 1, [row(minute * BUCKET_MS)])
    await store.delete_bucket(minute, shard)
    assert await store.read_rows(minute, shard, START, 10) == []
    assert await store.read_rows(minute + 1, shard, START, 10) == [kept]
    assert len(await store.read_rows(minute, shard + 1, START, 10)) == 1


# -- jobs ----------------------------------------------------------------------------------------------------------


def job(job_id: str, version: int, **fields: object) -> JobRow:
    known: dict[str, object] = {"accepted_ms": NOW_MS, "definition": b"%d" % version}
    return JobRow(job_id=job_id, version=version, **known | fields)  # type: ignore[arg-type]


def new_id() -> str:
    return IdGenerator().next(NOW_MS)


async def found(store: Store, job_id: str) -> JobRow | None:
    return (await store.find_jobs(shard_of(job_id, SHARDS), [job_id])).get(job_id)


@pytest.mark.parametrize("named", [True, False])
async def test_a_job_is_found_as_it_was_saved(store: Store, named: bool) -> None:
    job_id = f"named/{new_id()}" if named else new_id()
    assert await found(store, job_id) is None
    await store.save_jobs(shard_of(job_id, SHARDS), [job(job_id, 0)])
    assert await found(store, job_id) == job(job_id, 0)


async def test_many_jobs_are_found_at_once(store: Store) -> None:
    """Of several buckets, and more of one than are asked for at once; those that were never saved are left out."""
    shard, ids = 3, IdGenerator()
    saved = [ids.next(NOW_MS + n // 70 * BUCKET_MS) for n in range(140)] + [
        f"named/{new_id()}" for _ in range(5)
    ]
    await store.save_jobs(shard, [job(job_id, 4) for job_id in saved])
    jobs = await store.find_jobs(shard, [*saved, new_id(), "named/never"])
    assert jobs == {job_id: job(job_id, 4) for job_id in saved}


async def test_the_higher_version_stays_in_whatever_order_they_are_written(store: Store) -> None:
    for versions in ([5, 9], [9, 5], [5, 9, 5, 9]):
        job_id = new_id()
        for version in versions:
            await store.save_jobs(shard_of(job_id, SHARDS), [job(job_id, version)])
        assert await found(store, job_id) == job(job_id, 9)


async def test_a_rejected_job_that_is_corrected_in_one_batch(store: Store) -> None:
    job_id = new_id()
    rejected = job(job_id, 5, definition=None, state=JobState.REJECTED, reason="because")
    for rows in ([rejected, job(job_id, 6)], [rejected]):
        await store.save_jobs(shard_of(job_id, SHARDS), rows)
        assert await found(store, job_id) == job(job_id, 6)


async def test_a_job_that_was_changed_is_found_as_it_is_now(store: Store) -> None:
    first = JobRow(job_id=f"job-{next(MINUTES)}", version=7, accepted_ms=NOW_MS, definition=b"first")
    changed = replace(
        first,
        version=9,
        definition=b"second",
        state=JobState.PAUSED,
        reason="the disk is full",
        since_ms=NOW_MS + 5,
        defined_ms=NOW_MS + 4,
        cancelled=8,
    )
    shard = shard_of(first.job_id, SHARDS)
    for written in (first, changed, first):
        await store.save_jobs(shard, [written])
    assert await store.find_jobs(shard, [first.job_id]) == {first.job_id: changed}


async def test_changes_are_read_by_the_time_until_which_they_count(store: Store, shard: int) -> None:
    noon_ms = NOW_MS // DAY_MS * DAY_MS + DAY_MS // 2
    changes = [
        Change(job_id=f"job-{n}", version=n, since_ms=3, until_ms=until_ms, cancels=n == 1, reason="why")
        for n, until_ms in enumerate((noon_ms - 1, noon_ms, noon_ms + DAY_MS, noon_ms + 3 * DAY_MS))
    ]
    await store.save_changes(shard, changes)
    assert await store.read_changes(shard, noon_ms, noon_ms + 3 * DAY_MS) == changes[1:3]
    assert await store.read_changes(shard + 1, noon_ms, noon_ms + 1) == []
    await store.delete_changes(noon_ms // DAY_MS, shard)
    assert await store.read_changes(shard, noon_ms - DAY_MS, noon_ms + 4 * DAY_MS) == changes[2:]


async def test_what_the_ledger_alone_knows_is_no_job(store: Store) -> None:
    job_id = new_id()
    await store.save_events(shard_of(job_id, SHARDS), [told(1, event(job_id))])
    assert await found(store, job_id) is None


async def test_buckets_of_generated_ids_are_indexed_once(session: Session, store: Store) -> None:
    ids = [IdGenerator().next(NOW_MS + n * BUCKET_MS * DAY) for n in (1000, 1000, 1001)]
    await store.save_jobs(0, [job(job_id, 1) for job_id in [*ids, "a-name"]])
    await store.save_jobs(0, [job(job_id, 1) for job_id in ids])
    for bucket in map(bucket_of, ids):
        found = await session.run(Statement.VIEW_BUCKETS, bucket // DAY, bucket)
        assert [row.bucket for row in found] == [bucket]
    days = {row.day for row in await session.run(Statement.VIEW_DAYS)}
    assert {bucket_of(job_id) // DAY for job_id in ids} <= days
    assert all(day >= 0 for day in days)


# -- the shard row -------------------------------------------------------------------------------------------------


def first(shard: int, owner: str) -> ShardRow:
    ready = dict.fromkeys(Priority, 0)
    return ShardRow(shard=shard, epoch=1, owner=owner, cursor_ms=NOW_MS, submissions=0, ready=ready)


async def test_the_first_owner_need_not_wait(store: Store, shard: int) -> None:
    row, released = await store.take_shard(shard, "a", first(shard, "a"))
    assert (row, released) == (first(shard, "a"), True)
    assert await store.read_shard(shard) == row


async def test_a_shard_without_a_row(store: Store, shard: int) -> None:
    assert await store.read_shard(shard) is None


async def test_the_next_owner_finds_what_the_last_one_stored_and_shuts_it_out(
    store: Store, shard: int
) -> None:
    mine, _ = await store.take_shard(shard, "a", first(shard, "a"))
    ready = {Priority.HIGH: 3, Priority.NORMAL: 2, Priority.LOW: 1}
    mine = replace(mine, cursor_ms=NOW_MS + 5, submissions=7, ready=ready)
    await store.save_shard(mine)
    theirs, released = await store.take_shard(shard, "b", first(shard, "b"))
    assert not released
    assert theirs == replace(mine, epoch=2, owner="b")
    with pytest.raises(OwnershipLost, match="of epoch 1"):
        await store.save_shard(replace(mine, cursor_ms=NOW_MS + 9))
    with pytest.raises(OwnershipLost):
        await store.release_shard(mine)
    assert await store.read_shard(shard) == theirs
    await store.save_shard(replace(theirs, submissions=8))


async def test_who_has_released_a_shard_can_store_no_more(store: Store, shard: int) -> None:
    mine, _ = await store.take_shard(shard, "a", first(shard, "a"))
    await store.release_shard(mine)
    with pytest.raises(OwnershipLost):
        await store.save_shard(mine)
    theirs, released = await store.take_shard(shard, "b", first(shard, "b"))
    assert (theirs.epoch, released) == (2, True)


async def test_the_same_process_taking_it_again_has_a_new_epoch(store: Store, shard: int) -> None:
    old, _ = await store.take_shard(shard, "a", first(shard, "a"))
    new, released = await store.take_shard(shard, "a", first(shard, "a"))
    assert (new.epoch, released) == (2, False)
    with pytest.raises(OwnershipLost):
        await store.save_shard(old)


async def test_of_owners_at_once_each_has_its_own_epoch_and_the_last_has_the_shard(
    store: Store, shard: int
) -> None:
    taken = await asyncio.gather(*(store.take_shard(shard, f"{n}", first(shard, f"{n}")) for n in range(5)))
    rows = sorted((row for row, _ in taken), key=lambda row: row.epoch)
    assert [row.epoch for row in rows] == [1, 2, 3, 4, 5]
    assert await store.read_shard(shard) == rows[-1]
    for row in rows[:-1]:
        with pytest.raises(OwnershipLost):
            await store.save_shard(row)
    await store.save_shard(rows[-1])


# -- the ledger ----------------------------------------------------------------------------------------------------


def event(job_id: str, state: AttemptState = AttemptState.SUCCEEDED, **fields: object) -> RunEvent:
    known: dict[str, object] = {
        "due_ms": NOW_MS,
        "attempt": 1,
        "version": 1,
        "at_ms": NOW_MS,
        "executor_class": "command",
        "priority": Priority.NORMAL,
        "recurring": False,
    }
    return RunEvent(job_id=job_id, state=state, **known | fields)  # type: ignore[arg-type]


def told(offset: int, event: RunEvent) -> Told:
    return offset, event, encode_run_event(event)


async def last_run(session: Session, job_id: str) -> tuple[str, int, int | None]:
    address = bucket_of(job_id), shard_of(job_id, SHARDS), job_id
    (row,) = await session.run(Statement.VIEW_JOB, *address)
    last = decode_run_event(row.last_run)
    return last.state, last.attempt, last.retry_ms


async def test_the_latest_attempt_of_a_run(store: Store) -> None:
    job_id = new_id()
    shard = shard_of(job_id, SHARDS)

    async def latest() -> tuple[int, RunState] | None:
        return await store.latest_attempt(run_id(job_id, NOW_MS), job_id, NOW_MS)

    assert await latest() is None
    await store.save_events(shard, [told(1, event(job_id, AttemptState.RUNNING))])
    assert await latest() == (1, RunState.RUNNING)
    await store.save_events(shard, [told(2, event(job_id, AttemptState.FAILED, retry_ms=NOW_MS + 5))])
    assert await latest() == (1, RunState.SCHEDULED)
    await store.save_events(shard, [told(9, event(job_id, AttemptState.SUCCEEDED, attempt=10))])
    await store.save_events(shard, [told(3, event(job_id, AttemptState.INTERRUPTED, attempt=2))])
    assert await latest() == (10, RunState.SUCCEEDED)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0, 1]])
async def test_events_of_one_job_count_in_the_order_of_its_attempts(
    session: Session, store: Store, order: list[int]
) -> None:
    job_id = new_id()
    events = [
        told(10, event(job_id, AttemptState.RUNNING)),
        told(11, event(job_id, AttemptState.FAILED, retry_ms=NOW_MS + 9)),
        told(12, event(job_id, AttemptState.SUCCEEDED, attempt=2)),
    ]
    for index in order:
        await store.save_events(shard_of(job_id, SHARDS), [events[index]])
    assert await last_run(session, job_id) == ("SUCCEEDED", 2, None)
    found = await store.latest_attempt(run_id(job_id, NOW_MS), job_id, NOW_MS)
    assert found == (2, RunState.SUCCEEDED)


async def test_the_end_of_an_attempt_may_be_told_behind_that_of_the_next(
    session: Session, store: Store
) -> None:
    job_id = new_id()
    failed = event(job_id, AttemptState.FAILED, retry_ms=NOW_MS + 9)
    events = [told(10, event(job_id, AttemptState.SUCCEEDED, attempt=2)), told(11, failed)]
    await store.save_events(shard_of(job_id, SHARDS), events)
    assert await last_run(session, job_id) == ("SUCCEEDED", 2, None)
    await store.save_events(shard_of(job_id, SHARDS), [told(12, failed)])
    assert await last_run(session, job_id) == ("SUCCEEDED", 2, None)


async def test_events_of_one_job_in_one_batch(session: Session, store: Store) -> None:
    job_id = new_id()
    events = [
        told(10, event(job_id, AttemptState.RUNNING, started_ms=5)),
        told(11, event(job_id, AttemptState.FAILED, retry_ms=NOW_MS + 9)),
    ]
    for _ in range(2):
        await store.save_events(shard_of(job_id, SHARDS), events)
        assert await last_run(session, job_id) == ("FAILED", 1, NOW_MS + 9)
        found = await store.latest_attempt(run_id(job_id, NOW_MS), job_id, NOW_MS)
        assert found == (1, RunState.SCHEDULED)


async def test_a_recurring_job_has_a_history(session: Session, store: Store) -> None:
    job_id = new_id()
    events = [told(n, event(job_id, due_ms=NOW_MS + n, recurring=True)) for n in (1, 3, 2, 3)]
    await store.save_events(shard_of(job_id, SHARDS), events)
    period = minute_of(NOW_MS) // PERIOD
    found = await session.run(Statement.VIEW_HISTORY, job_id, period, NOW_MS + 99, 10)
    assert [row.due_ms - NOW_MS for row in found] == [3, 2, 1]


async def test_the_latest_heartbeat_counts(session: Session, store: Store) -> None:
    beat = Heartbeat(executor=new_id(), host="h", pid=1, started_ms=0, at_ms=5, slots=2, classes=("a", "b"))
    await store.save_heartbeat(7, replace(beat, running=1))
    await store.save_heartbeat(6, beat)
    rows = await session.run(Statement.VIEW_EXECUTORS, "executor")
    (row,) = [row for row in rows if row.executor == beat.executor]
    assert (row.running, row.slots, list(row.classes), row.alive) == (1, 2, ["a", "b"], True)
