"""The consumer's thread, where brokers give it less than they should."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from consumers.claim import Claim
from consumers.intake import Intake
from dueline.address import READY
from dueline.job import Priority
from infra.settings import Settings

LEADERLESS = (READY[Priority.LOW], 2)


class Cluster:
    """A consumer of a cluster in which one partition, of which nothing was ever committed, has no leader."""

    def __init__(self, *, says_so: bool, message: object = None) -> None:
        self._says_so = says_so
        self._message = message

    def committed(self, places: Sequence[TopicPartition], timeout_s: float) -> Sequence[TopicPartition]:
        for place in places:
            place.offset = (
                -1001 if (place.topic, place.partition) == LEADERLESS or place.partition == 3 else 7
            )
        return places

    def offsets_for_times(self, places: Sequence[TopicPartition], timeout_s: float) -> list[Any]:
        return [self._begin(place) for place in places]

    def _begin(self, place: TopicPartition) -> Any:
        if (place.topic, place.partition) != LEADERLESS:
            place.offset = 5
            return place
        error = KafkaError(KafkaError.LEADER_NOT_AVAILABLE)
        if not self._says_so:
            raise KafkaException(error)
        return Unanswered(*LEADERLESS, error)

    def subscribe(self, *arguments: object, **callbacks: object) -> None:
        pass

    def poll(self, timeout_s: float) -> Any:
        return self._message

    def consume(self, number: int, timeout_s: float) -> list[Message]:
        return []


class Unanswered:
    def __init__(self, topic: str, partition: int, error: KafkaError) -> None:
        self.topic, self.partition, self.error = topic, partition, error


class Claimed:
    """Who takes over what was looked up."""

    def __init__(self) -> None:
        self.begins: dict[int, set[int]] = {}

    def claim(self, claims: Sequence[Claim]) -> None:
        self.begins |= {claim.shard: set(claim.begins.values()) for claim in claims}


def intake_on(
    cluster: Cluster, taker: Claimed, monkeypatch: pytest.MonkeyPatch, failures: list[BaseException]
) -> Intake:
    monkeypatch.setattr("consumers.intake.Consumer", lambda _: cluster)
    return Intake(Settings(), "somebody", cast(Any, taker), cast(Any, None), {}, failures.append)


@pytest.mark.parametrize(("says_so", "others"), [(True, {1: {7}, 3: {5}}), (False, {1: {7}})])
async def test_a_partition_without_a_leader_keeps_its_own_shard_waiting(
    monkeypatch: pytest.MonkeyPatch, says_so: bool, others: dict[int, set[int]]
) -> None:
    """But where no answer tells whose fault it is: then those that need none go on."""
    taker = Claimed()
    intake = intake_on(Cluster(says_so=says_so), taker, monkeypatch, [])
    held = asyncio.get_running_loop().create_future
    intake._claims = {shard: Claim(shard=shard, assigned_s=0.0, held=held()) for shard in (1, 2, 3)}
    intake._look_up()
    await asyncio.sleep(0)
    assert taker.begins == others
    intake._look_up()
    await asyncio.sleep(0)
    assert taker.begins == others


class NoOffset:
    """What librdkafka says of partitions that it does not read on, because it could not learn from where."""

    def error(self) -> KafkaError:
        return KafkaError(KafkaError.NOT_COORDINATOR)


async def test_an_error_of_the_consumer_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[BaseException] = []
    intake = intake_on(Cluster(says_so=True, message=NoOffset()), Claimed(), monkeypatch, failures)
    await asyncio.to_thread(intake._run)
    await asyncio.sleep(0)
    (failure,) = failures
    assert isinstance(failure, KafkaException)
    assert failure.args[0].code() == KafkaError.NOT_COORDINATOR
