"""The executor's side of Kafka: reads ready runs, commits what is finished, gives shards up in good order.

The consumer lives on a thread of its own and is called from there alone: librdkafka lets one thread's `commit` wait for
another's `poll` without end. What it reads is handed to the event loop; what is finished comes back as offsets, which
the thread asks for when it commits.

The group's protocol is Kafka's own (`group.protocol=consumer`) with the `range` assignor, which gives the same
partition number of all topics to one member: one owner for each shard, over the three priorities.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from dueline.address import READY
from dueline.clock import SystemClock
from infra.settings import Settings

log = logging.getLogger(__name__)

GROUP = "dueline.executors"
COMMIT_INTERVAL_S = 0.5
POLL_TIMEOUT_S = 0.05
#: Records handed over at once: more would keep the event loop from finished runs.
BATCH_MAX = 200

Place = tuple[str, int]


class Taker(Protocol):
    """Who takes what is read. Its methods are called on the event loop."""

    def take(self, messages: Sequence[Message]) -> None: ...

    async def give_up(self, shards: set[int], lost: bool) -> None:
        """Let what runs of the shards finish within the drain time, and end the rest; at once if they are lost."""

    def forget(self, shards: set[int]) -> None:
        """The shards were given up, and what had finished of them is committed."""


class Progress(Protocol):
    """What of it is finished. Read on the consumer's thread: see `consumers.account`."""

    committable: dict[Place, int]
    full: frozenset[Place]


class Intake:
    """The consumer and its thread."""

    def __init__(
        self, settings: Settings, taker: Taker, progress: Progress, failed: Callable[[BaseException], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._taker = taker
        self._progress = progress
        self._failed = failed
        self._consumer = Consumer(consumer_config(settings))
        self._stopping = threading.Event()
        self._committed: dict[Place, int] = {}
        self._committed_at_s = 0.0
        self._pauses: set[Place] = set()
        self._held: set[Place] = set()
        self._first_assignment = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    async def start(self) -> None:
        """Join the group, and return when this executor has its first shards."""
        self._thread.start()
        await self._first_assignment.wait()

    async def stop(self) -> None:
        """Leave the group: what was taken is drained as on a revoke, and committed."""
        self._stopping.set()
        await asyncio.to_thread(self._thread.join)

    # -- the consumer's thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._consumer.subscribe(
                list(READY.values()), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
            )
            while not self._stopping.is_set():
                self._read()
                self._commit_sometimes()
                self._pause_and_resume()
            self._consumer.close()  # calls _revoked, with all that is held
        except BaseException as error:  # whatever it is, nobody else would see it on this thread
            self._loop.call_soon_threadsafe(self._failed, error)

    def _read(self) -> None:
        # `consume` waits for as many as it is asked for; `poll` returns with the first.
        first = self._consumer.poll(POLL_TIMEOUT_S)
        if first is None:
            return
        messages = [first, *self._consumer.consume(BATCH_MAX - 1, 0)]
        good = [message for message in messages if not message.error()]
        for message in messages:
            if (error := message.error()) and not error.retriable():
                raise KafkaException(error)
        if good:
            self._loop.call_soon_threadsafe(self._taker.take, good)

    def _commit_sometimes(self) -> None:
        if SystemClock().elapsed_s() - self._committed_at_s >= COMMIT_INTERVAL_S:
            self._commit()

    def _commit(self) -> None:
        self._committed_at_s = SystemClock().elapsed_s()
        finished = {
            place: offset
            for place, offset in dict(self._progress.committable).items()
            if place in self._held and self._committed.get(place) != offset
        }
        if not finished:
            return
        try:
            self._consumer.commit(
                offsets=[TopicPartition(*place, offset) for place, offset in finished.items()],
                asynchronous=False,
            )
        except KafkaException as error:
            # Tried again with the next; a rebalance that is under way is the usual reason.
            log.warning("commit failed: %s", error, extra={"action": "commit_failed"})
        else:
            self._committed |= finished

    def _pause_and_resume(self) -> None:
        wanted = set(self._progress.full & self._held)
        if more := wanted - self._pauses:
            self._consumer.pause([TopicPartition(*place) for place in more])
        if fewer := self._pauses - wanted:
            self._consumer.resume([TopicPartition(*place) for place in fewer & self._held])
        self._pauses = wanted

    def _assigned(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._held |= _places(partitions)
        log.info(
            "shards %s", sorted({partition for _, partition in self._held}), extra={"action": "assigned"}
        )
        self._loop.call_soon_threadsafe(self._first_assignment.set)

    def _revoked(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        places = _places(partitions)
        done = self._give_up({partition for _, partition in places}, lost=False)
        while not done.wait(COMMIT_INTERVAL_S):
            self._commit()
        self._commit()
        self._forget(places)

    def _lost(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        places = _places(partitions)
        log.warning("lost shards %s", sorted({p for _, p in places}), extra={"action": "lost"})
        self._give_up({partition for _, partition in places}, lost=True).wait()
        self._forget(places)

    def _give_up(self, shards: set[int], *, lost: bool) -> threading.Event:
        done = threading.Event()
        future = asyncio.run_coroutine_threadsafe(self._taker.give_up(shards, lost), self._loop)
        future.add_done_callback(lambda _: done.set())
        return done

    def _forget(self, places: set[Place]) -> None:
        self._held -= places
        self._pauses -= places
        for place in places:
            self._committed.pop(place, None)
        self._loop.call_soon_threadsafe(self._taker.forget, {partition for _, partition in places})


def consumer_config(settings: Settings) -> dict[str, Any]:
    return {
        "bootstrap.servers": settings.kafka,
        "client.id": GROUP,
        "group.id": GROUP,
        "group.protocol": "consumer",
        "group.remote.assignor": "range",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        # A wait of 50 ms at most between a record's coming and its fetch, and between fetches when the queue was full.
        "fetch.wait.max.ms": 50,
        "fetch.queue.backoff.ms": 50,
        "queued.min.messages": 1000,
    }


def _places(partitions: Iterable[TopicPartition]) -> set[Place]:
    return {(partition.topic, partition.partition) for partition in partitions}
