"""The consumer's thread: the lease on what is held comes before all else."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from confluent_kafka import TopicPartition

from consumers.claim import Claim
from consumers.intake import Intake
from dueline.clock import ManualClock
from infra.settings import Settings


class NewCluster:
    """A consumer for which nothing was ever committed, with brokers that take their time to answer."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    def committed(self, places: Sequence[TopicPartition], timeout_s: float) -> list[TopicPartition]:
        return [TopicPartition(place.topic, place.partition) for place in places]

    def get_watermark_offsets(self, place: TopicPartition, timeout_s: float) -> tuple[int, int]:
        self._clock.advance(100)
        return 0, 0


class Claimed:
    """Who takes over what was looked up."""

    def __init__(self) -> None:
        self.claimed: list[Claim] = []

    def claim(self, claims: Sequence[Claim]) -> None:
        self.claimed += claims


async def test_to_take_over_many_shards_does_not_keep_it_from_committing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, taker = ManualClock(), Claimed()
    monkeypatch.setattr("consumers.intake.Consumer", lambda _: NewCluster(clock))
    intake = Intake(Settings(), "somebody", cast(Any, taker), cast(Any, None), {}, failed)
    monkeypatch.setattr(intake, "_clock", clock)
    held = asyncio.get_running_loop().create_future
    intake._claims = {shard: Claim(shard=shard, assigned_s=0.0, held=held()) for shard in range(32)}
    turns = 0
    while not all(claim.looked_up for claim in intake._claims.values()):
        begun_s = clock.elapsed_s()
        intake._commit_at_s = begun_s + 0.5
        intake._look_up()
        assert clock.elapsed_s() - begun_s <= 1.0
        turns += 1
    await asyncio.sleep(0)
    assert turns > 1
    assert taker.claimed == list(intake._claims.values())


def failed(error: BaseException) -> None:
    raise AssertionError from error
