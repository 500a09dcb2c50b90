"""The executor: performs ready runs, one of a job at a time.

The life of a run here:

    taken ──► waits in the backlog ──► performed in a slot ──► output durable ──► retry command acknowledged, if any
                                                                      ──► event acknowledged ──► offset committable

Invariant D: a committed offset means a durable output, a durable event and a durable retry command. Whatever fails
before the commit, the run is read again, by this executor or by the shard's next.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from typing import Any

from confluent_kafka import Message

from consumers.account import Account
from consumers.backlog import Backlog, Taken
from consumers.intake import Intake
from consumers.output_store import OutputWriter
from consumers.reporter import Reporter
from consumers.slots import SlotPool
from dueline.address import EXECUTORS
from dueline.clock import SystemClock
from dueline.codec import decode_ready_run, encode_heartbeat
from dueline.errors import InvalidJob, Unavailable, UndecodableRecord
from dueline.ids import process_id
from dueline.runs import Heartbeat
from dueline.states import AttemptState
from infra.kafka import producer_config
from infra.publisher import Publisher, Record
from infra.settings import Settings

log = logging.getLogger(__name__)

#: A run that ends sooner is reported by its end alone.
STARTED_AFTER_S = 0.25
HEARTBEAT_INTERVAL_S = 5.0
#: How long running runs may go on when the executor stops, and when a shard moves: those wait for whom it moves to.
DRAIN_ON_STOP_S, DRAIN_ON_REVOKE_S = 20.0, 5.0


class Executor:
    """Takes ready runs from an Intake, performs them in a SlotPool, and tells what became of them."""

    def __init__(self, settings: Settings, imports: Sequence[str]) -> None:
        self.id = process_id("executor")
        self._settings = settings
        self._clock = SystemClock()
        self._started_ms = self._clock.now_ms()
        self._slots = SlotPool(settings.slots, imports)
        self._free = settings.slots
        self._outputs = OutputWriter(settings.data / "outputs", self.id)
        self._account = Account()
        self._backlog = Backlog()
        self._performing: dict[asyncio.Task[None], Taken] = {}
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._classes: tuple[str, ...] = ()
        self._drain_s = DRAIN_ON_REVOKE_S
        self._reporter: Reporter

    async def run(self, stop: asyncio.Event, ready: "asyncio.Future[None]") -> None:
        """Serve until `stop` is set, then drain. Raises what only a new process can mend."""
        # The slots come first: their guard is to be started before librdkafka has threads.
        self._classes = await self._slots.start()
        publisher = Publisher(producer_config(self._settings, self.id))
        self._reporter = Reporter(publisher, self.id)
        intake = Intake(self._settings, self, self._account, self.fail)
        heart = asyncio.create_task(self._beat())
        await intake.start()
        ready.set_result(None)
        log.info("executor %s serves %s", self.id, ", ".join(self._classes), extra={"action": "serving"})
        ends: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(stop.wait()),
            self._failure,
            self._slots.lost,
        ]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self._failure.done():
            self._failure.result()
        if self._slots.lost.done():
            raise Unavailable("the guard is gone, and every run with it; the executor has to start anew")
        self._drain_s = DRAIN_ON_STOP_S
        await intake.stop()
        heart.cancel()
        self._send_heartbeat(alive=False)
        await self._slots.close()
        await publisher.close()
        await self._outputs.close()

    def fail(self, error: BaseException) -> None:
        """End the process: its runs die with its guard, and are read again by their next owner."""
        if not self._failure.done():
            self._failure.set_exception(error)

    # -- taking and giving up: see `Taker` -------------------------------------------------------------------------

    def take(self, messages: Sequence[Message]) -> None:
        now_ms = self._clock.now_ms()
        for message in messages:
            self._take_one(message, now_ms)
        self._start_runs()

    async def give_up(self, shards: set[int], lost: bool) -> None:
        self._backlog.drop(shards)
        tasks = {task: taken for task, taken in self._performing.items() if taken.partition in shards}
        if not tasks:
            return
        if not lost:
            await asyncio.wait(tasks, timeout=self._drain_s)
        for task, taken in tasks.items():
            if not task.done():
                self._slots.interrupt(taken.run.key)
        await asyncio.wait(tasks)

    def forget(self, shards: set[int]) -> None:
        self._account.forget(shards)

    def _take_one(self, message: Message, now_ms: int) -> None:
        place = (message.topic() or "", message.partition() or 0)
        offset, record = message.offset() or 0, message.value() or b""
        self._account.take(place, offset)
        try:
            run = decode_ready_run(record)
        except (UndecodableRecord, InvalidJob) as error:
            # Only schedulers write here; a foreign record must not stop the partition.
            log.error("%s/%d/%d passed over: %s", *place, offset, error, extra={"action": "foreign_record"})
            self._account.finish(place, offset)
            return
        if self._account.knows(run.key, now_ms):
            log.info("run %s attempt %d came again", *run.key, extra={"action": "repeated_record"})
            self._account.finish(place, offset)
            return
        taken = Taken(run=run, place=place, offset=offset, record=record)
        self._account.wait(taken)
        self._backlog.add(taken)

    # -- performing ------------------------------------------------------------------------------------------------

    def _start_runs(self) -> None:
        while self._free and (taken := self._backlog.next(self._clock.now_ms())) is not None:
            self._free -= 1
            self._account.begin(taken)
            task = asyncio.create_task(self._perform(taken))
            self._performing[task] = taken
            task.add_done_callback(self._performed)

    async def _perform(self, taken: Taken) -> None:
        loop, started_ms = asyncio.get_running_loop(), self._clock.now_ms()
        started = loop.call_later(STARTED_AFTER_S, self._reporter.started, taken, started_ms)
        try:
            outcome = await self._slots.perform(taken.run, taken.record)
        finally:
            started.cancel()
            self._free += 1
            self._backlog.ended(taken)
        self._start_runs()
        if outcome.state is AttemptState.INTERRUPTED:
            # Nothing is finished: its record stays uncommitted, and is read again by the shard's next owner.
            await self._reporter.ended(taken, outcome, "")
            return
        output = await self._outputs.write(outcome.output_of(taken.run))
        await self._reporter.ended(taken, outcome, output)
        self._account.remember(taken.run.key, self._clock.now_ms())
        self._account.finish(taken.place, taken.offset)

    def _performed(self, task: "asyncio.Task[None]") -> None:
        del self._performing[task]
        if not task.cancelled() and (error := task.exception()):
            self.fail(error)

    # -- heartbeats ------------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        while True:
            self._send_heartbeat(alive=True)
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)

    def _send_heartbeat(self, *, alive: bool) -> None:
        beat = Heartbeat(
            executor=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_ms=self._started_ms,
            at_ms=self._clock.now_ms(),
            slots=self._settings.slots,
            running=self._settings.slots - self._free,
            classes=self._classes,
            alive=alive,
        )
        self._reporter.unawaited(Record(EXECUTORS, self.id.encode(), encode_heartbeat(beat)))
