"""The executor's side of Kafka: reads ready runs and what they are told of, commits what is finished, gives shards up in good order.

The consumer lives on a thread of its own and is called from there alone: librdkafka lets one thread's `commit` wait for
another's `poll` without end. What it reads is handed to the event loop; what is finished comes back as offsets, which
the thread asks for when it commits. Each successful commit extends the lease: `consumers.lease` says why.

The group's protocol is Kafka's own (`group.protocol=consumer`) with the `range` assignor, which gives the same
partition number of all topics to one member: one owner for each shard, over the three priorities and `jobs.control`.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumers.claim import Claim
from consumers.lease import LEASE_S, LeaseEnded, Leases
from dueline.address import CONTROL, READY
from dueline.clock import Pace, SystemClock
from dueline.job import Priority
from infra.kafka import Group
from infra.log_reader import begins_of
from infra.ownership import Ownership
from infra.settings import Settings

log = logging.getLogger(__name__)

COMMIT_INTERVAL_S = 0.5
#: After a commit that failed: a rebalance that was under way takes no longer, and the lease doesn't wait.
COMMIT_RETRY_S = 0.1
POLL_TIMEOUT_S = 0.05
#: Between two readings: what comes meanwhile is handed over at once.
READ_PACE_S = 0.002
#: Records handed over at once: more would keep the event loop from finished runs.
BATCH_MAX = 200
#: For the coordinator to say what is committed, and for a broker where a partition begins: tried again rather than long,
#: since no commit extends the lease meanwhile.
LOOK_UP_TIMEOUT_S = 0.5
#: Commits of `released` that are tried. Beyond them it stays held, and the next owner waits for nothing.
RELEASES_MAX = 5
_EXPELLED = {KafkaError.UNKNOWN_MEMBER_ID, KafkaError.FENCED_MEMBER_EPOCH}
_HIGH = READY[Priority.HIGH]

#: What is read of each shard.
TOPICS = (*READY.values(), CONTROL)

Place = tuple[str, int]


class Taker(Protocol):
    """Who takes what is read. Its methods are called on the event loop, but for `lease`."""

    @property
    def drain_s(self) -> float:
        """How long running runs may go on when their shards are given up."""

    def assigned(self, shards: set[int]) -> None:
        """Records of these shards follow."""

    def claim(self, claims: Sequence[Claim]) -> None:
        """What the former owners of the shards have left is known now: take them over."""

    def take(self, messages: Sequence[Message]) -> None: ...

    async def give_up(self, shards: frozenset[int]) -> None:
        """Let what runs of the shards finish within the drain time, and end the rest."""

    def forget(self, shards: set[int]) -> None:
        """The shards were given up, and what had finished of them is committed."""

    def lease(self, until_s: float | None) -> None:
        """The lease now ends at this time; None when no shard is held. On the consumer's thread."""


class Progress(Protocol):
    """What of it is finished. Read on the consumer's thread: see `consumers.account`."""

    committable: dict[Place, int]
    full: frozenset[Place]


class Intake:
    """The consumer and its thread."""

    def __init__(
        self,
        settings: Settings,
        owner: str,
        taker: Taker,
        progress: Progress,
        #: By shard: see `consumers.positions`.
        positions: Mapping[int, int],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self._taker = taker
        self._progress = progress
        self._positions = positions
        self._failed = failed
        self._consumer = Consumer(consumer_config(settings))
        self._clock = SystemClock()
        self._pace = Pace(READ_PACE_S)
        self._leases = Leases()
        self._claims: dict[int, Claim] = {}
        self._holds: SimpleQueue[Mapping[Claim, int]] = SimpleQueue()
        self._stopping = threading.Event()
        self._committed: dict[Place, int] = {}
        self._commit_at_s = 0.0
        self._failed_look_ups = 0
        self._pauses: set[Place] = set()
        self._held: set[Place] = set()
        self._first_assignment = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    async def start(self) -> None:
        """Join the group, and return when this executor has its first shards."""
        self._thread.start()
        await self._first_assignment.wait()

    async def hold(self, epochs: Mapping[Claim, int]) -> None:
        """Commit `held` under these epochs. Each claim's `held` is done when this returns."""
        self._holds.put(epochs)
        await asyncio.wait([claim.held for claim in epochs])

    async def stop(self) -> None:
        """Leave the group: what was taken is drained as on a revoke, and committed."""
        self._stopping.set()
        await asyncio.to_thread(self._thread.join)

    def check(self) -> None:
        """Raises LeaseEnded if nothing may be done any more. On any thread."""
        if self._leases.ended(self._clock.elapsed_s()):
            raise LeaseEnded(
                "the lease has ended: its shards may have other owners, and this executor starts anew"
            )

    # -- the consumer's thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._consumer.subscribe(
                list(TOPICS),
                on_assign=self._assigned,
                on_revoke=self._revoked,
                on_lost=self._lost,
            )
            while not self._stopping.is_set():
                self._read()
                self._look_up()
                self._begin_to_hold()
                if self._clock.elapsed_s() >= self._commit_at_s:
                    self._commit()
                self._pause_and_resume()
                self.check()
            self._consumer.close()  # calls _revoked, with all that is held
            self.check()
        except BaseException as error:  # whatever it is, nobody else would see it on this thread
            self._loop.call_soon_threadsafe(self._failed, error)

    def _read(self) -> None:
        # `consume` waits for as many as it is asked for; `poll` returns with the first.
        first = self._consumer.poll(POLL_TIMEOUT_S)
        if first is None:
            return
        time.sleep(self._pace.pause_s())
        messages = [first, *self._consumer.consume(BATCH_MAX - 1, 0)]
        for message in messages:
            if error := message.error():
                # Whatever it is: librdkafka reads no more of a partition whose offset it could not fetch, and says so only once.
                raise KafkaException(error)
        self._loop.call_soon_threadsafe(self._taker.take, messages)

    def _look_up(self) -> None:
        """Learn what the former owners have left of shards that were assigned."""
        claims = [claim for claim in self._claims.values() if not claim.looked_up]
        if not claims:
            self._failed_look_ups = 0
            return
        try:
            places = [(topic, claim.shard) for claim in claims for topic in TOPICS]
            found = self._consumer.committed([TopicPartition(*place) for place in places], LOOK_UP_TIMEOUT_S)
            for each in found:
                if each.error:
                    raise KafkaException(each.error)
            committed = {(each.topic, each.partition): each for each in found}
        except KafkaException as error:
            log.warning("no former owners found, trying again: %s", error, extra={"action": "look_up_failed"})
            return
        unread = [place for place, each in committed.items() if each.offset < 0]
        begins = self._begins(unread)
        missing = {shard for _, shard in set(unread) - begins.keys()}
        done = [claim for claim in claims if claim.shard not in missing]
        for claim in done:
            if any((topic, claim.shard) not in begins for topic in READY.values()):
                claim.found = Ownership.from_text(committed[_HIGH, claim.shard].metadata)
            for topic in TOPICS:
                place = topic, claim.shard
                claim.begins[topic] = begins.get(place, committed[place].offset)
            claim.looked_up = True
        if done:
            self._loop.call_soon_threadsafe(self._taker.claim, done)

    def _begins(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Where partitions begin of which nothing was ever committed, as far as it is told.

        All are asked for together, and where one has no answer none has. After that those of one shard are, of another one each time:
        a partition without a leader keeps no other shard waiting.
        """
        shards = sorted({shard for _, shard in places})
        if self._failed_look_ups and shards:
            shards = [shards[self._failed_look_ups % len(shards)]]
        try:
            return begins_of(
                self._consumer, [place for place in places if place[1] in shards], LOOK_UP_TIMEOUT_S
            )
        except KafkaException as error:
            self._failed_look_ups += 1
            log.warning(
                "where shards %s begin is not known, trying again: %s",
                *(shards, error),
                extra={"action": "look_up_failed"},
            )
            return {}

    def _begin_to_hold(self) -> None:
        while True:
            try:
                epochs = self._holds.get_nowait()
            except Empty:
                return
            for claim, epoch in epochs.items():
                if self._claims.get(claim.shard) is claim:
                    claim.epoch = epoch
            self._commit_at_s = 0.0

    def _commit(self, releasing: frozenset[int] = frozenset(), without: frozenset[int] = frozenset()) -> bool:
        """Commit for all shards that are held: `held`, or `released` for those given here. Whether it succeeded."""
        sent_s = self._clock.elapsed_s()
        self._commit_at_s = sent_s + COMMIT_INTERVAL_S
        claims = [claim for claim in self._claims.values() if claim.epoch and claim.shard not in without]
        if not claims:
            return True
        offsets = self._offsets(claims, releasing)
        try:
            for answer in self._consumer.commit(offsets=list(offsets.values()), asynchronous=False) or ():
                if answer.error:
                    raise KafkaException(answer.error)
        except KafkaException as error:
            # A rebalance that is under way is the usual reason.
            log.warning("commit failed: %s", error, extra={"action": "commit_failed"})
            self._commit_at_s = self._clock.elapsed_s() + COMMIT_RETRY_S
            if error.args[0].code() in _EXPELLED:
                self._leases.end()
            return False
        self._committed |= {place: offset.offset for place, offset in offsets.items()}
        self._leases.extend([claim.shard for claim in claims if claim.shard not in releasing], sent_s)
        self._taker.lease(self._leases.until_s)
        for claim in claims:
            self._settle(claim, sent_s + LEASE_S)
        return True

    def _offsets(self, claims: Sequence[Claim], releasing: frozenset[int]) -> dict[Place, TopicPartition]:
        offsets: dict[Place, TopicPartition] = {}
        for claim in claims:
            # The position before the offsets: it may be too early for them, never too late.
            ownership = Ownership(
                owner=self._owner,
                epoch=claim.epoch,
                lease_s=LEASE_S,
                released=claim.shard in releasing,
                position=self._positions.get(claim.shard, claim.position),
            )
            high = (_HIGH, claim.shard)
            offset = self._progress.committable.get(high, claim.begins[_HIGH])
            offsets[high] = TopicPartition(*high, offset, ownership.to_text())
        epochs = {claim.shard for claim in claims}
        for place, offset in dict(self._progress.committable).items():
            if place not in offsets and place[1] in epochs and self._committed.get(place) != offset:
                offsets[place] = TopicPartition(*place, offset)
        return offsets

    def _settle(self, claim: Claim, until_s: float | None) -> None:
        def settle() -> None:
            if not claim.held.done():
                claim.held.set_result(until_s)

        if not claim.held.done():
            self._loop.call_soon_threadsafe(settle)

    def _pause_and_resume(self) -> None:
        wanted = set(self._progress.full & self._held)
        if more := wanted - self._pauses:
            self._consumer.pause([TopicPartition(*place) for place in more])
        if fewer := self._pauses - wanted:
            self._consumer.resume([TopicPartition(*place) for place in fewer & self._held])
        self._pauses = wanted

    def _assigned(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        places, now_s = _places(partitions), self._clock.elapsed_s()
        self._held |= places
        shards = {shard for _, shard in places} - self._claims.keys()
        for shard in shards:
            self._claims[shard] = Claim(shard=shard, assigned_s=now_s, held=self._loop.create_future())
        log.info("shards %s", sorted(self._claims), extra={"action": "assigned"})
        self._loop.call_soon_threadsafe(self._taker.assigned, shards)
        self._loop.call_soon_threadsafe(self._first_assignment.set)

    def _revoked(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        places = _places(partitions)
        shards = frozenset(shard for _, shard in places)
        drained_s = self._clock.elapsed_s() + self._taker.drain_s
        done = self._give_up(shards)
        while not done.wait(COMMIT_INTERVAL_S):
            # What can't be killed doesn't hold up the group: from the end of the drain its lease runs out.
            is_drained = self._clock.elapsed_s() >= drained_s
            self._commit(without=shards if is_drained else frozenset())
            self.check()
        for _attempt in range(RELEASES_MAX):
            if self._commit(releasing=shards):
                break
            self.check()
            time.sleep(COMMIT_RETRY_S)
        self._leases.give_up(shards)
        self._taker.lease(self._leases.until_s)
        if paused := self._pauses & places:
            # It would still be so when the shard comes back.
            self._consumer.resume([TopicPartition(*place) for place in paused])
        self._forget(places)

    def _lost(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        log.warning("lost shards %s", sorted({s for _, s in _places(partitions)}), extra={"action": "lost"})
        self._leases.end()

    def _give_up(self, shards: frozenset[int]) -> threading.Event:
        done = threading.Event()

        def ended(giving_up: "Future[None]") -> None:
            if error := giving_up.exception():
                # What runs may go on: nothing is released.
                self._loop.call_soon_threadsafe(self._failed, error)
            else:
                done.set()

        asyncio.run_coroutine_threadsafe(self._taker.give_up(shards), self._loop).add_done_callback(ended)
        return done

    def _forget(self, places: set[Place]) -> None:
        self._held -= places
        self._pauses -= places
        for place in places:
            self._committed.pop(place, None)
        shards = {shard for _, shard in places}
        for shard in shards:
            if (claim := self._claims.pop(shard, None)) is not None:
                self._settle(claim, None)
        self._loop.call_soon_threadsafe(self._taker.forget, shards)


def consumer_config(settings: Settings) -> dict[str, Any]:
    return {
        "bootstrap.servers": settings.kafka,
        "client.id": Group.EXECUTORS,
        "group.id": Group.EXECUTORS,
        "group.protocol": "consumer",
        "group.remote.assignor": "range",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        # A fetch is answered with the first record: under load the schedulers send theirs together.
        "fetch.wait.max.ms": 100,
        # Between fetches when the queue was full.
        "fetch.queue.backoff.ms": 50,
        "queued.min.messages": 1000,
    }


def _places(partitions: Iterable[TopicPartition]) -> set[Place]:
    return {(partition.topic, partition.partition) for partition in partitions}
