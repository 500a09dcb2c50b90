"""What of the topics nobody needs any more, and that no more than this is trimmed."""

from collections.abc import Mapping
from uuid import uuid4

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # NewTopic is re-exported

from dueline.address import CONTROL, READY, RUNS, SUBMISSIONS
from dueline.clock import ManualClock, SystemClock
from dueline.job import Priority
from infra.kafka import DAY_MS, Group
from infra.log_reader import bounds_of
from infra.ownership import Ownership
from infra.store import ShardRow
from stream_processors.scheduler import trimming as module
from stream_processors.scheduler.trimming import Committed, Place, Trimming, needed_from
from tests.conftest import Servers

HIGH, NORMAL, LOW = (READY[priority] for priority in Priority)


def shard_row(submissions: int = 50, ready: int = 30, shard: int = 2) -> ShardRow:
    offsets = dict.fromkeys(Priority, ready)
    return ShardRow(shard=shard, epoch=1, owner="", cursor_ms=0, submissions=submissions, ready=offsets)


def committed(
    submissions: int | None = 50,
    ready: int | None = 30,
    control: int | None = 5,
    runs: int | None = 70,
    metadata: str = Ownership(epoch=1, position=70).to_text(),
) -> Committed:
    def places(offsets: Mapping[str, int | None]) -> dict[Place, TopicPartition]:
        return {
            (topic, 2): TopicPartition(topic, 2, offset, metadata if topic == HIGH else "")
            for topic, offset in offsets.items()
            if offset is not None
        }

    return {
        Group.SCHEDULERS: places({SUBMISSIONS: submissions}),
        Group.EXECUTORS: places({HIGH: ready, NORMAL: ready, LOW: ready, CONTROL: control}),
        Group.LEDGERS: places({RUNS: runs}),
    }


def needed(row: ShardRow, offsets: Committed) -> list[int | None]:
    found = needed_from([row], offsets)
    assert all(shard == 2 for _, shard in found)
    return [found.get((topic, 2)) for topic in (SUBMISSIONS, HIGH, LOW, CONTROL, RUNS)]


@pytest.mark.parametrize(
    ("row", "offsets", "expected"),
    [
        (shard_row(), committed(), [50, 30, 30, 5, 70]),
        (shard_row(submissions=40), committed(), [40, 30, 30, 5, 70]),
        (shard_row(), committed(submissions=40), [40, 30, 30, 5, 70]),
        (shard_row(ready=20), committed(), [50, 20, 20, 5, 70]),
        (shard_row(), committed(ready=20), [50, 20, 20, 5, 70]),
        (shard_row(), committed(runs=60), [50, 30, 30, 5, 60]),
        (shard_row(), committed(metadata=Ownership(position=60).to_text()), [50, 30, 30, 5, 60]),
        (shard_row(), committed(submissions=None), [None, 30, 30, 5, 70]),
        (shard_row(), committed(ready=None), [50, None, None, 5, None]),
        (shard_row(), committed(control=None), [50, 30, 30, None, 70]),
        (shard_row(), committed(runs=None), [50, 30, 30, 5, None]),
        (shard_row(), committed(metadata="?"), [50, 30, 30, 5, 0]),
    ],
)
def test_what_the_slowest_reader_needs_stays(
    row: ShardRow, offsets: Committed, expected: list[int | None]
) -> None:
    assert needed(row, offsets) == expected


@pytest.mark.servers
def test_what_is_young_stays_though_nobody_needs_it(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = servers.settings
    topic = f"test.trimming.{uuid4()}"
    admin = AdminClient({"bootstrap.servers": settings.kafka})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    producer = Producer({"bootstrap.servers": settings.kafka})
    for _ in range(3):
        producer.produce(topic, b"", partition=0)
    assert producer.flush(20) == 0
    monkeypatch.setattr(Trimming, "_committed", lambda trimming, shards: {})
    monkeypatch.setattr(module, "needed_from", lambda rows, offsets: {(topic, 0): 2})
    trimming, now_ms = Trimming(settings, ManualClock()), SystemClock().now_ms()
    trimming._kept_ms[topic] = DAY_MS
    trimming.trim([shard_row()], now_ms)
    assert bounds_of(settings, [(topic, 0)]) == {(topic, 0): (0, 3)}
    trimming.trim([shard_row()], now_ms + 2 * DAY_MS)
    assert bounds_of(settings, [(topic, 0)]) == {(topic, 0): (2, 3)}, (
        "and what is old as long as it is needed"
    )
