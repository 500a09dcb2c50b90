"""Frees the topics of what nobody needs any more: by themselves they keep everything, so that no work is lost to retention.

A record stays for the time that the settings give it, for people and other readers of the public topics. Beyond that it
stays for as long as one of the platform's own processes might read it again:

    jobs.submissions    the next owner of the shard's wheel, from the offset in its row, and from what the group has committed
    jobs.ready.*        that owner, to know what was emitted; the executors, from what their group has committed
    jobs.control        the executors, likewise
    jobs.runs           the ledger, from what its group has committed; the shard's next executor, from the position in the metadata

While one of these is unknown, nothing of the partition is trimmed. Kafka frees a file of its log when all in it is trimmed.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # OffsetSpec is re-exported

from dueline.address import CONTROL, READY, RUNS, SUBMISSIONS
from dueline.clock import Clock
from dueline.job import Priority
from infra.kafka import DAY_MS, Group
from infra.ownership import Ownership
from infra.settings import Settings
from infra.store import ShardRow

log = logging.getLogger(__name__)

#: Between two trimmings: what stays is kept longer by a hundredth of its time, and by no more than ten minutes.
INTERVAL_MIN_S, INTERVAL_MAX_S = 1.0, 600.0
REQUEST_TIMEOUT_S = 10.0
_HIGH = READY[Priority.HIGH]

Place = tuple[str, int]
#: What each group has committed, with its metadata; nothing of a partition of which it has committed nothing.
Committed = Mapping[Group, Mapping[Place, TopicPartition]]


class Trimming:
    """Trims the partitions of the shards of one process."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._clock = clock
        self._admin = AdminClient({"bootstrap.servers": settings.kafka})
        kept_ms = dict.fromkeys((SUBMISSIONS, *READY.values(), CONTROL), round(settings.keep_days * DAY_MS))
        self._kept_ms = kept_ms | {RUNS: round(settings.keep_runs_days * DAY_MS)}
        #: The offset up to which each partition has been trimmed by us.
        self._trimmed: dict[Place, int] = {}

    async def keep_trimmed(self, stored: Callable[[], Sequence[ShardRow]]) -> None:
        """Trim again and again, for ever. `stored`: the rows of the shards, as they are stored."""
        shortest_s = min(self._kept_ms.values()) / 1000
        while True:
            await asyncio.sleep(max(INTERVAL_MIN_S, min(INTERVAL_MAX_S, shortest_s / 100)))
            if not (rows := stored()):
                continue
            try:
                await asyncio.to_thread(self.trim, rows, self._clock.now_ms())
            except Exception as error:  # a mistake too: no job waits for it
                log.warning("not trimmed, trying again: %r", error, extra={"action": "trim_failed"})

    def trim(self, rows: Sequence[ShardRow], now_ms: int) -> None:
        """Trim the partitions of these shards once. Blocking. Raises KafkaException where Kafka does not answer."""
        needed = needed_from(rows, self._committed([row.shard for row in rows]))
        kept = self._first_since(needed, now_ms)
        bounds = {place: min(offset, kept.get(place, offset)) for place, offset in needed.items()}
        bounds = {place: bound for place, bound in bounds.items() if bound > self._trimmed.get(place, 0)}
        if not bounds:
            return
        asked = [TopicPartition(*place, bound) for place, bound in bounds.items()]
        for done in self._admin.delete_records(asked, request_timeout=REQUEST_TIMEOUT_S).values():
            done.result()
        self._trimmed |= bounds
        log.info("trimmed %d partitions of shards %s", len(bounds), [row.shard for row in rows])

    def _committed(self, shards: Sequence[int]) -> Committed:
        topics = {
            Group.SCHEDULERS: (SUBMISSIONS,),
            Group.EXECUTORS: (*READY.values(), CONTROL),
            Group.LEDGERS: (RUNS,),
        }
        found: dict[Group, dict[Place, TopicPartition]] = {}
        for group, names in topics.items():
            places = [TopicPartition(name, shard) for name in names for shard in shards]
            asked = ConsumerGroupTopicPartitions(group.value, places)
            answers = self._admin.list_consumer_group_offsets([asked], request_timeout=REQUEST_TIMEOUT_S)
            each: Sequence[TopicPartition] = answers[group.value].result().topic_partitions
            for place in each:
                if place.error is not None:
                    raise KafkaException(place.error)
            found[group] = {(place.topic, place.partition): place for place in each if place.offset >= 0}
        return found

    def _first_since(self, places: Iterable[Place], now_ms: int) -> Mapping[Place, int]:
        """The offset of the first record of each partition that is to be kept for its age; nothing where none is."""

        def since(topic: str) -> Any:
            return OffsetSpec.for_timestamp(now_ms - self._kept_ms[topic])

        asked = {TopicPartition(*place): since(place[0]) for place in places}
        if not asked:
            return {}
        answers = self._admin.list_offsets(asked, request_timeout=REQUEST_TIMEOUT_S)
        first = {(place.topic, place.partition): done.result().offset for place, done in answers.items()}
        return {place: offset for place, offset in first.items() if offset >= 0}


def needed_from(rows: Iterable[ShardRow], committed: Committed) -> dict[Place, int]:
    """The offset of each partition of the shards below which no reader needs anything; nothing where that isn't known."""
    needed: dict[Place, int] = {}
    for row in rows:
        executors = committed[Group.EXECUTORS]
        high = executors.get((_HIGH, row.shard))
        position = None if high is None else Ownership.from_text(high.metadata).position
        readers = {
            SUBMISSIONS: (row.submissions, _offset(committed[Group.SCHEDULERS], SUBMISSIONS, row.shard)),
            CONTROL: (_offset(executors, CONTROL, row.shard),),
            RUNS: (position, _offset(committed[Group.LEDGERS], RUNS, row.shard)),
        } | {
            topic: (row.ready[priority], _offset(executors, topic, row.shard))
            for priority, topic in READY.items()
        }
        for topic, offsets in readers.items():
            known = [offset for offset in offsets if offset is not None]
            if len(known) == len(offsets):
                needed[topic, row.shard] = min(known)
    return needed


def _offset(committed: Mapping[Place, TopicPartition], topic: str, shard: int) -> int | None:
    place = committed.get((topic, shard))
    return None if place is None else place.offset
