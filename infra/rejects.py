"""What could not be accepted, as it lies in `jobs.rejected`: key, value and own headers unchanged, the rest in headers.

Reading is blocking: call it in a thread.
"""

import heapq
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import KafkaException, Message
from confluent_kafka.admin import AdminClient

from dueline.address import REJECTED
from dueline.errors import Unavailable
from infra.log_reader import beginning, bounds_of, headers_of, read_to_end
from infra.settings import Settings

#: What a rejected record says of itself: why, where it came from, and what was cut from it if it was too long.
REASON, PLACE, CUT = "dueline-reason", "dueline-place", "dueline-cut"
ANSWER_LIMIT_S = 5.0

_quiet = logging.getLogger(
    f"{__name__}.librdkafka"
)  # its complaints come back as errors, which we word ourselves
_quiet.setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """One submission that was refused."""

    #: When the scheduler refused it.
    at_ms: int
    reason: str
    #: Topic, partition and offset at which it was submitted.
    place: str
    key: bytes | None
    value: bytes | None
    #: What is missing of the value; empty when it is whole.
    cut: str = ""


def latest_rejected(settings: Settings, limit: int) -> list[Rejected]:
    """The latest of the refused submissions, the latest first. Raises Unavailable when Kafka does not answer."""
    try:
        return heapq.nlargest(limit, _rejected_lately(settings, limit), key=lambda rejected: rejected.at_ms)
    except KafkaException as error:
        raise Unavailable(
            f"Kafka does not answer at {settings.kafka}: {error.args[0].str()}; is it up? (make up)"
        ) from error


def _rejected_lately(settings: Settings, limit: int) -> Iterator[Rejected]:
    """So many of each partition, the latest: brokers stamp the records, so the latest of all are among them."""
    admin = AdminClient({"bootstrap.servers": settings.kafka}, logger=_quiet)
    topic = admin.list_topics(REJECTED, timeout=ANSWER_LIMIT_S).topics[REJECTED]
    if topic.error is not None:
        raise KafkaException(topic.error)
    bounds = bounds_of(settings, beginning(REJECTED, len(topic.partitions)))
    starts = {place: max(low, high - limit) for place, (low, high) in bounds.items()}
    return map(_rejected, read_to_end(settings, starts))


def _rejected(message: Message) -> Rejected:
    headers = {name: _text(value) for name, value in dict(headers_of(message)).items()}
    return Rejected(
        at_ms=message.timestamp()[1],
        reason=headers.get(REASON, ""),
        place=headers.get(PLACE, ""),
        key=message.key(),
        value=message.value(),
        cut=headers.get(CUT, ""),
    )


def _text(value: bytes | str | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""
