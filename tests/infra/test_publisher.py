"""The publisher on a real Kafka: records lie where it says, in the order given, and failures are told."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # NewTopic is re-exported

from dueline.address import shard_of
from infra.kafka import producer_config
from infra.log_reader import read_to_end
from infra.publisher import Placed, Publisher, Record
from infra.settings import Settings
from tests.conftest import Servers

pytestmark = pytest.mark.servers
PARTITIONS = 3


@pytest.fixture
async def publisher(servers: Servers) -> AsyncIterator[Publisher]:
    publisher = Publisher(producer_config(servers.settings, "test"))
    yield publisher
    await publisher.close()


@pytest.fixture
def topic(servers: Servers) -> str:
    name = f"test.publisher.{uuid4()}"
    config = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "100000"}
    admin = AdminClient({"bootstrap.servers": servers.settings.kafka})
    admin.create_topics([NewTopic(name, PARTITIONS, 1, config=config)])[name].result()
    return name


def log_of(settings: Settings, topic: str) -> dict[tuple[int, int], tuple[Any, ...]]:
    starts = {(topic, partition): 0 for partition in range(PARTITIONS)}
    return {
        (m.partition() or 0, m.offset() or 0): (
            m.key(),
            m.value(),
            tuple(m.headers() or ()),
            m.timestamp()[1],
        )
        for m in read_to_end(settings, starts)
    }


def places(placed: Any) -> list[tuple[int, int]]:
    return [(place.partition, place.offset) for place in placed]


async def test_nothing_to_publish_is_done_at_once(publisher: Publisher) -> None:
    assert await publisher.publish([]) == []
    assert await publisher.deliver([]) == []


async def test_records_lie_where_it_says(publisher: Publisher, topic: str, servers: Servers) -> None:
    headers = (("a", b"1"), ("a", None))
    records = [Record(topic, f"key-{n}".encode(), b"%d" % n, headers=headers) for n in range(200)]
    records.append(Record(topic, None, None, 2))
    placed = await publisher.publish(records)
    log = await asyncio.to_thread(log_of, servers.settings, topic)
    assert len(log) == len(records)
    for record, place in zip(records, placed, strict=True):
        key, value, found, stamp_ms = log[place.partition, place.offset]
        assert (key, value, found, stamp_ms) == (record.key, record.value, record.headers, place.timestamp_ms)
        if record.key is not None:
            assert place.partition == shard_of(record.key.decode(), PARTITIONS)


async def test_records_of_one_partition_keep_their_order_over_batches(
    publisher: Publisher, topic: str
) -> None:
    batches = await asyncio.gather(
        *(publisher.publish([Record(topic, None, b"x", 1)] * 50) for _ in range(20))
    )
    assert [place for batch in batches for place in places(batch)] == [(1, offset) for offset in range(1000)]


async def test_one_that_cannot_be_sent_fails_its_batch_alone(publisher: Publisher, topic: str) -> None:
    good = Record(topic, b"k", b"x", 0)
    bad = Record(topic, b"k", os.urandom(200_000), 1)  # more than the topic takes
    first, second = publisher.publish([good, bad, good]), publisher.publish([good])
    with pytest.raises(KafkaException, match="MSG_SIZE_TOO_LARGE"):
        await first
    (placed,) = await second
    assert isinstance(placed, Placed)
    assert placed.offset == 2


async def test_one_that_librdkafka_refuses_at_once_fails_its_batch(publisher: Publisher, topic: str) -> None:
    too_long = Record(topic, b"k", bytes(5_000_000))
    with pytest.raises(KafkaException):
        await publisher.publish([Record(topic, b"k", b"x", 0), too_long])
    with pytest.raises(KafkaException):
        await publisher.publish([too_long])
    (placed,) = await publisher.publish([Record(topic, b"k", b"x", 0)])
    assert placed.offset == 1


async def test_one_that_never_fits_ends_its_delivery(publisher: Publisher, topic: str) -> None:
    for value in (os.urandom(200_000), bytes(5_000_000)):  # refused by the broker, and by librdkafka
        with pytest.raises(KafkaException, match="MSG_SIZE_TOO_LARGE"):
            await publisher.deliver([Record(topic, b"k", value, 0)])


async def test_a_producer_that_failed_for_good_ends_its_deliveries(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fatal:
        """What librdkafka answers once it has met an error that it calls fatal."""

        def produce(self, *_: Any, **__: Any) -> None:
            raise KafkaException(KafkaError(KafkaError._FATAL, "fenced"))

    with monkeypatch.context() as patch:
        patch.setattr(publisher, "_producer", Fatal())
        with pytest.raises(KafkaException, match="fenced"):
            await publisher.deliver([Record("any", b"k", b"x", 0)])


async def test_what_is_acknowledged_is_not_sent_again(
    publisher: Publisher, topic: str, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing:
        """A producer whose queue is full each time that it comes to this record, three times."""

        def __init__(self, producer: Any) -> None:
            self._producer = producer
            self._left = 3
            self.poll = producer.poll

        def produce(self, topic: str, value: bytes, *arguments: Any, **options: Any) -> None:
            if value == b"2" and self._left:
                self._left -= 1
                raise BufferError
            self._producer.produce(topic, value, *arguments, **options)

    monkeypatch.setattr("infra.publisher.RETRY_PAUSE_S", 0.0)
    records = [Record(topic, None, b"%d" % n, 0) for n in range(5)]
    with monkeypatch.context() as patch:
        patch.setattr(publisher, "_producer", Refusing(publisher._producer))
        placed = await publisher.deliver(records)
    assert places(placed) == [(0, offset) for offset in range(5)]
    log = await asyncio.to_thread(log_of, servers.settings, topic)
    assert [log[place][1] for place in sorted(log)] == [record.value for record in records]


async def test_a_batch_that_nobody_waits_for_any_more_harms_no_other(
    publisher: Publisher, topic: str
) -> None:
    publisher.publish([Record(topic, None, b"x", 0)]).cancel()
    (placed,) = await publisher.publish([Record(topic, None, b"y", 0)])
    assert placed.offset == 1


async def test_a_full_queue_delays_a_delivery_and_loses_nothing(topic: str, servers: Servers) -> None:
    config = producer_config(servers.settings, "test", **{"queue.buffering.max.messages": 100})
    publisher = Publisher(config)
    try:
        batches = [[Record(topic, None, b"%d-%d" % (n, i), 0) for i in range(40)] for n in range(8)]
        placed = await asyncio.gather(*(publisher.deliver(batch) for batch in batches))
    finally:
        await publisher.close()
    log = await asyncio.to_thread(log_of, servers.settings, topic)
    for batch, found in zip(batches, placed, strict=True):
        assert [log[place][1] for place in places(found)] == [record.value for record in batch]


async def test_closing_waits_for_what_is_under_way(topic: str, servers: Servers) -> None:
    publisher = Publisher(producer_config(servers.settings, "test", **{"linger.ms": 500}))
    future = publisher.publish([Record(topic, None, b"x", 0)])
    await publisher.close()
    assert future.done()
    assert future.result()[0].offset == 0
