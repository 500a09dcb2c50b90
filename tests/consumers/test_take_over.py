"""In which order a new owner takes a shard over."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from consumers import take_over
from consumers.claim import Claim
from consumers.findings import Findings
from consumers.intake import Place
from consumers.take_over import TakeOver
from dueline.address import READY
from dueline.clock import ManualClock
from dueline.codec import decode_run_record
from dueline.commands import CancelOrder
from dueline.job import Priority
from dueline.runs import OwnerStarted
from dueline.states import AttemptState
from infra.ownership import Ownership
from infra.publisher import Placed, Record
from tests.consumers.run_events import event_bytes, started


class Steps:
    """Stands in for all that a take-over needs of others, and writes down in which order it is asked for."""

    def __init__(self, log: list[bytes], lost: Sequence[int] = ()) -> None:
        self.log = log
        self.lost = lost
        self.seen: list[str] = []

    def read(self, _: object, findings: Mapping[int, Findings]) -> None:
        self.seen.append("read")
        for found in findings.values():
            for offset in range(found.next_offset, len(self.log)):
                found.add(offset, self.log[offset])

    def ends(self, _: object, places: Sequence[Place]) -> Mapping[Place, int]:
        self.seen.append("ends")
        return dict.fromkeys(places, 70)

    def cancels(self, _: object, claims: Sequence[Claim]) -> Mapping[int, list[tuple[int, CancelOrder]]]:
        self.seen.append("cancels")
        return {claim.shard: [] for claim in claims}

    async def hold(self, epochs: Mapping[Claim, int]) -> None:
        self.seen.append(f"hold {sorted(epochs.values())}")
        for claim in epochs:
            claim.held.set_result(None if claim.shard in self.lost else 7.0)

    async def deliver(self, records: Sequence[Record]) -> Sequence[Placed]:
        for record in records:
            announced = decode_run_record(record.value or b"")
            assert isinstance(announced, OwnerStarted)
            assert record.partition == announced.shard
            self.seen.append(f"started {announced.epoch}")
            self.log += [event_bytes("last-word", AttemptState.SUCCEEDED, epoch=4), record.value or b""]
            self.log += [event_bytes("too-late", AttemptState.SUCCEEDED, epoch=4)]
        return []

    async def leased(self, until_s: float) -> None:
        self.seen.append(f"leased {until_s}")


def take_over_with(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> TakeOver:
    monkeypatch.setattr(take_over, "_read_on", steps.read)
    monkeypatch.setattr(take_over, "ends_of", steps.ends)
    monkeypatch.setattr(take_over, "_cancels", steps.cancels)
    settings: Any = None
    return TakeOver(
        settings, "me", ManualClock(), hold=steps.hold, deliver=steps.deliver, leased=steps.leased
    )


def claim_of(shard: int, found: Ownership | None) -> Claim:
    future = asyncio.get_running_loop().create_future()
    return Claim(shard=shard, assigned_s=0, held=future, found=found, looked_up=True)


async def test_a_shard_is_announced_only_when_it_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps([])
    found = Ownership(owner="other", epoch=4, released=True, position=0)
    claim = claim_of(3, found)
    claim.begins = {READY[Priority.HIGH]: 70, READY[Priority.LOW]: 69}
    (held,) = await take_over_with(steps, monkeypatch).run([claim])
    assert steps.seen == ["read", "ends", "hold [5]", "started 5", "read", "cancels", "leased 7.0"]
    assert held.epoch == 5
    assert held.doubtful == {}
    assert held.unread == {(READY[Priority.NORMAL], 3): 70, (READY[Priority.LOW], 3): 70}
    assert held.findings.ended.keys() == {("last-word@5", 1)}


async def test_without_metadata_the_epoch_follows_from_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps([started(1), started(8)])
    (held,) = await take_over_with(steps, monkeypatch).run([claim_of(3, None)])
    assert held.epoch == 9


async def test_a_shard_that_went_away_is_not_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps([], lost=[3])
    assert await take_over_with(steps, monkeypatch).run([claim_of(3, None)]) == []
    assert steps.seen == ["read", "ends", "hold [1]"]


async def test_a_held_shard_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = claim_of(3, Ownership(owner="other", epoch=4, lease_s=0.001))
    assert claim.starts_s >= 3
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("consumers.take_over.asyncio.sleep", sleep)
    steps = Steps([])
    (held,) = await take_over_with(steps, monkeypatch).run([claim])
    assert waits == [claim.starts_s]
    assert steps.seen[:3] == ["read", "ends", "hold [5]"]
    assert held.doubtful == {(topic, 3): 70 for topic in READY.values()}
