"""What `jobs.runs` says of a round, found without disturbing it: while the clock runs, only ends of partitions are asked for.

The events themselves are read when the round is over, from the ends that the partitions had before it.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cassandra import DriverException
from cassandra.cluster import Cluster, NoHostAvailable
from cassandra.policies import ConstantReconnectionPolicy
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # OffsetSpec is re-exported

from dueline.address import RUNS, SUBMISSIONS, minute_of
from dueline.codec import decode_run_record
from dueline.errors import Unavailable
from dueline.job import Priority
from dueline.runs import RunEvent
from dueline.states import AttemptState
from infra.kafka import Group, reader_config
from infra.log_reader import read_to_end
from infra.settings import Settings
from tests.bench.meter import now_s

#: By partition, the offset behind its last record.
Ends = Mapping[int, int]

#: Between two questions for the ends: one request each, so the answer costs nothing beside what is measured.
POLL_S = 0.05
#: Between two looks for the last rows of a round.
LOOK_S = 0.02
#: Between two questions for what is accepted, which schedulers commit once a second.
ACCEPTED_POLL_S = 0.25
#: Without any progress for so long a round has failed: the longest take-over and restart fit into it.
STALL_S = 120.0

#: Clients that say nothing where a server is away.
_QUIET = {"log_level": 0}

_RECORDED = (
    "SELECT writetime(state) FROM runs WHERE minute = %s AND shard = %s AND run_id = %s AND attempt = %s"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An attempt that has ended, as its executor told it."""

    job_id: str
    due_ms: int
    number: int
    priority: Priority
    state: AttemptState
    started_ms: int
    ended_ms: int
    executor: str
    #: When the broker took the event in.
    logged_ms: int

    @property
    def lateness_ms(self) -> int:
        return self.started_ms - self.due_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A round whose jobs have all ended."""

    #: When the last event was in the log, and when it was in Cassandra. By CLOCK_BOOTTIME.
    logged_s: float
    recorded_s: float
    attempts: Sequence[Attempt]

    @property
    def firsts(self) -> Sequence[Attempt]:
        """The first attempt of each run."""
        return [attempt for attempt in self.attempts if attempt.number == 1]


class RunsLog:
    """Watches one platform."""

    def __init__(self, settings: Settings, cassandra: Any) -> None:
        self._settings = settings
        self._admin = self._connected()
        self._tail = Consumer(dict(reader_config(settings, "dueline.bench", **_QUIET)))
        self._cassandra = cassandra

    def ends(self) -> Ends:
        """Where `jobs.runs` ends now."""
        return self._ends_of(RUNS)

    def until_accepted(self) -> float:
        """Return when the scheduler has committed all that was submitted by now, and the time of that."""
        wanted = self._ends_of(SUBMISSIONS)
        before, moved_s = -1, now_s()
        while True:
            committed = self._committed(wanted)
            left = sum(max(0, end - committed.get(partition, 0)) for partition, end in wanted.items())
            if not left:
                return now_s()
            if left != before:
                before, moved_s = left, now_s()
            if now_s() - moved_s > STALL_S:
                raise Unavailable(f"{left} submissions are not accepted, and none was in {STALL_S:g} s")
            time.sleep(ACCEPTED_POLL_S)

    def until_recorded(self, since: Ends, jobs: int) -> Finished:
        """Return when so many runs that ended since then are recorded. Raises Unavailable where nothing goes on."""
        events = jobs
        while True:
            ends = self._until_logged(since, events)
            logged_s = now_s()
            self._until_in_cassandra(since, ends)
            recorded_s = now_s()
            attempts = self.attempts(since)
            missing = jobs - len({(attempt.job_id, attempt.due_ms) for attempt in attempts if _over(attempt)})
            if missing <= 0:
                return Finished(logged_s=logged_s, recorded_s=recorded_s, attempts=attempts)
            # Some of the events were of other things: of starts, of owners.
            events = sum(ends.values()) - sum(since.values()) + missing

    def until_up_to_date(self, since: Ends) -> float:
        """Return when all that is logged now is recorded, and the time of that."""
        self._until_in_cassandra(since, self.ends())
        return now_s()

    def attempts(self, since: Ends) -> Sequence[Attempt]:
        """The attempts that have ended since then."""
        found = []
        starts = {(RUNS, partition): end for partition, end in since.items()}
        for message in read_to_end(self._settings, starts):
            event = decode_run_record(message.value() or b"")
            if isinstance(event, RunEvent) and event.ended_ms is not None:
                found.append(
                    Attempt(
                        job_id=event.job_id,
                        due_ms=event.due_ms,
                        number=event.attempt,
                        priority=event.priority,
                        state=event.state,
                        started_ms=event.started_ms or event.ended_ms,
                        ended_ms=event.ended_ms,
                        executor=event.executor,
                        logged_ms=message.timestamp()[1],
                    )
                )
        return found

    def close(self) -> None:
        self._tail.close()

    def _connected(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self._settings.kafka, **_QUIET})

    def _ends_of(self, topic: str) -> Ends:
        latest = {TopicPartition(topic, p): _latest() for p in range(self._settings.partitions)}
        give_up_s = now_s() + STALL_S
        while True:
            answers = self._admin.list_offsets(latest, request_timeout=10)
            try:
                return {place.partition: answer.result().offset for place, answer in answers.items()}
            except KafkaException:
                if now_s() > give_up_s:
                    raise
                # `recover` has killed the broker; a client from before it goes on with what it knew of the leaders.
                self._admin = self._connected()
                time.sleep(ACCEPTED_POLL_S)

    def _committed(self, partitions: Iterable[int]) -> Ends:
        places = [TopicPartition(SUBMISSIONS, partition) for partition in partitions]
        asked = ConsumerGroupTopicPartitions(Group.SCHEDULERS.value, places)
        (answer,) = self._admin.list_consumer_group_offsets([asked]).values()
        found = answer.result().topic_partitions
        return {place.partition: place.offset for place in found if place.offset > 0}

    def _until_logged(self, since: Ends, events: int) -> Ends:
        wanted = sum(since.values()) + events
        before, moved_s = 0, now_s()
        while True:
            ends = self.ends()
            total = sum(ends.values())
            if total >= wanted:
                return ends
            if total > before:
                before, moved_s = total, now_s()
            if now_s() - moved_s > STALL_S:
                raise Unavailable(
                    f"{wanted - total} events are missing on {RUNS}, and none came in {STALL_S:g} s"
                )
            time.sleep(POLL_S)

    def _until_in_cassandra(self, since: Ends, ends: Ends) -> None:
        """Return when the last event of each partition is recorded, and with it all before: partitions are kept in order."""
        waiting = [
            (_row_of(event, partition), offset + 1)
            for partition, offset, event in self._last(since, ends)
            if isinstance(event, RunEvent)
        ]
        begun_s = now_s()
        while waiting:
            waiting = [(row, stamp) for row, stamp in waiting if not self._recorded(row, stamp)]
            if now_s() - begun_s > STALL_S:
                raise Unavailable(f"{len(waiting)} events are not recorded after {STALL_S:g} s")
            time.sleep(LOOK_S if waiting else 0)

    def _recorded(self, row: tuple[Any, ...], stamp: int) -> bool:
        try:
            found = self._cassandra.execute(_RECORDED, row).one()
        except (DriverException, NoHostAvailable):
            return False  # `recover` has killed it
        return found is not None and found[0] >= stamp  # the write timestamp is the event's offset + 1

    def _last(self, since: Ends, ends: Ends) -> Iterator[tuple[int, int, Any]]:
        left = {partition: end - 1 for partition, end in ends.items() if end > since[partition]}
        self._tail.assign([TopicPartition(RUNS, partition, offset) for partition, offset in left.items()])
        while left:
            for message in self._tail.consume(len(left), POLL_S):
                if (error := message.error()) is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    continue
                partition, offset = message.partition() or 0, message.offset() or 0
                if left.get(partition) == offset:
                    del left[partition]
                    yield partition, offset, decode_run_record(message.value() or b"")
        self._tail.unassign()


@contextmanager
def runs_log_of(settings: Settings) -> Iterator[RunsLog]:
    """The log and the store of a platform: by the driver's plain session, as what is judged is not to judge itself."""
    host, _, port = settings.cassandra.partition(":")
    reconnection = ConstantReconnectionPolicy(0.2, max_attempts=None)
    with Cluster([host], port=int(port), protocol_version=5, reconnection_policy=reconnection) as cluster:
        log = RunsLog(settings, cluster.connect(settings.keyspace))
        try:
            yield log
        finally:
            log.close()


def _latest() -> Any:
    return OffsetSpec.latest()  # type: ignore[no-untyped-call]


def _over(attempt: Attempt) -> bool:
    """Whether no further attempt follows; jobs of a benchmark have no retries."""
    return attempt.state is not AttemptState.INTERRUPTED


def _row_of(event: RunEvent, partition: int) -> tuple[Any, ...]:
    return minute_of(event.due_ms), partition, event.run_id, event.attempt
