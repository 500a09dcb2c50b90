"""A Faust app that gives each partition of a topic to a worker of its own.

    assigned ──► worker.start() ──► offer(message) … ──► handle(batch) … ──► committable() ──► commit, once a second
    revoked  ──► worker.stop()

A worker takes what has gathered since its last batch, and waits for its turn while `TURNS` others handle theirs. So batches
grow with the load, and a lone message never waits.
Faust's protocol revokes every partition before it assigns the new set, so no worker lives through a rebalance: one
that starts anew takes its partition over as it would from another process.
"""

import abc
import asyncio
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import faust
import uvloop
from confluent_kafka import KafkaException
from faust.types import TP, Message

from dueline.address import EXECUTORS
from dueline.clock import SystemClock
from dueline.codec import encode_heartbeat
from dueline.errors import DuelineError
from dueline.ids import process_id
from dueline.runs import Heartbeat
from infra.garbage import settle_memory
from infra.kafka import Group, producer_config
from infra.log_reader import RecordFinder, answered
from infra.publisher import Placed, Publisher, Record
from infra.ready import say_ready
from infra.settings import Settings
from infra.watchdog import EXIT_STATUS, end_within, watch
from stream_processors.feed import feed
from stream_processors.fetched import read_whatever_was_taken

log = logging.getLogger(__name__)

#: A member that says nothing for so long loses its partitions: with the take-over itself, 15 s at most.
SESSION_TIMEOUT_S = 8.0
#: For all shards to be released, with both servers slow; a second is usual.
STOP_LIMIT_S = 20.0
COMMIT_INTERVAL_S = 1.0
HEARTBEAT_INTERVAL_S = 5.0
#: Messages in one batch: at a few tens of microseconds each, more would keep the event loop from its timers.
BATCH_MAX = 500
#: Messages that wait for a worker, and bytes of them; beyond it the reading of all partitions pauses.
INBOX_MAX, INBOX_BYTES_MAX = 2_000, 32_000_000
#: Batches that are handled at once. More would be smaller, and a store costs nearly the same for one row as for fifty.
TURNS = 3
#: A turn is waited for no longer: where the stores of some partitions hang, those of the others go on.
TURN_WAIT_MAX_S = 0.25
#: A worker that has work and finishes no batch for so long is stuck: the process ends, to be started anew. Longer
#: than the restart of a server takes, during which writes are repeated and nothing is wrong with the process.
STUCK_AFTER_S = 120.0


class Worker(abc.ABC):
    """Handles the messages of one partition in order, batch by batch."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        #: The offset of the next message that was not offered yet; None before the first.
        self.next_offset: int | None = None
        self._inbox: deque[Message] = deque()
        self._inbox_bytes = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._task: asyncio.Task[None] | None = None
        self._progress_at = 0.0

    @abc.abstractmethod
    async def prepare(self) -> None:
        """Take the partition over. Messages gather meanwhile."""

    @abc.abstractmethod
    async def handle(self, batch: Sequence[Message]) -> None:
        """Handle messages, in order; what raises ends the process, and the messages come again."""

    @abc.abstractmethod
    def committable(self) -> int | None:
        """The offset below which every message is satisfied; None when that is not known."""

    async def release(self) -> None:  # noqa: B027  # most workers have nothing to give up
        """Give the partition up; nothing is handled any more."""

    def start(self, turns: asyncio.Semaphore, failed: Callable[[BaseException], None]) -> None:
        self._turns = turns
        self._task = asyncio.create_task(self._run(), name=f"{type(self).__name__} {self.partition}")
        report_failure(self._task, failed)

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._room.set()
        await self.release()

    async def offer(self, message: Message) -> None:
        """Add a message; waits while the inbox is full."""
        self.next_offset = message.offset + 1
        if not self._inbox:
            self.progressed()  # it had nothing to do: that is no standstill
        self._inbox.append(message)
        self._inbox_bytes += len(message.value or b"")
        self._wake.set()
        if len(self._inbox) >= INBOX_MAX or self._inbox_bytes >= INBOX_BYTES_MAX:
            self._room.clear()
            await self._room.wait()

    def progressed(self) -> None:
        """It is not stuck: to be called, from any thread, in the midst of what may take minutes."""
        self._progress_at = SystemClock().elapsed_s()

    def stuck(self) -> bool:
        """Whether messages have waited for long, and it has made no progress meanwhile."""
        return bool(self._inbox) and SystemClock().elapsed_s() - self._progress_at > STUCK_AFTER_S

    async def _run(self) -> None:
        await self.prepare()
        while True:
            self.progressed()
            if not self._inbox:
                self._wake.clear()
                await self._wake.wait()
            async with self._turn():
                batch = [self._inbox.popleft() for _ in range(min(BATCH_MAX, len(self._inbox)))]
                self._inbox_bytes -= sum(len(message.value or b"") for message in batch)
                if len(self._inbox) < INBOX_MAX // 2 and self._inbox_bytes < INBOX_BYTES_MAX // 2:
                    self._room.set()
                await self.handle(batch)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(TURN_WAIT_MAX_S):
                await self._turns.acquire()
        except TimeoutError:
            yield
            return
        try:
            yield
        finally:
            self._turns.release()


class _Worker(faust.Worker):
    """Ends in time. Faust may rejoin the group in the midst of its shutdown, and then waits for ever."""

    def _schedule_shutdown(self, signal: signal.Signals) -> None:
        end_within(STOP_LIMIT_S)
        super()._schedule_shutdown(signal)

    def on_worker_shutdown(self) -> None:
        end_within(STOP_LIMIT_S)  # after a crash there was no signal
        super().on_worker_shutdown()


class _App(faust.App):
    """Calls its owner before the consumer starts, and while it can still commit."""

    def __init__(self, owner: "PartitionedApp", *args: Any, **conf: Any) -> None:
        super().__init__(*args, **conf)
        self._owner = owner

    async def on_start(self) -> None:
        await super().on_start()
        await self._owner.start()

    async def on_stop(self) -> None:
        await self._owner.stop()
        await super().on_stop()


class PartitionedApp:
    """The skeleton of both processes: a Faust app on one keyed topic, with a worker for each assigned partition."""

    #: Between two takings of what was fetched.
    pace_s: float

    def __init__(self, settings: Settings, role: str, group: Group, topic: str) -> None:
        self.settings = settings
        self.role = role
        self.group = group
        self.topic = topic
        self.process_id = process_id(role)
        self.workers: dict[int, Worker] = {}
        self.publisher: Publisher
        self._committed: dict[int, int] = {}
        self._finder = RecordFinder(settings, topic)
        self._turns = asyncio.Semaphore(TURNS)
        self._started_ms = SystemClock().now_ms()
        self.app: faust.App
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())  # for Faust's threads too
        self._make_app()

    # -- what a process adds ---------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect to what the workers need; called once, before the first assignment is handled."""

    async def close(self) -> None:
        """Disconnect; called once, after the workers have stopped."""

    def worker(self, partition: int) -> Worker:
        raise NotImplementedError

    def heard(self, placed: Placed) -> None:
        """A heartbeat of this process was acknowledged."""

    def raw_topic(self, name: str, *, acks: bool) -> Any:
        """A topic as Faust wants it described, its records as bytes."""
        return self.app.topic(
            name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", acks=acks
        )

    # -- running ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until SIGTERM or SIGINT, or until something fails that only a new process can mend."""
        _Worker(self.app, loglevel="INFO", quiet=False, redirect_stdouts=False).execute_from_commandline()

    def fail(self, error: BaseException) -> None:
        """End the process at once: what is not satisfied is read again by the next one."""
        log.critical("%s ends: %s", self.role, error, exc_info=error, extra={"action": "process_failed"})
        os._exit(EXIT_STATUS)

    def _make_app(self) -> None:
        app = _App(
            self,
            self.group.value,
            broker=[f"kafka://{address}" for address in self.settings.kafka.split(",")],
            autodiscover=False,
            web_enabled=False,  # by default it serves whatever the app holds to anybody
            topic_allow_declare=False,  # topics are made by `make up`, with the right partition count
            topic_disable_leader=True,
            consumer_auto_offset_reset="earliest",
            stream_wait_empty=False,  # it waits for acknowledgements, and there are none
            broker_session_timeout=SESSION_TIMEOUT_S,
            broker_heartbeat_interval=2.0,
            broker_request_timeout=30.0,
            broker_commit_interval=COMMIT_INTERVAL_S,
            datadir=str(self.settings.data / self.role),
        )
        self.app = app
        # The agent says which topic is read; its messages take a shorter way: see `feed`.
        app.agent(self.raw_topic(self.topic, acks=False), name=self.group.value)(_idle)
        feed(app, self.topic, self._take, self.pace_s)
        read_whatever_was_taken()
        app.on_partitions_assigned.connect(self._assigned, weak=False)  # type: ignore[arg-type]
        app.on_partitions_revoked.connect(self._revoked, weak=False)  # type: ignore[arg-type]
        app.task(self._commit)
        app.task(self._beat)

    async def _take(self, message: Message) -> bool:
        worker = self.workers.get(message.partition)
        if worker is None:
            return False  # revoked meanwhile: its next owner reads it
        if worker.next_offset is not None and message.offset > worker.next_offset:
            await self._check_gap(message, worker.next_offset)
            if self.workers.get(message.partition) is not worker:
                return False
        await worker.offer(message)
        return self.workers.get(message.partition) is worker

    async def _check_gap(self, message: Message, expected: int) -> None:
        """Offsets jump where the log holds no record (a transaction's marker, or all that it gave up), and never because we missed one."""
        found = await answered(partial(self._finder.first_from, message.partition, expected))
        if found is None or found < message.offset:
            self.fail(
                DuelineError(
                    f"{self.topic}/{message.partition} offset {expected} was skipped by the consumer"
                )
            )

    async def _assigned(self, _app: Any, assigned: set[TP], **_: Any) -> None:
        partitions = {tp.partition for tp in assigned if tp.topic == self.topic}
        await self._keep_only(partitions)
        for partition in sorted(partitions - self.workers.keys()):
            worker = self.workers[partition] = self.worker(partition)
            worker.start(self._turns, self.fail)
        log.info("partitions %s", sorted(partitions), extra={"action": "assigned"})
        say_ready()

    async def _revoked(self, app: Any, revoked: set[TP], **_: Any) -> None:
        await self._commit_now()
        await self._keep_only(set())

    async def _keep_only(self, partitions: set[int]) -> None:
        gone = [self.workers.pop(partition) for partition in self.workers.keys() - partitions]
        await asyncio.gather(*(worker.stop() for worker in gone))

    async def stop(self) -> None:
        await self._commit_now()
        await self._keep_only(set())
        await self.close()
        await asyncio.to_thread(self._finder.close)
        await self.publisher.close()

    async def start(self) -> None:
        watch(asyncio.get_running_loop(), self.fail)
        self.publisher = Publisher(producer_config(self.settings, self.process_id))
        await self.open()
        settle_memory()

    async def _commit(self, app: Any) -> None:
        while True:
            await asyncio.sleep(COMMIT_INTERVAL_S)
            await self._commit_now()
            for worker in self.workers.values():
                if worker.stuck():
                    self.fail(
                        DuelineError(f"partition {worker.partition} made no progress in {STUCK_AFTER_S:g} s")
                    )

    async def _commit_now(self) -> None:
        offsets: dict[TP, int] = {}
        for partition, worker in self.workers.items():
            offset = worker.committable()
            if offset is not None and offset != self._committed.get(partition):
                offsets[TP(self.topic, partition)] = offset
        # Not Faust's own commit, which goes by its acknowledgements: see the package's docstring.
        if offsets and await cast(Any, self.app.consumer)._commit(offsets):
            self._committed |= {tp.partition: offset for tp, offset in offsets.items()}

    async def _beat(self, app: Any) -> None:
        while True:
            beat = Heartbeat(
                executor=self.process_id,
                role=self.role,
                host=socket.gethostname(),
                pid=os.getpid(),
                started_ms=self._started_ms,
                at_ms=SystemClock().now_ms(),
            )
            record = Record(EXECUTORS, self.process_id.encode(), encode_heartbeat(beat))
            try:
                (placed,) = await self.publisher.publish([record])
                self.heard(placed)
            except (KafkaException, BufferError) as error:
                log.warning("heartbeat not acknowledged: %s", error, extra={"action": "heartbeat_failed"})
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)


async def _idle(stream: Any) -> None:
    async for _ in stream:
        raise AssertionError("a message came by the long way")


def report_failure(task: "asyncio.Task[None]", failed: Callable[[BaseException], None]) -> None:
    """Call `failed` if a task ends by an exception, which nobody would learn of otherwise."""

    def ended(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()):
            failed(error)

    task.add_done_callback(ended)
