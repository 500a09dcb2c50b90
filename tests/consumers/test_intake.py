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

    def __init__(self, message: object = None) -> None:
        self._message = message

    def committed(self, places: Sequence[TopicPartition], timeout_s: float) -> Sequence[TopicPartition]:
        for place in places:
            place.offset = (
                -1001 if (place.topic, place.partition) == LEADERLESS or place.partition == 3 else 7
            )
        return places

    def offsets_for_times(
        self, places: Sequence[TopicPartition], timeout_s: float
    ) -> Sequence[TopicPartition]:
        """As librdkafka does: where one has no answer, none has."""
        for place in places:
            if (place.topic, place.partition) == LEADERLESS:
                raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
            place.offset = 5
        return places

    def subscribe(self, *arguments: object, **callbacks: object) -> None:
        pass

    def poll(self, timeout_s: float) -> Any:
        return self._message

    def consume(self, number: int, timeout_s: float) -> list[Message]:
        return []


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


async def test_a_partition_without_a_leader_keeps_its_own_shard_waiting_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taker = Claimed()
    intake = intake_on(Cluster(), taker, monkeypatch, [])
    held = asyncio.get_running_loop().create_future
    intake._claims = {shard: Claim(shard=shard, assigned_s=0.0, held=held()) for shard in (1, 2, 3)}
    for _ in range(5):
        intake._look_up()
    await asyncio.sleep(0)
    assert taker.begins == {1: {7}, 3: {5}}


class NoOffset:
    """What librdkafka says of partitions that it does not read on, because it could not learn from where."""

    def error(self) -> KafkaError:
        return KafkaError(KafkaError.NOT_COORDINATOR)


async def test_an_error_of_the_consumer_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[BaseException] = []
    intake = intake_on(Cluster(NoOffset()), Claimed(), monkeypatch, failures)
    await asyncio.to_thread(intake._run)
    await asyncio.sleep(0)
    (failure,) = failures
    assert isinstance(failure, KafkaException)
    assert failure.args[0].code() == KafkaError.NOT_COORDINATOR
