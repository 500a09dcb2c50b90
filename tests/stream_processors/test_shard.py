"""How a shard reads ahead, page by page, and in smaller pages where they are too large to come; when it is released untouched."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, cast
from uuid import uuid4

import pytest
import stamina
from cassandra import ReadTimeout
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # NewTopic is re-exported

from dueline.address import BUCKET_MS, READY
from dueline.clock import ManualClock
from dueline.codec import encode_ready_run
from dueline.ids import IdGenerator
from dueline.job import Job, Priority
from dueline.runs import ReadyRun
from dueline.scheduling.judge import Judge
from dueline.scheduling.values import Change, Position, ScheduledRun
from infra.kafka import producer_config
from infra.publisher import Publisher, Record
from infra.settings import Settings
from infra.store import ShardRow, Store
from stream_processors.scheduler.broker_clock import BrokerClock
from stream_processors.scheduler.calendars import CalendarsAtHand
from stream_processors.scheduler.shard import PAGE_ROWS, TURN_PACE_S, Shard, Turning
from stream_processors.scheduler.wheel import Wheel
from tests.conftest import Servers
from tests.stream_processors.test_acceptance import NOW_MS, Memory, submission
from tests.stream_processors.transport import Transport, row

ROW = ShardRow(shard=0, epoch=1, owner="test", cursor_ms=0, submissions=1, ready=dict.fromkeys(Priority, 0))


class Schedule:
    """One bucket of a schedule whose rows are so large that only a few of them come in time."""

    def __init__(self, rows: list[ScheduledRun], largest_page: int) -> None:
        self.rows = sorted(rows, key=lambda row: row.position)
        self.largest_page = largest_page
        self.limits: list[int] = []
        self.deleted: list[int] = []

    async def read_rows(self, minute: int, shard: int, behind: Position, limit: int) -> list[ScheduledRun]:
        self.limits.append(limit)
        if limit > self.largest_page:
            raise ReadTimeout("too slow")
        return [row for row in self.rows if row.position > behind][:limit]

    async def read_changes(self, shard: int, from_ms: int, until_ms: int) -> list[Change]:
        return []

    async def delete_changes(self, day: int, shard: int) -> None:
        pass

    async def delete_bucket(self, minute: int, shard: int) -> None:
        self.deleted.append(minute)


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    with stamina.set_testing(True, attempts=1000):
        yield


def shard_on(store: object, calendars: object = None) -> Shard:
    clock = BrokerClock(ManualClock())
    clock.heard(0)
    return Shard(
        0,
        owner="test",
        settings=Settings(),
        store=cast(Store, store),
        views=cast(Any, None),
        publisher=cast(Any, None),
        clock=clock,
        calendars=cast(Any, calendars),
        turning=Turning(),
        failed=lambda error: pytest.fail(repr(error)),
    )


class Rows:
    """The rows of shards. One is taken, from an owner that may have released it."""

    def __init__(self, *, released: bool) -> None:
        self.was_released = released
        self.taken = asyncio.Event()
        self.released: list[int] = []

    async def take_shard(self, shard: int, owner: str, first: ShardRow) -> tuple[ShardRow, bool]:
        self.taken.set()
        return first, self.was_released

    async def release_shard(self, row: ShardRow) -> None:
        self.released.append(row.shard)


class NoAnswer:
    """Calendars that are asked for in vain."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def refresh(self) -> None:
        self.asked.set()
        await asyncio.Event().wait()


async def test_a_shard_that_moves_on_while_it_is_taken_over_is_released(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing was sent for it: its next owner need not wait for that to arrive."""
    monkeypatch.setattr(Shard, "_emitted_since", lambda shard, row: {})
    rows, calendars = Rows(released=True), NoAnswer()
    shard = shard_on(rows, calendars)
    shard.start(asyncio.Semaphore(), shard._failed)
    await calendars.asked.wait()
    await shard.stop()
    assert rows.released == [0]


async def test_a_shard_that_moves_on_while_its_last_owner_may_still_send_is_not_released() -> None:
    rows = Rows(released=False)
    shard = shard_on(rows)
    shard.start(asyncio.Semaphore(), shard._failed)
    await rows.taken.wait()
    await shard.stop()
    assert rows.released == []


def wheel_with(transport: Transport) -> Wheel:
    return Wheel(
        cursor_ms=0,
        submissions=1,
        ready=dict.fromkeys(Priority, 0),
        emitted={},
        found_ends={},
        unread=0,
        publish=transport.publish,
        judge=transport.judge,
        save=transport.save,
        progress=lambda: None,
        failed=lambda error: pytest.fail(repr(error)),
    )


@pytest.mark.parametrize("largest_page", [1, 40, PAGE_ROWS])
async def test_a_bucket_is_read_whole_whatever_its_rows_weigh(largest_page: int) -> None:
    rows = [row(1000, f"{n:02}") for n in range(3 if largest_page == 1 else 90)]
    schedule = Schedule(rows, largest_page)
    shard = shard_on(schedule)
    shard._judge = Judge()
    transport = Transport()
    wheel = wheel_with(transport)
    while not schedule.deleted:
        await shard._read_page(wheel)
    assert wheel.position == (BUCKET_MS, "", 0, 0)
    assert len(wheel) == len(rows)
    wheel.step(1000)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [key for sending in transport.sent for key in sending.keys] == [row.key for row in rows]
    await wheel.close(0)


def test_wheels_turn_at_once_when_little_is_due_and_together_when_much_is() -> None:
    turning = Turning()
    assert turning.wait_s(10.0) == 0, "it comes alone"
    assert turning.wait_s(10.001) == 0, "with another"
    assert turning.wait_s(10.005) == pytest.approx(TURN_PACE_S - 0.005)
    assert turning.wait_s(10.001 + TURN_PACE_S) == 0
    assert turning.wait_s(10.002 + TURN_PACE_S) == 0
    assert turning.wait_s(10.009 + TURN_PACE_S) > 0


async def test_reading_on_after_days_deletes_nothing_that_the_stored_cursor_has_not_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stream_processors.scheduler.shard.KEPT_MINUTES", 10)
    schedule = Schedule([], PAGE_ROWS)
    shard = shard_on(schedule)
    shard._clock = BrokerClock(ManualClock(100 * BUCKET_MS))
    shard._clock.heard(100 * BUCKET_MS)
    shard._judge = Judge()
    shard._row = ROW
    wheel = wheel_with(Transport())
    reading = asyncio.create_task(shard._keep_read(wheel))
    for cursor_ms in (0, 20 * BUCKET_MS):
        shard._row = replace(ROW, cursor_ms=cursor_ms)
        shard._read_now.set()
        while not shard._outruns(wheel):
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert wheel.position[0] == cursor_ms + 9 * BUCKET_MS
        assert max(schedule.deleted) < cursor_ms // BUCKET_MS
    reading.cancel()


async def test_waiting_for_a_wheel_that_gets_on_is_no_standstill(monkeypatch: pytest.MonkeyPatch) -> None:
    shard, progress = shard_on(Memory()), asyncio.Queue[None]()
    monkeypatch.setattr(shard, "progressed", lambda: progress.put_nowait(None))
    wheel = wheel_with(Transport())
    shard._row = ROW
    waiting = asyncio.create_task(shard._until_satisfied(7, wheel))
    await asyncio.sleep(0)
    for _ in range(2):
        wheel.rounds += 1
        await progress.get()
    shard.stored = replace(ROW, submissions=7)
    await waiting
    assert progress.empty()


class OfARun:
    """A record of a ready topic."""

    def __init__(self, run: ReadyRun, appended_ms: int) -> None:
        self._run, self._appended_ms = run, appended_ms

    def topic(self) -> str:
        return READY[self._run.priority]

    def offset(self) -> int:
        return 5

    def timestamp(self) -> tuple[int, int]:
        return TIMESTAMP_LOG_APPEND_TIME, self._appended_ms

    def value(self) -> bytes:
        return encode_ready_run(self._run)


def test_when_what_was_emitted_was_due_is_told_by_the_record_and_never_far_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shard = shard_on(Memory())
    now_ms = shard._clock.now_ms()
    job = Job(id="job", executor_class="x")
    emitted, put_off, foreign = (
        ReadyRun.of(job, due_ms=due_ms, emit_ms=due_ms, version=1)
        for due_ms in (now_ms - 5, now_ms - 60_000, now_ms + 10**12)
    )
    messages = [OfARun(emitted, now_ms - 5), OfARun(put_off, now_ms), OfARun(foreign, now_ms)]
    monkeypatch.setattr("stream_processors.scheduler.shard.read_to_end", lambda settings, starts: messages)
    wanted = {emitted.key: now_ms - 5, put_off.key: now_ms, foreign.key: now_ms + BUCKET_MS}
    assert shard._emitted_since(ROW) == wanted


class Heard:
    """A judge that only listens."""

    def __init__(self) -> None:
        self.changes: list[Change] = []

    def learn(self, changes: Iterable[Change]) -> None:
        self.changes += changes


@pytest.mark.servers
async def test_what_lies_unread_in_the_log_is_rehearsed_piece_by_piece(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"job-{number}" for number in range(8)]
    generated = [IdGenerator().next(NOW_MS) for _ in range(8)]
    values = [
        b"no submission",
        b'{"id": 7}',
        *map(submission, generated),
        submission(None),
        *map(submission, names),
    ]
    values += [submission(names[0], timeout_s=9), b'{"action": "pause", "id": "nobody"}']
    values += [b'{"action": "cancel", "id": "%s"}' % name.encode() for name in names[1:]]
    topic = f"test.shard.{uuid4()}"
    admin = AdminClient({"bootstrap.servers": servers.settings.kafka})
    admin.create_topics([NewTopic(topic, 1, 1, config={"message.timestamp.type": "LogAppendTime"})])[
        topic
    ].result()
    publisher = Publisher(producer_config(servers.settings, "test"))
    await publisher.publish([Record(topic, None, value, 0) for value in values])
    await publisher.close()

    for name, value in {"SUBMISSIONS": topic, "REHEARSED_MAX": 3, "BATCH_MAX": 2}.items():
        monkeypatch.setattr(f"stream_processors.scheduler.shard.{name}", value)
    shard = shard_on(Memory(), CalendarsAtHand({}))
    shard._settings = servers.settings.model_copy(update={"partitions": 1})
    heard = Heard()
    shard._judge = cast(Any, heard)
    await shard._learn_unread(1)
    assert {(change.job_id, change.cancels) for change in heard.changes} == {
        (names[0], False),
        *((name, True) for name in names[1:]),
    }
