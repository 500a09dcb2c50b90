"""Sends records to Kafka from asyncio and tells when all of a batch are acknowledged.

librdkafka reports each record on a thread of its own. Waking the event loop for each would cost more than the record,
so reports are gathered and the loop is woken once a burst.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

log = logging.getLogger(__name__)

#: Between attempts at a delivery that failed after its own long time-out, or at once because the queue is full.
RETRY_PAUSE_S = 0.5
#: The producer has failed for good (librdkafka calls it fatal and answers so from then on), or the record never fits.
_FOR_EVER = {KafkaError._FATAL, KafkaError.MSG_SIZE_TOO_LARGE}


@dataclass(frozen=True, slots=True)
class Record:
    """A record to be sent. Without a partition, the key decides, as everywhere."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int = -1
    headers: tuple[tuple[str, bytes | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an acknowledged record lies, and when the broker says that it came."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


class Publisher:
    """An idempotent producer with `await publish(records)`. Made inside a running event loop."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._loop = asyncio.get_running_loop()
        self._producer = Producer(dict(config))
        self._reports: deque[tuple[_Batch, int, KafkaError | None, Placed | None]] = deque()
        self._waking = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="publisher", daemon=True)
        self._thread.start()

    def publish(self, records: Iterable[Record]) -> "asyncio.Future[Sequence[Placed]]":
        """Hand the records to Kafka at once, in order; the future ends when each is acknowledged.

        It raises KafkaException if one was not: then the others may be in the log or not.
        """
        return self._publish(records).future

    async def deliver(
        self, records: Sequence[Record], check: Callable[[], None] = lambda: None
    ) -> Sequence[Placed]:
        """Send records until all are acknowledged, however long Kafka is away, or until `check` raises.

        One whose acknowledgement was lost is then in the log twice; its readers know it by its key, for a while: so what was
        acknowledged is not sent again. Raises KafkaException for what would fail for ever: a record that is too long, or a
        producer that only a new one can replace.
        """
        placed: dict[int, Placed] = {}
        left: Sequence[int] = range(len(records))
        while True:
            check()
            batch = self._publish([records[index] for index in left])
            try:
                await batch.future
            except (KafkaException, BufferError) as error:
                if _is_for_ever(error):
                    raise
                log.warning("not acknowledged, sending again: %s", error, extra={"action": "publish_failed"})
                await asyncio.sleep(RETRY_PAUSE_S)
            placed |= {i: place for i, place in zip(left, batch.placed, strict=True) if place is not None}
            left = [index for index in left if index not in placed]
            if not left:
                return [placed[index] for index in range(len(records))]

    async def close(self, timeout_s: float = 5.0) -> None:
        """Wait for what is under way, at most `timeout_s`, and end the thread."""
        await asyncio.to_thread(self._producer.flush, timeout_s)
        self._stopping.set()
        await asyncio.to_thread(self._thread.join)
        self._settle()

    def _publish(self, records: Iterable[Record]) -> "_Batch":
        batch = _Batch(self._loop.create_future(), [])
        for index, record in enumerate(records):
            batch.placed.append(None)
            if batch.error is None:  # else it would overtake one that is sent again
                self._produce(batch, index, record)
        batch.open = False
        batch.end_if_complete()
        return batch

    def _produce(self, batch: "_Batch", index: int, record: Record) -> None:
        def report(error: KafkaError | None, message: Message) -> None:
            self._report(batch, index, error, message)

        try:
            self._producer.produce(
                record.topic,
                record.value,
                record.key,
                partition=record.partition,
                headers=list(record.headers),
                on_delivery=report,
            )
        except (BufferError, KafkaException) as error:
            batch.fail(error)
        else:
            batch.waiting += 1

    def _poll(self) -> None:
        while not self._stopping.is_set():
            self._producer.poll(0.1)

    def _report(self, batch: "_Batch", index: int, error: KafkaError | None, message: Message) -> None:
        placed = None
        if error is None:
            # An acknowledged record has all of them; the stubs cannot tell.
            topic, partition, offset = message.topic() or "", message.partition() or 0, message.offset() or 0
            placed = Placed(topic, partition, offset, message.timestamp()[1])
        self._reports.append((batch, index, error, placed))
        if not self._waking:
            self._waking = True
            self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        # Before the reports are taken: one that comes meanwhile wakes the loop once too often rather than never.
        self._waking = False
        while self._reports:
            batch, index, error, placed = self._reports.popleft()
            batch.waiting -= 1
            if error is not None:
                batch.fail(KafkaException(error))
            batch.placed[index] = placed
            batch.end_if_complete()


def _is_for_ever(error: Exception) -> bool:
    """Whether the same would fail again, however often it were sent."""
    cause = error.args[0] if error.args else None
    return isinstance(cause, KafkaError) and (cause.fatal() or cause.code() in _FOR_EVER)


@dataclass(slots=True)
class _Batch:
    future: "asyncio.Future[Sequence[Placed]]"
    placed: list[Placed | None]
    waiting: int = 0
    open: bool = True
    error: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        self.error = self.error or error

    def end_if_complete(self) -> None:
        if self.open or self.waiting or self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result([place for place in self.placed if place is not None])
