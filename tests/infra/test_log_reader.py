"""Reading the log by offsets, on a real Kafka."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import groupby
from time import sleep
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, IsolationLevel, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]  # NewTopic is re-exported

from infra import log_reader
from infra.log_reader import RecordFinder, beginning, bounds_of, read_to_end
from infra.settings import Settings
from tests.conftest import Servers

pytestmark = pytest.mark.servers


@pytest.fixture
def topic(servers: Servers) -> str:
    name = f"test.reader.{uuid4()}"
    admin = AdminClient({"bootstrap.servers": servers.settings.kafka})
    admin.create_topics([NewTopic(name, 3, 1)])[name].result()
    consumer = Consumer({"bootstrap.servers": servers.settings.kafka, "group.id": name})
    for partition in range(3):
        _await_leader(consumer, TopicPartition(name, partition))
    consumer.close()
    return name


def _await_leader(consumer: Consumer, place: TopicPartition) -> None:
    """Return when a broker answers for the partition, which is some time after the topic is made."""
    while True:
        with suppress(KafkaException):
            consumer.get_watermark_offsets(place, 10)
            return


def fill(settings: Settings, topic: str, counts: Sequence[int], **config: str) -> None:
    producer = Producer({"bootstrap.servers": settings.kafka, "linger.ms": 5} | config)
    if "transactional.id" in config:
        producer.init_transactions(10)
        producer.begin_transaction()
    for partition, number in enumerate(counts):
        for n in range(number):
            producer.produce(topic, b"%d" % n, partition=partition)
    if "transactional.id" in config:
        producer.commit_transaction(10)
        _await_marker(settings, topic)
    assert producer.flush(20) == 0


def _await_marker(settings: Settings, topic: str) -> None:
    """Return when the transaction's end is in the log, which is some time after its commit."""
    # By default it would take the last stable offset for the end, too.
    uncommitted = {"isolation.level": "read_uncommitted"}
    consumer = Consumer({"bootstrap.servers": settings.kafka, "group.id": topic} | uncommitted)
    place = TopicPartition(topic, 0)
    admin = AdminClient({"bootstrap.servers": settings.kafka})
    latest_of: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    while True:  # the last stable offset stays at the transaction's beginning until then
        (latest,) = admin.list_offsets(
            {place: latest_of}, isolation_level=IsolationLevel.READ_COMMITTED
        ).values()
        if latest.result().offset == consumer.get_watermark_offsets(place, 10)[1]:
            consumer.close()
            return


def trim(settings: Settings, topic: str, before: int) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka})
    (done,) = admin.delete_records([TopicPartition(topic, 0, before)]).values()
    done.result()


def places(messages: Sequence[Message]) -> list[tuple[int | None, int | None]]:
    return sorted((message.partition(), message.offset()) for message in messages)


def test_each_partition_is_read_from_its_start_to_its_end(servers: Servers, topic: str) -> None:
    fill(servers.settings, topic, [5, 1500, 0])
    starts = {(topic, 0): 3, (topic, 1): 1490, (topic, 2): 0}
    found = list(read_to_end(servers.settings, starts))
    assert places(found) == [(0, 3), (0, 4), *((1, offset) for offset in range(1490, 1500))]
    assert len(list(read_to_end(servers.settings, beginning(topic, 3)))) == 1505


def test_the_bounds_of_many_partitions_are_had_in_one_go(servers: Servers, topic: str) -> None:
    fill(servers.settings, topic, [5, 1500, 0])
    trim(servers.settings, topic, 3)
    places = [(topic, partition) for partition in range(3)]
    bounds = {(topic, 0): (3, 5), (topic, 1): (0, 1500), (topic, 2): (0, 0)}
    assert bounds_of(servers.settings, places) == bounds
    assert bounds_of(servers.settings, []) == {}


def test_what_is_not_committed_lies_behind_the_end(servers: Servers, topic: str) -> None:
    fill(servers.settings, topic, [5, 0, 0])
    producer = Producer({"bootstrap.servers": servers.settings.kafka, "transactional.id": topic})
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce(topic, b"of an open transaction", partition=0)
    assert producer.flush(10) == 0
    assert bounds_of(servers.settings, [(topic, 0)]) == {(topic, 0): (0, 5)}
    producer.abort_transaction(10)


def test_nothing_behind_the_starts(servers: Servers, topic: str) -> None:
    fill(servers.settings, topic, [2, 0, 0])
    assert list(read_to_end(servers.settings, {(topic, 0): 2, (topic, 1): 0})) == []
    assert list(read_to_end(servers.settings, {})) == []


def test_what_comes_meanwhile_is_left_out(servers: Servers, topic: str) -> None:
    fill(servers.settings, topic, [3, 0, 0])
    reading = read_to_end(servers.settings, {(topic, 0): 0})
    found = [next(reading)]
    fill(servers.settings, topic, [3, 0, 0])
    found += reading
    assert places(found) == [(0, 0), (0, 1), (0, 2)]


def test_a_start_below_the_beginning_is_an_alarm(
    servers: Servers, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill(servers.settings, topic, [5, 0, 0])
    trim(servers.settings, topic, 3)
    with caplog.at_level(logging.ERROR, "infra.log_reader"):
        assert places(list(read_to_end(servers.settings, {(topic, 0): 1}))) == [(0, 3), (0, 4)]
    assert "is needed from offset 1 and begins at 3" in caplog.text
    caplog.clear()
    assert places(list(read_to_end(servers.settings, {(topic, 0): 3}))) == [(0, 3), (0, 4)]
    assert not caplog.records


def test_all_that_was_needed_may_be_gone(servers: Servers, topic: str) -> None:
    fill(servers.settings, topic, [5, 0, 0])
    trim(servers.settings, topic, 5)
    assert list(read_to_end(servers.settings, {(topic, 0): 5})) == []


def test_offsets_without_a_record_do_not_hold_the_end_back(servers: Servers, topic: str) -> None:
    """A transaction ends with a marker, which takes an offset and is never handed out."""
    fill(servers.settings, topic, [2, 0, 0], **{"transactional.id": topic})
    fill(servers.settings, topic, [1, 0, 0])
    fill(servers.settings, topic, [1, 0, 0], **{"transactional.id": topic})
    assert places(list(read_to_end(servers.settings, {(topic, 0): 0}))) == [(0, 0), (0, 1), (0, 3), (0, 4)]


def test_where_the_next_record_lies_is_found_again_and_again(servers: Servers, topic: str) -> None:
    for _ in range(3):  # at 0, 2 and 4; behind each its transaction's end
        fill(servers.settings, topic, [1, 0, 0], **{"transactional.id": topic})
    with closing(RecordFinder(servers.settings, topic)) as finder:
        assert [finder.first_from(0, offset) for offset in (1, 3, 0, 4, 5)] == [2, 4, 0, 4, None]
        assert finder.first_from(1, 0) is None
        fill(servers.settings, topic, [1, 1, 0])
        assert [finder.first_from(0, 5), finder.first_from(1, 0), finder.first_from(0, 1)] == [6, 0, 2]
        trim(servers.settings, topic, 4)
        assert finder.first_from(0, 0) == 4


def test_readers_go_through_their_batches_one_at_a_time(servers: Servers, topic: str) -> None:
    fill(servers.settings, topic, [1500, 1500, 1500])
    order: list[int] = []

    def read(partition: int) -> None:
        for _ in read_to_end(servers.settings, {(topic, partition): 0}):
            order.append(partition)
            sleep(0)  # another thread's turn

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(read, range(3)))
    batches = [len(list(together)) for _, together in groupby(order)]
    assert sum(batches) == 4500
    assert len(batches) < 45


async def test_what_nobody_waits_for_is_not_read_on() -> None:
    read, ended = threading.Event(), threading.Event()

    def read_for_ever() -> None:
        given_up = log_reader._thread.given_up
        read.set()
        given_up.wait()
        ended.set()

    reading = asyncio.create_task(log_reader.answered(read_for_ever))
    await asyncio.to_thread(read.wait)
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    assert await asyncio.to_thread(ended.wait, 20)


def test_brokers_that_do_not_answer(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.log_reader.TIMEOUT_S", 0.5)
    away = servers.settings.model_copy(update={"kafka": "127.0.0.1:1"})
    with pytest.raises(KafkaException):
        list(read_to_end(away, {("any", 0): 0}))
    with closing(RecordFinder(away, "any")) as finder, pytest.raises(KafkaException):
        finder.first_from(0, 0)
