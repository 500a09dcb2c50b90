"""Reads parts of the log by offsets, outside any group: what a new owner learns from, and what views of Kafka show.

Blocking, but for `answered`: call it in a thread.
"""

import asyncio
import logging
import threading
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from time import monotonic, sleep
from typing import TypeVar, cast

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from infra.kafka import reader_config
from infra.settings import Settings

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Between attempts to read while Kafka is away.
RETRY_PAUSE_S = 0.5
TIMEOUT_S = 10.0
#: Between questions to a partition without a leader.
LEADERLESS_PAUSE_S = 0.1
_LEADERLESS = {KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION}
#: Records that are taken from librdkafka at once.
BATCH_MAX = 1000
#: librdkafka's batch call returns when it has as many records as asked for, or when its time is up: at the log's end that
#: is always its time, so it is short.
BATCH_S = 0.05

#: Held while somebody goes through a batch. Eight threads that did so at once, behind a long outage, left the event loops no
#: time for their heartbeats: the group gave the shards away before anything was emitted, again and again.
_one_at_a_time = threading.RLock()
#: `given_up`: that nobody waits for what a thread reads any more.
_thread = threading.local()


def read_to_end(settings: Settings, starts: Mapping[tuple[str, int], int]) -> Iterator[Message]:
    """The records of partitions from the given offsets to the ends that the partitions have now.

    A start below the log's beginning is read from there, and is an alarm: records were trimmed before their time.
    Raises KafkaException when the brokers do not answer.
    """
    consumer = _reader(settings)
    try:
        left = 0
        assignment: list[TopicPartition] = []
        ends: dict[tuple[str, int], int] = {}
        for (topic, partition), (low, high) in _bounds(consumer, starts).items():
            start = starts[topic, partition]
            if start < low:
                log.error(
                    "%s/%d is needed from offset %d and begins at %d: records are gone before their time",
                    *(topic, partition, start, low),
                    extra={"action": "log_trimmed_too_early"},
                )
            start = max(start, low)
            if start < high:
                assignment.append(TopicPartition(topic, partition, start))
                ends[topic, partition] = high
                left += 1
        if not left:
            return
        consumer.assign(assignment)
        reached: set[tuple[str, int]] = set()
        given_up = getattr(_thread, "given_up", threading.Event())
        while len(reached) < left and not given_up.is_set():
            batch = _next_batch(consumer)
            with _one_at_a_time:
                for message in batch:
                    place = (message.topic() or "", message.partition() or 0)
                    if _is_end(message):
                        reached.add(place)
                        continue
                    offset = message.offset() or 0
                    if offset < ends[place]:
                        yield message
                    if offset >= ends[place] - 1:
                        reached.add(place)
    finally:
        consumer.close()


def ends_of(settings: Settings, places: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
    """The offset behind the last record of each partition. Raises KafkaException when the brokers do not answer."""
    with closing(_reader(settings)) as consumer:
        return _awaited_offsets(consumer, list(places), OFFSET_END)


def bounds_of(
    settings: Settings, places: Iterable[tuple[str, int]]
) -> Mapping[tuple[str, int], tuple[int, int]]:
    """The first offset of each partition, and the one behind its last. Raises KafkaException when the brokers do not answer."""
    with closing(_reader(settings)) as consumer:
        return _bounds(consumer, list(places))


def begins_of(
    consumer: Consumer, places: Iterable[tuple[str, int]], timeout_s: float
) -> Mapping[tuple[str, int], int]:
    """The first offset of each partition, as a consumer finds it.

    Raises KafkaException if that of one of them is not told within the time.
    """
    return _offsets(consumer, places, OFFSET_BEGINNING, timeout_s)


class RecordFinder:
    """Tells which offsets of a topic hold a record.

    Where transactions end there is none. There may be very many of these, so what was read is remembered, partition by
    partition, until something beyond it is asked for, and the consumer that reads stays open. Blocking, for one thread at a time.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._consumer: Consumer | None = None
        #: By partition: the offset from which it was read, and all that hold a record from there to the last of them.
        self._found: dict[int, tuple[int, list[int]]] = {}

    def first_from(self, partition: int, offset: int) -> int | None:
        """The first at or behind an offset; None if there is none. Raises KafkaException when the brokers do not answer."""
        begin, found = self._found.get(partition, (0, []))
        if not found or not begin <= offset <= found[-1]:
            found = self._read(partition, offset)
            self._found[partition] = offset, found
        index = bisect_left(found, offset)
        return found[index] if index < len(found) else None

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _read(self, partition: int, offset: int) -> list[int]:
        if self._consumer is None:
            # It is never wanted to read far ahead.
            config = reader_config(self._settings, "dueline.record-finder", **{"queued.min.messages": 1})
            self._consumer = Consumer(dict(config))
        self._consumer.assign([TopicPartition(self._topic, partition, offset)])
        try:
            if (first := self._consumer.poll(TIMEOUT_S)) is None:
                raise _no_record()
            # What has come with it; a time to wait would always be waited out at the log's end.
            messages = [first, *self._consumer.consume(BATCH_MAX, 0)]
        finally:
            self._consumer.unassign()
        return [message.offset() or 0 for message in messages if not _is_end(message)]


def headers_of(message: Message) -> Sequence[tuple[str, bytes | None]]:
    """A record's headers; none where the name of one is no UTF-8: confluent-kafka can't give them out then."""
    try:
        return cast(Sequence[tuple[str, bytes | None]], message.headers() or ())
    except SystemError:
        return ()


def beginning(topic: str, partitions: int) -> Mapping[tuple[str, int], int]:
    """Starts for `read_to_end` that mean all that a topic still holds."""
    return {(topic, partition): 0 for partition in range(partitions)}


async def answered(read: Callable[[], T]) -> T:
    """What one of these functions returns, called in a thread until Kafka answers."""
    given_up = threading.Event()
    while True:
        try:
            return await asyncio.to_thread(_read_until, given_up, read)
        except asyncio.CancelledError:
            given_up.set()  # else the thread would read on, and keep those from it who come next
            raise
        except KafkaException as error:
            log.warning("the log can't be read, trying again: %s", error, extra={"action": "read_failed"})
            await asyncio.sleep(RETRY_PAUSE_S)


def _read_until(given_up: threading.Event, read: Callable[[], T]) -> T:
    _thread.given_up = given_up
    try:
        return read()
    finally:
        del _thread.given_up


def _reader(settings: Settings) -> Consumer:
    return Consumer(dict(reader_config(settings, "dueline.log-reader")))


def _bounds(
    consumer: Consumer, places: Collection[tuple[str, int]]
) -> Mapping[tuple[str, int], tuple[int, int]]:
    """As `bounds_of`."""
    begins = _awaited_offsets(consumer, places, OFFSET_BEGINNING)
    ends = _awaited_offsets(consumer, places, OFFSET_END)
    return {place: (begins[place], ends[place]) for place in places}


def _awaited_offsets(
    consumer: Consumer, places: Collection[tuple[str, int]], point: int
) -> Mapping[tuple[str, int], int]:
    """As `_offsets`. While a partition has no leader, it is about to get one."""
    give_up = monotonic() + TIMEOUT_S
    while True:
        try:
            return _offsets(consumer, places, point, TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() not in _LEADERLESS or monotonic() > give_up:
                raise
            sleep(LEADERLESS_PAUSE_S)


def _offsets(
    consumer: Consumer, places: Iterable[tuple[str, int]], point: int, timeout_s: float
) -> Mapping[tuple[str, int], int]:
    """Where partitions begin or end; of all of them, or an error.

    Each broker is asked once, for all that it leads, in place of a time the two points that its protocol has for that. A question waits
    behind the fetch that is on its way, so one for each partition would take seconds for many.
    """
    asked = [TopicPartition(*place, point) for place in places]
    answers = consumer.offsets_for_times(asked, timeout_s) if asked else []
    for answer in answers:
        if answer.error:
            raise KafkaException(answer.error)
    return {(answer.topic, answer.partition): answer.offset for answer in answers}


def _next_batch(consumer: Consumer) -> Sequence[Message]:
    """The next records, or the news that a partition is at its end; at least one."""
    give_up = monotonic() + TIMEOUT_S
    while not (messages := consumer.consume(BATCH_MAX, BATCH_S)):
        if monotonic() > give_up:
            raise _no_record()
    return messages


def _no_record() -> KafkaException:
    return KafkaException(KafkaError(KafkaError._TIMED_OUT, f"no record came within {TIMEOUT_S:g} s"))


def _is_end(message: Message) -> bool:
    """Whether it is the news that a partition is at its end."""
    error = message.error()
    if error is not None and error.code() != KafkaError._PARTITION_EOF:
        raise KafkaException(error)
    return error is not None
