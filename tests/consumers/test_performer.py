"""A run's way from its turn to its end, in a real slot: how far an attempt was is where the next one goes on."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio

from consumers.account import Account
from consumers.backlog import Taken
from consumers.cancels import Cancels
from consumers.findings import NOTHING, Begun, Past
from consumers.output_store import OutputWriter
from consumers.performer import NOT_STORED, Performer
from consumers.positions import Positions
from consumers.reporter import Reporter
from consumers.slots import DEPTH, SlotPool
from consumers.sweep import SWEEP_S
from dueline.clock import SystemClock
from dueline.codec import decode_run_event, decode_submission, encode_ready_run
from dueline.commands import CancelOrder, RetryCommand
from dueline.job import Priority
from dueline.outputs import read_output
from dueline.policies import Retry
from dueline.runs import CRASHES_MAX, ReadyRun
from dueline.states import AttemptState
from infra.publisher import Publisher
from tests.consumers.fake_publisher import FakePublisher
from tests.consumers.helpers import CLASSES, perform, ready
from tests.consumers.run_events import event_bytes


class Stage:
    """A performer with all that it needs, and one slot."""

    def __init__(self, pool: SlotPool, outputs: Path) -> None:
        self.pool = pool
        self.outputs = outputs
        self.publisher = FakePublisher()
        self.failures: list[BaseException] = []
        self.cancels = Cancels()
        self.account = Account()
        self.performer = Performer(
            pool=pool,
            outputs=OutputWriter(outputs, "executor-1"),
            reporter=Reporter(cast(Publisher, self.publisher), "executor-1", {0: 3, 1: 3}, lambda: None),
            account=self.account,
            cancels=self.cancels,
            positions=Positions(),
            clock=SystemClock(),
            failed=self.failures.append,
        )

    def perform(self, run: ReadyRun, past: Past = NOTHING, offset: int = 0, shard: int = 0) -> None:
        place = ("ready", shard)
        taken = Taken(run=run, key=run.key, place=place, offset=offset, record=encode_ready_run(run))
        self.account.take(taken.place, taken.offset)
        self.account.wait(taken)
        self.performer.admit(taken, past, doubtful=False)
        self.performer.start_runs()

    def ends(self) -> set[tuple[AttemptState, str]]:
        """The states that were told, with their jobs."""
        events = [decode_run_event(record.value or b"") for record in self.publisher.records]
        return {(event.state, event.job_id) for event in events}


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    pool = SlotPool(1, [CLASSES])
    await pool.start()
    stage = Stage(pool, tmp_path)
    yield stage
    await pool.close()
    assert stage.failures == []


async def test_a_retry_goes_on_from_what_was_reported(stage: Stage) -> None:
    run = replace(ready("report", values=[1, {"page": 2}], then="fail"), retry=Retry(max_attempts=3))
    stage.perform(run)
    retry, event = [record.value or b"" for record in await stage.publisher.sent(2)]
    command = decode_submission(retry)
    assert isinstance(command, RetryCommand)
    assert (command.run.attempt, command.run.progress) == (3, '{"page":2}')
    assert decode_run_event(event).progress == '{"page":2}'


async def test_a_repeat_goes_on_from_what_the_lost_executor_had_told(stage: Stage) -> None:
    lost = event_bytes("job", AttemptState.RUNNING, attempt=2, progress='{"page":2}')
    stage.perform(ready("report"), Past(begun=(Begun(decode_run_event(lost), lost=True),)))
    records = await stage.publisher.sent(3)
    told, began, ended = [decode_run_event(record.value or b"") for record in records]
    assert (told.state, told.attempt, told.progress) == (AttemptState.INTERRUPTED, 2, '{"page":2}')
    assert (began.state, began.attempt, began.progress) == (AttemptState.RUNNING, 3, "")
    assert ended.state is AttemptState.SUCCEEDED
    assert read_output(stage.outputs, ended.output).result == '{"page": 2}'


async def test_what_waits_behind_a_suspect_begins_when_that_is_given_up(tmp_path: Path) -> None:
    pool = SlotPool(2, [CLASSES])
    await pool.start()
    stage = Stage(pool, tmp_path)
    lost = Begun(decode_run_event(event_bytes("suspect", AttemptState.RUNNING)), lost=True)
    stage.perform(ready("sleep", job_id="lasting", s=60))
    stage.perform(ready("noop", job_id="suspect"), Past(begun=(lost, lost)), shard=1)
    stage.perform(ready("noop", job_id="waiting"), offset=1)
    await stage.performer.give_up({1}, 0)
    while (AttemptState.SUCCEEDED, "waiting") not in stage.ends():
        await stage.publisher.sent(len(stage.publisher.records) + 1)
    assert stage.pool.running == 1, "the other slot has its run still"
    await pool.close()
    assert stage.failures == []


async def test_a_run_that_is_taken_back_from_a_slot_has_another_turn(stage: Stage) -> None:
    while stage.pool.capacity == 1:
        await perform(stage.pool, ready("noop"))
    stage.perform(ready("sleep", job_id="lasting", s=0.5), offset=0)
    for number in range(1, DEPTH):
        stage.perform(ready("noop", job_id=f"waiting-{number}"), offset=number)
    assert stage.pool.capacity == DEPTH
    while stage.pool.capacity == DEPTH:
        await asyncio.sleep(0)
    events = [decode_run_event(record.value or b"") for record in await stage.publisher.sent(DEPTH + 1)]
    states = [(event.job_id, event.state) for event in events]
    assert states[:2] == [("lasting", AttemptState.RUNNING), ("lasting", AttemptState.SUCCEEDED)]
    assert sorted(states[2:]) == [(f"waiting-{number}", AttemptState.SUCCEEDED) for number in range(1, DEPTH)]
    assert stage.account.committable == {("ready", 0): DEPTH}


async def test_runs_that_find_no_room_can_be_too_late(stage: Stage, tmp_path: Path) -> None:
    while stage.pool.capacity == 1:
        await perform(stage.pool, ready("noop"))
    gate, begun = tmp_path / "gate", tmp_path / "begun"
    stage.perform(ready("mark", job_id="long", file=str(begun), until=str(gate)))
    while not begun.exists():
        await asyncio.sleep(0.001)
    await asyncio.sleep(2 * SWEEP_S)  # so long that none may wait behind it any more
    start_by_ms = SystemClock().now_ms() + 50
    for number in range(1, 5):
        run = ready("noop", job_id=f"urgent-{number}")
        stage.perform(replace(run, attempt=1, start_by_ms=start_by_ms), offset=number)
    while SystemClock().now_ms() <= start_by_ms:
        await asyncio.sleep(0.01)
    gate.touch()
    ends = {(AttemptState.MISSED, f"urgent-{number}") for number in range(1, 5)}
    ends.add((AttemptState.SUCCEEDED, "long"))
    while not ends <= stage.ends():
        await stage.publisher.sent(len(stage.publisher.records) + 1)


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """Stands where the outputs should be until it is deleted, and the same happens as on a full disk."""
    obstacle = tmp_path / "outputs"
    obstacle.touch()
    return obstacle


@pytest_asyncio.fixture
async def clogged(full: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Stage]:
    """A stage on which a run has ended and its output can't be stored."""
    pool = SlotPool(1, [CLASSES])
    await pool.start()
    stage = Stage(pool, full)
    stage.perform(ready("noop", job_id="first"))
    while "no run begins" not in caplog.text:
        await asyncio.sleep(0.01)
    yield stage
    await pool.close()


async def test_without_room_for_outputs_nothing_begins_and_nothing_is_lost(
    clogged: Stage, full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.performer.STUCK_AFTER_S", float("inf"))
    begun = tmp_path / "begun"
    clogged.perform(ready("mark", job_id="second", file=str(begun)), offset=1)
    clogged.performer.check()
    assert not clogged.account.committable.get(("ready", 0))
    assert not begun.exists()
    full.unlink()
    events = [decode_run_event(record.value or b"") for record in await clogged.publisher.sent(2)]
    assert [(event.job_id, event.state) for event in events] == [
        ("first", AttemptState.SUCCEEDED),
        ("second", AttemptState.SUCCEEDED),
    ]
    assert read_output(full, events[0].output).state is AttemptState.SUCCEEDED
    assert clogged.account.committable == {("ready", 0): 2}
    assert clogged.failures == []


async def test_a_run_whose_output_has_no_room_is_given_back_with_its_shard(clogged: Stage) -> None:
    await clogged.performer.give_up({0}, 0)
    (event,) = [decode_run_event(record.value or b"") for record in clogged.publisher.records]
    assert (event.state, event.reason) == (AttemptState.INTERRUPTED, NOT_STORED)
    assert not clogged.account.committable.get(("ready", 0))
    assert clogged.failures == []


async def test_an_executor_that_has_no_room_for_outputs_gives_all_back_and_ends(
    clogged: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.performer.STUCK_AFTER_S", 0)
    clogged.performer.check()
    while not clogged.failures:
        await asyncio.sleep(0.01)
    assert clogged.ends() == {(AttemptState.INTERRUPTED, "first")}


class Replacements:
    """Slots that take the place of one that died: they come up when they are let."""

    def __init__(self, folder: Path) -> None:
        self._held = folder / "held"
        (folder / "held_import.py").write_text(
            f"import pathlib, time\nwhile pathlib.Path({str(self._held)!r}).exists():\n    time.sleep(0.001)\n"
        )

    def hold(self) -> None:
        self._held.touch()

    def let_go(self) -> None:
        self._held.unlink()


def deadly(job_id: str) -> ReadyRun:
    """A run that takes its slot with it, and is not repeated."""
    return replace(ready("die", job_id=job_id, how="exit"), crashes=CRASHES_MAX)


@pytest.fixture
def replacements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Replacements:
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path.cwd()}")
    return Replacements(tmp_path)


@pytest_asyncio.fixture
async def slotless(tmp_path: Path, replacements: Replacements) -> AsyncIterator[Stage]:
    """A performer whose only slot has died."""
    pool = SlotPool(1, [CLASSES, "held_import"])
    await pool.start()
    stage = Stage(pool, tmp_path / "outputs")
    replacements.hold()
    stage.perform(deadly("deadly"))
    await stage.publisher.sent(1)
    assert stage.ends() == {(AttemptState.CRASHED, "deadly")}
    yield stage
    await pool.close()


async def test_a_run_that_has_no_slot_in_time_is_missed(slotless: Stage, replacements: Replacements) -> None:
    start_by_ms = SystemClock().now_ms() + 100
    run = replace(ready("noop", job_id="urgent"), attempt=1, start_by_ms=start_by_ms)
    slotless.perform(run, offset=1)
    while SystemClock().now_ms() <= start_by_ms:
        await asyncio.sleep(0.01)
    replacements.let_go()
    await slotless.publisher.sent(2)
    assert slotless.ends() == {(AttemptState.CRASHED, "deadly"), (AttemptState.MISSED, "urgent")}
    assert slotless.failures == []


async def test_a_run_that_has_no_slot_yet_can_be_cancelled(
    slotless: Stage, replacements: Replacements
) -> None:
    slotless.perform(ready("noop", job_id="unwanted"), offset=1)
    order = CancelOrder(job_id="unwanted", version=8, reason="on demand", ready={Priority.HIGH: 2})
    slotless.cancels.take(order, ("control", 0), 0)
    replacements.let_go()
    await slotless.publisher.sent(2)
    assert slotless.ends() == {(AttemptState.CRASHED, "deadly"), (AttemptState.CANCELLED, "unwanted")}


async def test_a_replacement_that_does_not_come_up_is_replaced(
    slotless: Stage,
    replacements: Replacements,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    slotless.perform(ready("noop", job_id="patient"), offset=1)
    replacements.let_go()
    await slotless.publisher.sent(2)
    replacements.hold()
    monkeypatch.setattr("consumers.slots.START_TIMEOUT_S", 0.1)
    slotless.perform(deadly("deadly again"), offset=2)
    while "it was not up after 0.1 s" not in caplog.text:
        await asyncio.sleep(0.01)
    monkeypatch.setattr("consumers.slots.START_TIMEOUT_S", 60.0)
    replacements.let_go()
    slotless.perform(ready("noop", job_id="patient again"), offset=3)
    await slotless.publisher.sent(4)
    assert (AttemptState.SUCCEEDED, "patient again") in slotless.ends()


async def test_a_slot_that_could_not_be_started_is_started_when_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pool = SlotPool(1, [CLASSES])
    await pool.start()
    (folders,) = tmp_path.glob("dueline-*")
    folders.rename(tmp_path / "away")
    assert (await perform(pool, deadly("deadly"))).state is AttemptState.CRASHED
    while "no slot can be started" not in caplog.text:
        await asyncio.sleep(0.01)
    (tmp_path / "away").rename(folders)
    assert (await perform(pool, ready("noop"))).state is AttemptState.SUCCEEDED
    await pool.close()


async def test_an_executor_that_stays_without_slots_fails(
    slotless: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    slotless.performer.check()
    assert slotless.failures == []
    monkeypatch.setattr("consumers.performer.STUCK_AFTER_S", -1.0)
    slotless.performer.check()
    (failure,) = slotless.failures
    assert "no slot has come up" in str(failure)
