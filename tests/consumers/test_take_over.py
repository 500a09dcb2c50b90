"""What a new owner learns of its shard's partition of jobs.runs, and in which order it takes a shard over."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from consumers import take_over
from consumers.claim import Claim
from consumers.lease import Ownership
from consumers.take_over import Findings, TakeOver
from dueline.clock import ManualClock
from dueline.codec import decode_run_record, encode_owner_started, encode_run_event
from dueline.job import Priority
from dueline.runs import OwnerStarted, RunEvent
from dueline.states import AttemptState
from infra.publisher import Placed, Record


def event(job_id: str, state: AttemptState, epoch: int = 1, **what: Any) -> bytes:
    return encode_run_event(
        RunEvent(
            job_id=job_id,
            due_ms=5,
            attempt=1,
            version=0,
            state=state,
            at_ms=0,
            executor_class="noop",
            priority=Priority.NORMAL,
            recurring=False,
            executor="somebody",
            epoch=epoch,
            **what,
        )
    )


def started(epoch: int) -> bytes:
    return encode_owner_started(OwnerStarted(shard=3, epoch=epoch, executor="somebody", at_ms=0))


def findings_of(*records: bytes) -> Findings:
    findings = Findings(0)
    for offset, record in enumerate(records):
        findings.add(offset, record)
    return findings


def test_what_has_ended_is_found_with_its_retry() -> None:
    findings = findings_of(
        started(1),
        event("good", AttemptState.RUNNING),
        event("good", AttemptState.SUCCEEDED),
        event("bad", AttemptState.FAILED, retry_ms=9),
        event("cancelled", AttemptState.CANCELLED),
    )
    assert findings.ended == {("good@5", 1): None, ("bad@5", 1): 9, ("cancelled@5", 1): None}
    assert findings.next_offset == 5


def test_what_went_on_or_was_interrupted_has_not_ended() -> None:
    findings = findings_of(
        event("long", AttemptState.RUNNING),
        event("killed", AttemptState.RUNNING),
        event("killed", AttemptState.INTERRUPTED),
        event("again", AttemptState.INTERRUPTED),
        event("again", AttemptState.SUCCEEDED),
    )
    assert findings.ended.keys() == {("again@5", 1)}


def test_a_former_owner_is_not_heard_behind_its_successor() -> None:
    findings = findings_of(started(1), started(2), event("late", AttemptState.SUCCEEDED, epoch=1))
    assert findings.ended == {}
    assert findings.succession.epoch == 2


def test_a_foreign_record_is_passed_over() -> None:
    findings = findings_of(b"{}", event("good", AttemptState.SUCCEEDED))
    assert findings.ended.keys() == {("good@5", 1)}


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
            self.log += [event("last-word", AttemptState.SUCCEEDED, epoch=4), record.value or b""]
            self.log += [event("too-late", AttemptState.SUCCEEDED, epoch=4)]
        return []

    async def leased(self, until_s: float) -> None:
        self.seen.append(f"leased {until_s}")


def take_over_with(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> TakeOver:
    monkeypatch.setattr(take_over, "_read_on", steps.read)
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
    (held,) = await take_over_with(steps, monkeypatch).run([claim_of(3, found)])
    assert steps.seen == ["read", "hold [5]", "started 5", "read", "leased 7.0"]
    assert held.epoch == 5
    assert held.findings.ended.keys() == {("last-word@5", 1)}


async def test_without_metadata_the_epoch_follows_from_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps([started(1), started(8)])
    (held,) = await take_over_with(steps, monkeypatch).run([claim_of(3, None)])
    assert held.epoch == 9


async def test_a_shard_that_went_away_is_not_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps([], lost=[3])
    assert await take_over_with(steps, monkeypatch).run([claim_of(3, None)]) == []
    assert steps.seen == ["read", "hold [1]"]


async def test_a_held_shard_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = claim_of(3, Ownership(owner="other", epoch=4, lease_s=0.001))
    assert claim.starts_s >= 3
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("consumers.take_over.asyncio.sleep", sleep)
    await take_over_with(Steps([]), monkeypatch).run([claim])
    assert waits == [claim.starts_s]
