"""How submissions reach Kafka: one librdkafka producer, the thread that serves it, and who waits for what.

The thread is the only one that polls. It first makes sure that the topic is there, so that a wrong address is
found out before anything is queued, and then hears the acknowledgements and settles the batches that they belong to.

A *flow* is a generator that says what it waits for: `(future, seconds)` asks to be resumed when the future is done
or the seconds have passed, `None` gives others a turn. `Client` drives flows with threads, `AsyncClient` with asyncio,
so each thing that a client can do is written once.
"""

import asyncio
import ctypes
import logging
import threading
import weakref
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from itertools import chain, repeat
from time import monotonic, sleep
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from dueline.address import SUBMISSIONS
from dueline.errors import Unavailable

Flow = Generator[tuple[Future[None] | None, float] | None, None, Any]

#: librdkafka goes on trying this long; what a call has given up by then may still arrive. No call may wait longer.
DELIVERY_MAX_S = 60.0
#: How often the thread looks up from polling for a close; acknowledgements wake it at once.
POLL_S = 0.1
#: librdkafka asks for its producer id at once, and again only 500 ms later if no broker was connected by then, as
#: happens when a request for the topic opens the connection first. This lets it go first.
CONNECT_S = 0.05
#: Waits for the description of the topic, in turn: short at first, to hear soon why there is none, then long enough
#: for a broker on the other side of the world.
METADATA_S = (0.2, 0.4, 0.8, 2.0)
#: After so many reports at once the thread lets more gather, instead of taking the interpreter from who is sending.
BURST_MIN = 8
BURST_PAUSE_S = 0.002
#: A full queue is looked at again after this; at 50,000 records a second 250 have left it by then.
QUEUE_FULL_PAUSE_S = 0.005

_log = logging.getLogger("dueline.client")
_log.addHandler(logging.NullHandler())


def producer_config(bootstrap: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": bootstrap,
        "client.id": "dueline-client",
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",  # as Java's clients do: dueline.address.shard_of
        "compression.type": "lz4",
        # A submission leaves at once. With half a millisecond to wait for more, librdkafka sent it one and a half later, and cost
        # one caller twice the CPU.
        "linger.ms": 0,
        # Four times the longest submission.
        "message.max.bytes": 1_000_000,
        # The memory that submissions on their way may take; a full queue slows its callers down.
        "queue.buffering.max.kbytes": 64 * 1024,
        "queue.buffering.max.messages": 100_000,
        "message.timeout.ms": int(DELIVERY_MAX_S * 1000),
        # A broker that comes back is found again within a second, not ten.
        "reconnect.backoff.max.ms": 1000,
        "socket.nagle.disable": True,
    }


class Batch:
    """Submissions handed to Kafka together, and which of them it acknowledged."""

    __slots__ = ("_missing", "acknowledged", "cut", "ids", "settled", "trouble")

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids
        self.acknowledged = bytearray(len(ids))
        #: Why one of them was refused, if it was.
        self.trouble = ""
        #: Whether the producer did not take all of them; such a batch never settles.
        self.cut = False
        #: Done when each of them is acknowledged or refused.
        self.settled: Future[None] = Future()
        self._missing = len(ids)

    @property
    def accepted(self) -> bool:
        return all(self.acknowledged)

    def report(self, index: int, error: KafkaError | None, _message: Message) -> None:
        """What became of one of them. Called on the polling thread."""
        if error is None:
            self.acknowledged[index] = 1
        else:
            self.trouble = error.str()
        self._missing -= 1
        if not self._missing:
            self.settled.set_result(None)


class Delivery:
    """One producer and its thread."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        #: Done when the topic was seen; fails with Unavailable when there is none.
        self.topic_known: Future[None] = Future()
        #: Done when the thread has ended.
        self.closed: Future[None] = Future()
        self._trouble = ""
        self._fatal = False
        self._closing = threading.Event()
        self._flush_s = 0.0
        # A reference of the producer's to us would leave it to the garbage collector to end librdkafka's threads.
        ours = weakref.WeakMethod(self._note_error)

        def note_error(error: KafkaError) -> None:
            if (note := ours()) is not None:
                note(error)

        try:
            self._producer = Producer(producer_config(bootstrap) | {"error_cb": note_error, "logger": _log})
        except KafkaException as error:
            raise Unavailable(
                f"{bootstrap!r} is no address of Kafka, such as 127.0.0.1:9092: {error.args[0].str()}"
            ) from error
        threading.Thread(target=self._serve, name="dueline-client", daemon=True).start()

    @property
    def usable(self) -> bool:
        """False after an error that the producer does not recover from; a new one has to take its place."""
        return not self._fatal and not (self.topic_known.done() and self.topic_known.exception())

    def until_topic_known(self, deadline: float) -> Flow:
        if not self.topic_known.done():
            yield self.topic_known, deadline - monotonic()
        if not self.topic_known.done():
            raise Unavailable(
                f"Kafka at {self.bootstrap} did not answer in time, and nothing was sent{self.why()}; "
                "check that it runs there, or give its address in DUELINE_KAFKA"
            )
        self.topic_known.result()

    def send(self, records: Sequence[tuple[str, bytes]], deadline: float) -> Flow:
        """Hands (id, submission) pairs to Kafka as one batch, which it returns."""
        batch = Batch([job_id for job_id, _ in records])
        # One call for all of them: a call each would hand the interpreter to and fro with the polling thread.
        left: list[dict[str, Any]] = [
            {"key": job_id.encode(), "value": value, "callback": partial(batch.report, index)}
            for index, (job_id, value) in enumerate(records)
        ]
        while self._producer.produce_batch(SUBMISSIONS, left) < len(left):
            left = [message for message in left if "_error" in message]
            error: KafkaError = left[0]["_error"]
            full = error.code() == KafkaError._QUEUE_FULL
            if not full or monotonic() > deadline:
                batch.cut = True
                batch.trouble = "too many earlier submissions wait for Kafka" if full else error.str()
                return batch
            for message in left:
                del message["_error"]
            yield None, QUEUE_FULL_PAUSE_S
        return batch

    def why(self) -> str:
        return f" ({self._trouble})" if self._trouble else ""

    def stop(self, flush_s: float = 0.0) -> None:
        """Lets the thread wait `flush_s` for acknowledgements, drop the rest and end."""
        self._flush_s = flush_s
        self._closing.set()

    def abandon(self) -> None:
        """Forgets the producer in a forked child: its threads stayed with the parent, so its destructor would hang."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._producer))

    def _serve(self) -> None:
        self._producer.poll(CONNECT_S)
        waits = chain(METADATA_S, repeat(METADATA_S[-1]))
        while not self._closing.is_set() and not self._topic_checked(next(waits)):
            self._closing.wait(POLL_S)
        while not self._closing.is_set():
            if self._producer.poll(POLL_S) >= BURST_MIN:
                sleep(BURST_PAUSE_S)
        self._producer.flush(self._flush_s)
        self._producer.purge()
        self._producer.flush(POLL_S)  # hears the reports of what was purged
        self.closed.set_result(None)

    def _topic_checked(self, wait_s: float) -> bool:
        try:
            topic = self._producer.list_topics(SUBMISSIONS, wait_s).topics[SUBMISSIONS]
        except KafkaException as error:
            self._trouble = self._trouble or error.args[0].str()
            self._producer.poll(0)  # hears the reason
            return False
        if topic.error is None:
            self.topic_known.set_result(None)
        elif topic.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            self.topic_known.set_exception(
                Unavailable(
                    f"Kafka at {self.bootstrap} has no topic {SUBMISSIONS}; the platform creates it when it first "
                    "starts: start it, or give the address of its Kafka in DUELINE_KAFKA"
                )
            )
        else:
            self._trouble = topic.error.str()
            return False
        return True

    def _note_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = True
        if error.code() != KafkaError._ALL_BROKERS_DOWN or not self._trouble:
            self._trouble = error.str()


class Waker:
    """Brings futures that other threads complete to an event loop, which it wakes once for a burst of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._arrived: deque[asyncio.Future[None]] = deque()
        self._woken = False

    async def until_done(self, future: Future[None], seconds: float) -> None:
        """Returns when the future is done or the seconds have passed."""
        arrived = self.loop.create_future()
        future.add_done_callback(partial(self._arrive, arrived))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await arrived

    def _arrive(self, arrived: asyncio.Future[None], _future: Future[None]) -> None:
        self._arrived.append(arrived)
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                self.loop.call_soon_threadsafe(self._hand_over)

    def _hand_over(self) -> None:
        self._woken = (
            False  # before the deque is emptied, so that what arrives from now on wakes the loop again
        )
        while self._arrived:
            arrived = self._arrived.popleft()
            if not arrived.done():
                arrived.set_result(None)
