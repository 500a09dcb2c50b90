"""The topics and how each kind of process talks to Kafka: one place for every setting that a guarantee rests on."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # NewTopic is re-exported

from dueline.address import CONTROL, EXECUTORS, READY, REJECTED, RUNS, SUBMISSIONS
from dueline.errors import DuelineError, Unavailable
from infra.settings import Settings

DAY_MS = 24 * 3600 * 1000
FOREVER = "-1"
#: What the topics behind the submissions take: a valid submission with room for what is added when it is passed on.
RECORD_LENGTH_MAX = 4_000_000
#: Of a partition's files.
SEGMENT_LENGTH = 128 << 20
#: A ready record that could not be delivered for this long is emitted anew. It must stay below the horizon of two
#: minutes within which an executor recognises a record that was emitted twice (design 3.3).
DELIVERY_TIMEOUT_MS = 60_000


class Group(StrEnum):
    """The consumer groups of the platform's processes."""

    SCHEDULERS = "dueline.scheduler"
    LEDGERS = "dueline.ledger"
    EXECUTORS = "dueline.executors"


@dataclass(frozen=True, slots=True)
class Topic:
    """What a topic must be like for the platform to start."""

    name: str
    #: None: as many partitions as there are shards.
    partitions: int | None
    retention_ms: str


TOPICS = (
    # Work is never lost to retention: what is done with is trimmed by the schedulers instead.
    *(Topic(name, None, FOREVER) for name in (SUBMISSIONS, *READY.values(), CONTROL, RUNS, REJECTED)),
    Topic(EXECUTORS, 1, str(DAY_MS)),
)


def ensure_topics(settings: Settings) -> None:
    """Create the topics that are missing. Raises DuelineError if one that is there has another partition count."""
    admin = AdminClient({"bootstrap.servers": settings.kafka})
    try:
        present = admin.list_topics(timeout=10).topics
    except KafkaException as error:
        raise Unavailable(
            f"Kafka does not answer at {settings.kafka}: {error}; is it up? (make up)"
        ) from error
    missing = []
    for topic in TOPICS:
        wanted = topic.partitions or settings.partitions
        if topic.name not in present:
            missing.append(_new_topic(topic, wanted, settings.replication))
        elif (found := len(present[topic.name].partitions)) != wanted:
            raise DuelineError(
                f"topic {topic.name} has {found} partitions, not {wanted}: the count is fixed when the topics are made; "
                f"set DUELINE_PARTITIONS={found}, or use an empty Kafka"
            )
    for name, made in (admin.create_topics(missing) if missing else {}).items():
        try:
            made.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another process was quicker
                raise DuelineError(f"topic {name} cannot be created: {error}") from error


def _new_topic(topic: Topic, partitions: int, replication: int) -> NewTopic:
    config = {
        "retention.ms": topic.retention_ms,
        # The broker's clock stamps every record, so no producer's clock decides when a job was accepted.
        "message.timestamp.type": "LogAppendTime",
        # What is trimmed is freed file by file.
        "segment.bytes": str(SEGMENT_LENGTH),
        "max.message.bytes": str(RECORD_LENGTH_MAX),
        "min.insync.replicas": str(max(1, replication - 1)),
    }
    return NewTopic(topic.name, partitions, replication, config=config)


def producer_config(settings: Settings, role: str, **more: Any) -> Mapping[str, Any]:
    """For producers of the platform: acknowledged by all replicas, in order, and where Java's clients would put it."""
    return {
        "bootstrap.servers": settings.kafka,
        "client.id": role,
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "compression.type": "lz4",
        "message.max.bytes": RECORD_LENGTH_MAX,
        "message.timeout.ms": DELIVERY_TIMEOUT_MS,
        # What can wait has gathered before it comes here.
        "linger.ms": 0.5,
        # More than the platform ever has under way, so that the queue is never what is full.
        "queue.buffering.max.messages": 500_000,
        **more,
    }


def reader_config(settings: Settings, role: str, **more: Any) -> Mapping[str, Any]:
    """For consumers that read a part of the log by offsets, outside any group's assignment."""
    return {
        "bootstrap.servers": settings.kafka,
        "client.id": role,
        "group.id": f"{role}.reader",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 50,
        # What is fetched ahead, by default 64 MB and 100,000 records, each of which may have come in a batch of its own, for whose
        # unpacking librdkafka allots far more than it needs. And there may be a reader for each shard.
        "queued.min.messages": 5_000,
        "fetch.message.max.bytes": 256 * 1024,
        "fetch.queue.backoff.ms": 5,  # or it pauses for a second whenever so many are there
        **more,
    }
