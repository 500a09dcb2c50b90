"""The executor: takes ready runs for the shards that it holds, and has them performed.

The life of a run here:

    taken ──► (kept until its shard is held) ──► performed, or passed over if former owners have done with it
                                                                        ──► offset committable

`consumers.performer` has the middle of it. Whatever fails before the commit, the run is read again, by this executor or by
the shard's next.
"""

import asyncio
import logging
import os
import socket
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from confluent_kafka import Message

from consumers.account import Account
from consumers.backlog import Taken
from consumers.cancels import Cancels
from consumers.claim import Claim
from consumers.findings import Findings
from consumers.intake import Intake, Place
from consumers.output_store import OutputWriter, delete_outputs
from consumers.performer import Performer
from consumers.positions import Positions
from consumers.reporter import Reporter
from consumers.slots import SlotPool
from consumers.take_over import Held, TakeOver
from dueline.address import CONTROL, EXECUTORS
from dueline.clock import SystemClock
from dueline.codec import decode_cancel_order, decode_ready_run, encode_heartbeat
from dueline.errors import InvalidJob, Unavailable, UndecodableRecord
from dueline.ids import process_id
from dueline.runs import Heartbeat
from infra.garbage import settle_memory
from infra.kafka import DAY_MS, producer_config
from infra.publisher import Publisher, Record
from infra.settings import Settings
from infra.watchdog import EXIT_STATUS, end_within, watch

log = logging.getLogger(__name__)

HEARTBEAT_INTERVAL_S = 5.0
#: How long running runs may go on when the executor stops, and when a shard moves: those wait for whom it moves to.
DRAIN_ON_STOP_S, DRAIN_ON_REVOKE_S = 20.0, 5.0
#: For all that follows upon the drain: what is left is killed, written down and released.
STOP_LIMIT_S = 15.0
#: Shorter than the lease, so that what a stopped executor had still to say is dropped when it wakes up.
MESSAGE_TIMEOUT_MS = 2_500
MARK_INTERVAL_S = 1.0
#: What a former owner has left is read in seconds, behind an outage in tens of them.
TAKE_OVER_MAX_S = 300.0
OUTPUTS_INTERVAL_S = 600.0


class Executor:
    """Takes ready runs from an Intake, performs them in a SlotPool, and tells what became of them."""

    def __init__(self, settings: Settings, imports: Sequence[str]) -> None:
        self.id = process_id("executor")
        self._settings = settings
        self._clock = SystemClock()
        self._started_ms = self._clock.now_ms()
        self._slots = SlotPool(settings.slots, imports)
        self._outputs = OutputWriter(settings.data / "outputs", self.id)
        self._account = Account()
        self._cancels = Cancels()
        self._positions = Positions()
        #: Shards that are assigned and not being given up, and since when.
        self._shards: dict[int, float] = {}
        self._claims: dict[int, Claim] = {}
        self._take_overs: set[asyncio.Task[None]] = set()
        #: The owner epoch of each shard that is held.
        self._epochs: dict[int, int] = {}
        #: What was taken of shards that are not held yet.
        self._early: defaultdict[int, list[Taken]] = defaultdict(list)
        #: What the log says of each shard that is held, up to its begin.
        self._findings: dict[int, Findings] = {}
        #: The offsets below which a former owner may have begun runs without saying so.
        self._doubtful: dict[Place, int] = {}
        self._classes: tuple[str, ...] = ()
        self.drain_s = DRAIN_ON_REVOKE_S
        self._reporter: Reporter
        self._performer: Performer

    async def run(self, stop: asyncio.Event, ready: "asyncio.Future[None]") -> None:
        """Serve until `stop` is set, then drain. Raises what only a new process can mend."""
        # The slots come first: their guard is to be started before there are threads.
        self._classes = await self._slots.start()
        watch(asyncio.get_running_loop(), self.fail)
        producer = producer_config(self._settings, self.id, **{"message.timeout.ms": MESSAGE_TIMEOUT_MS})
        publisher = Publisher(producer)
        positions = self._positions.positions
        intake = Intake(self._settings, self.id, self, self._account, positions, self.fail)
        self._reporter = Reporter(publisher, self.id, self._epochs, intake.check)
        self._performer = Performer(
            pool=self._slots,
            outputs=self._outputs,
            reporter=self._reporter,
            account=self._account,
            cancels=self._cancels,
            positions=self._positions,
            clock=self._clock,
            failed=self.fail,
        )
        self._take_over = TakeOver(
            self._settings,
            self.id,
            self._clock,
            hold=intake.hold,
            deliver=lambda records: publisher.deliver(records, intake.check),
            leased=self._slots.leased,
        )
        works = (self._serve(intake, ready), self._beat(), self._mark(), self._delete_outputs())
        background = [asyncio.create_task(work) for work in works]
        ends: list[asyncio.Future[Any]] = [asyncio.ensure_future(stop.wait()), self._slots.lost]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self._slots.lost.done():
            self.fail(Unavailable("the guard is gone, and every run with it; the executor has to start anew"))
        end_within(DRAIN_ON_STOP_S + STOP_LIMIT_S)
        self.drain_s = DRAIN_ON_STOP_S
        await intake.stop()
        for task in background:
            task.cancel()
        self._send_heartbeat(alive=False)
        await self._slots.close()
        await publisher.close()
        await self._outputs.close()

    async def _serve(self, intake: Intake, ready: "asyncio.Future[None]") -> None:
        await intake.start()  # with more executors than shards that may take until one of them ends
        settle_memory()
        ready.set_result(None)
        log.info("executor %s serves %s", self.id, ", ".join(self._classes), extra={"action": "serving"})

    def fail(self, error: BaseException) -> None:
        """End the process at once: its runs die with its guard, and are read again by their next owner."""
        log.critical("the executor ends: %s", error, exc_info=error, extra={"action": "process_failed"})
        os._exit(EXIT_STATUS)

    # -- taking and giving up: see `Taker` -------------------------------------------------------------------------

    def assigned(self, shards: set[int]) -> None:
        self._shards |= dict.fromkeys(shards, self._clock.elapsed_s())

    def claim(self, claims: Sequence[Claim]) -> None:
        # Those that have nothing to wait for don't wait for the others.
        for wait in (False, True):
            if chosen := [claim for claim in claims if (claim.starts_s > claim.assigned_s) is wait]:
                self._claims |= {claim.shard: claim for claim in chosen if claim.shard in self._shards}
                task = asyncio.create_task(self._take_shards_over(chosen))
                self._take_overs.add(task)
                task.add_done_callback(self._taken_over)

    def take(self, messages: Sequence[Message]) -> None:
        now_ms = self._clock.now_ms()
        for message in messages:
            if message.partition() in self._shards:
                self._take_one(message, now_ms)
        self._performer.start_runs()

    async def give_up(self, shards: frozenset[int]) -> None:
        for shard in shards:
            self._shards.pop(shard, None)
            self._claims.pop(shard, None)
            self._early.pop(shard, None)
        await self._performer.give_up(shards, self.drain_s)

    def forget(self, shards: set[int]) -> None:
        self._account.forget(shards)
        self._positions.forget(shards)
        self._cancels.forget(shards)
        for shard in shards:
            self._epochs.pop(shard, None)
            self._findings.pop(shard, None)
        self._doubtful = {place: end for place, end in self._doubtful.items() if place[1] not in shards}

    def lease(self, until_s: float | None) -> None:
        self._slots.lease(until_s)

    # -- taking over -----------------------------------------------------------------------------------------------

    async def _take_shards_over(self, claims: Sequence[Claim]) -> None:
        for held in await self._take_over.run(claims):
            if self._claims.get(held.claim.shard) is held.claim:
                self._hold(held)
        self._performer.start_runs()

    def _taken_over(self, task: "asyncio.Task[None]") -> None:
        self._take_overs.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.fail(error)

    def _hold(self, held: Held) -> None:
        shard = held.claim.shard
        self._epochs[shard] = held.epoch
        self._findings[shard] = held.findings
        self._doubtful |= held.doubtful
        self._positions.hold(shard, held.claim.position, held.findings.next_offset, held.unread)
        log.info("holds shard %d, epoch %d", shard, held.epoch, extra={"action": "shard_held"})
        heeded_until = self._account.taken.get((CONTROL, shard), 0)
        for offset, order in held.cancels:
            if offset >= heeded_until:
                self._cancels.foresee(order, (CONTROL, shard), offset)
        for taken in self._early.pop(shard, []):
            self._admit(taken)

    def _admit(self, taken: Taken) -> None:
        past = self._findings[taken.partition].past_of(taken.run)
        self._performer.admit(taken, past, doubtful=taken.offset < self._doubtful.get(taken.place, 0))

    async def _mark(self) -> None:
        while True:
            self._positions.mark(self._clock.elapsed_s(), self._account.taken, self._account.committable)
            self._performer.check()
            self._settle_cancels()
            self._check_take_overs()
            await asyncio.sleep(MARK_INTERVAL_S)

    def _check_take_overs(self) -> None:
        """End the process if it can take none of its shards over, which others believe to be in good hands: nothing is lost by it."""
        since_s = self._clock.elapsed_s() - TAKE_OVER_MAX_S
        late = [shard for shard, at_s in self._shards.items() if at_s < since_s]
        if late and not self._epochs:
            self.fail(
                Unavailable(
                    f"shards {late} could not be taken over within {TAKE_OVER_MAX_S:g} s; it starts anew"
                )
            )

    async def _delete_outputs(self) -> None:
        while (days := self._settings.keep_outputs_days) is not None:
            before_ms = self._clock.now_ms() - round(days * DAY_MS)
            try:
                await asyncio.to_thread(delete_outputs, self._outputs.root, before_ms)
            except OSError as error:
                log.warning("old outputs not deleted: %s", error, extra={"action": "delete_failed"})
            await asyncio.sleep(OUTPUTS_INTERVAL_S)

    def _take_one(self, message: Message, now_ms: int) -> None:
        place = (message.topic() or "", message.partition() or 0)
        offset, record = message.offset() or 0, message.value() or b""
        if place[0] == CONTROL:
            self._account.take(place, offset)
            self._heed(place, offset, record)
            return
        try:
            run = decode_ready_run(record)
        except (UndecodableRecord, InvalidJob) as error:
            # Only schedulers write here; a foreign record must not stop the partition.
            log.error("%s/%d/%d passed over: %s", *place, offset, error, extra={"action": "foreign_record"})
            self._account.pass_over(place, offset)
            return
        if self._account.knows(run.key, now_ms):
            if offset < self._account.taken.get(place, 0):
                # librdkafka may give a record out twice. Taken for a second record of its run, it would finish the first.
                log.warning("%s/%d/%d was read twice", *place, offset, extra={"action": "read_twice"})
                return
            log.info("run %s attempt %d came again", *run.key, extra={"action": "repeated_record"})
            self._account.pass_over(place, offset)
            return
        self._account.take(place, offset)
        taken = Taken(run=run, key=run.key, place=place, offset=offset, record=record)
        self._account.wait(taken)
        if taken.partition in self._epochs:
            self._admit(taken)
        else:
            self._early[taken.partition].append(taken)

    # -- cancels ---------------------------------------------------------------------------------------------------

    def _heed(self, place: Place, offset: int, record: bytes) -> None:
        try:
            order = decode_cancel_order(record)
        except UndecodableRecord as error:
            log.error("%s/%d/%d passed over: %s", *place, offset, error, extra={"action": "foreign_record"})
            self._account.finish(place, offset)
            return
        self._cancels.take(order, place, offset)
        self._performer.end_runs(order.job_id, self._cancels.reason)

    def _settle_cancels(self) -> None:
        if not self._cancels:
            return
        finished = {
            (topic, shard): begin
            for shard, claim in self._claims.items()
            for topic, begin in claim.begins.items()
        }
        for place, offset in self._cancels.settle(finished | self._account.committable):
            self._account.finish(place, offset)

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
            running=self._slots.running,
            classes=self._classes,
            alive=alive,
        )
        self._reporter.unawaited(Record(EXECUTORS, self.id.encode(), encode_heartbeat(beat)))
