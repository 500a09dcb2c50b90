"""Runs that wait for a slot which is busy: each is performed, or comes back and was not begun; none is both, whatever happens."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from consumers.slot_link import NotBegun, SlotLink
from consumers.slots import DEPTH, QUICK_RUNS, Outcome, SlotPool
from consumers.sweep import SWEEP_S
from dueline.codec import encode_ready_run
from dueline.frames import PACKED_LENGTH_MAX
from dueline.processes import descendants
from dueline.runs import RunKey
from dueline.states import AttemptState
from tests.consumers.helpers import CLASSES, perform, ready
from tests.stopped import await_stopped

pytestmark = pytest.mark.asyncio(loop_scope="module")

CANCELLED, CRASHED = AttemptState.CANCELLED, AttemptState.CRASHED
INTERRUPTED, SUCCEEDED, TIMED_OUT = AttemptState.INTERRUPTED, AttemptState.SUCCEEDED, AttemptState.TIMED_OUT
Work = asyncio.Task[Outcome]


class Stage:
    """A pool of two slots, and what its runs have written down."""

    def __init__(self, pool: SlotPool, file: Path) -> None:
        self.pool = pool
        self.file = file
        self.gate = file.with_name("gate")

    async def seen_to_be_quick(self) -> None:
        """Have the pool see so many quick runs that it lets others wait for them."""
        while self.pool.free < 2:  # one may still take the place of one that died
            await asyncio.sleep(0.001)
        while self.pool.capacity == 2:
            await perform(self.pool, ready("noop"))
        assert self.pool.capacity == 2 * DEPTH

    async def begin(self, *job_ids: str, **params: Any) -> list[Work]:
        """Hand runs over, each of a job of this id."""
        timeout_s, announce = params.pop("timeout_s", 60), params.pop("announce", None)
        works = []
        for job_id in job_ids:
            run = ready("mark", job_id=job_id, timeout_s=timeout_s, file=str(self.file), **params)
            performed = self.pool.perform(run, encode_ready_run(run), announce=announce)
            works.append(asyncio.create_task(performed))
        await asyncio.sleep(0)
        return works

    async def hold(self, *job_ids: str, **params: Any) -> list[Work]:
        """Hand runs over that go on until `let_go`; they have begun when this returns."""
        works = await self.begin(*job_ids, until=str(self.gate), **params)
        await self.until_begun(*job_ids)
        return works

    def let_go(self) -> None:
        self.gate.touch()

    def begun(self) -> Counter[str]:
        return Counter(self.file.read_text().split())

    async def until_begun(self, *job_ids: str) -> None:
        while not self.begun().keys() >= set(job_ids):
            await asyncio.sleep(0.001)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pool() -> AsyncIterator[SlotPool]:
    pool = SlotPool(2, [CLASSES])
    await pool.start()
    yield pool
    await pool.close()


@pytest_asyncio.fixture(loop_scope="module")
async def stage(pool: SlotPool, tmp_path: Path) -> Stage:
    file = tmp_path / "begun"
    file.touch()
    stage = Stage(pool, file)
    await stage.seen_to_be_quick()
    return stage


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is taken back for the time alone that the run before it takes."""
    monkeypatch.setattr("consumers.slots.SWEEP_S", 60.0)
    monkeypatch.setattr("consumers.slot_link.SWEEP_S", 60.0)


async def at_once() -> None:
    """Announces a run, which takes no time."""


def key(job_id: str) -> RunKey:
    return ready("mark", job_id=job_id).key


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


async def states(works: list[Work]) -> list[AttemptState | None]:
    """How each ended; None where it was not begun."""
    ends = await asyncio.gather(*works, return_exceptions=True)
    assert all(isinstance(end, Outcome | NotBegun) for end in ends), ends
    return [end.state if isinstance(end, Outcome) else None for end in ends]


async def test_quick_runs_wait_for_busy_slots_and_are_performed(stage: Stage, patience: None) -> None:
    jobs = names("quick", 2 * DEPTH)
    works = await stage.begin(*jobs)
    assert stage.pool.running == 2
    assert await states(works) == [SUCCEEDED] * len(jobs)
    assert stage.begun() == Counter(jobs)


async def test_runs_are_taken_back_from_behind_one_that_takes_long(stage: Stage) -> None:
    long = await stage.begin("long-0", "long-1", s=60)
    await stage.until_begun("long-0", "long-1")
    behind = await stage.begin(*names("behind", 4))
    assert await states(behind) == [None] * 4
    assert stage.pool.capacity == 2, "nothing more is to wait"
    for job_id in ("long-0", "long-1"):
        assert stage.pool.interrupt(key(job_id))
    assert await states(long) == [INTERRUPTED] * 2
    assert stage.begun() == Counter(["long-0", "long-1"])


async def test_one_lasting_run_ends_the_waiting_until_many_were_quick(stage: Stage) -> None:
    assert await states(await stage.begin("lasting", s=0.03)) == [SUCCEEDED]
    quick = 0
    while stage.pool.capacity == 2:
        outcome = await perform(stage.pool, ready("noop"))
        quick = 0 if outcome.lasting else quick + 1  # a busy machine may have let one wait
        assert quick <= QUICK_RUNS
    assert quick == QUICK_RUNS
    assert stage.pool.capacity == 2 * DEPTH


async def test_a_slot_that_dies_takes_no_waiting_run_with_it(stage: Stage, patience: None) -> None:
    dying = await stage.hold("dying-0", "dying-1", dies=True)
    waiting = names("waiting", 4)
    behind = await stage.begin(*waiting)
    stage.let_go()
    assert await states(dying) == [CRASHED] * 2
    assert await states(behind) == [None] * 4
    assert not stage.begun().keys() & set(waiting)


async def test_to_cancel_a_run_cancels_no_other(stage: Stage) -> None:
    performed = await stage.begin("performed-0", "performed-1", s=60)
    await stage.until_begun("performed-0", "performed-1")
    behind = await stage.begin("waiting-0", "waiting-1")
    assert not stage.pool.cancel(key("waiting-0"), "no more"), "it was taken back, and is not performed"
    assert await states(behind[:1]) == [None]
    assert stage.pool.cancel(key("performed-1"), "no more")
    assert await states(performed[1:]) == [CANCELLED]
    assert await states(behind[1:]) == [None]
    assert stage.pool.interrupt(key("performed-0"))
    assert await states(performed) == [INTERRUPTED, CANCELLED]


async def test_a_timeout_ends_the_run_that_is_performed_alone(stage: Stage, patience: None) -> None:
    performed = await stage.begin("performed-0", "performed-1", s=60, timeout_s=2)
    await stage.until_begun("performed-0", "performed-1")
    behind = await stage.begin("waiting-0", "waiting-1", timeout_s=2)
    assert await states(performed) == [TIMED_OUT] * 2
    assert await states(behind) == [None] * 2


async def test_a_sigterm_from_outside_is_meant_for_one_run(stage: Stage, patience: None) -> None:
    hit = await stage.hold("hit-0", "hit-1", terminated=True)
    behind = await stage.begin(*names("behind", 4))
    stage.let_go()
    assert await states(hit) == [CRASHED] * 2
    assert await states(behind) == [None] * 4


async def test_a_long_record_has_an_idle_slot_alone_or_comes_back(stage: Stage, patience: None) -> None:
    long = {"text": "x" * PACKED_LENGTH_MAX}
    works = await stage.begin(*names("long", 3), **long)
    assert stage.pool.capacity == 2, "else more would come back"
    assert await states(works) == [SUCCEEDED, SUCCEEDED, None]
    assert stage.begun() == Counter(["long-0", "long-1"])


async def test_a_run_that_does_not_share_has_an_idle_slot_alone_or_comes_back(
    stage: Stage, patience: None
) -> None:
    works = await stage.hold("alone-0", "alone-1", announce=at_once)
    works += await stage.begin("alone-2", announce=at_once)
    works += await stage.begin("other")
    stage.let_go()
    assert await states(works) == [SUCCEEDED, SUCCEEDED, None, None]


async def test_a_slot_that_dies_while_its_run_is_announced_takes_no_run_with_it(stage: Stage) -> None:
    async def killed_meanwhile() -> None:
        for pid in set(descendants(stage.pool.guard_pid)):
            os.kill(pid, signal.SIGKILL)
        while stage.pool.capacity:
            await asyncio.sleep(0)

    assert await states(await stage.begin("announced", announce=killed_meanwhile)) == [None]
    assert not stage.begun()


async def test_a_slot_whose_run_could_not_be_announced_serves_the_next(stage: Stage) -> None:
    async def refused() -> None:
        raise ConnectionError("nobody listens")

    for number in range(3):  # one more than there are slots
        with pytest.raises(ConnectionError):
            await (await stage.begin(f"unheard-of-{number}", announce=refused))[0]
    assert await states(await stage.begin("next-0", "next-1")) == [SUCCEEDED] * 2
    assert stage.begun() == Counter(["next-0", "next-1"])


async def test_nothing_waits_behind_a_run_that_goes_on_for_long(stage: Stage) -> None:
    works = await stage.hold("long-0", "long-1")
    await asyncio.sleep(2 * SWEEP_S)  # so long the sweep would take to find out
    assert stage.pool.capacity > 2
    works += await stage.begin("next")
    assert stage.pool.capacity == 2
    stage.let_go()
    assert await states(works) == [SUCCEEDED, SUCCEEDED, None]


async def test_a_run_that_a_slot_takes_while_the_one_before_it_comes_back_has_begun(
    stage: Stage, patience: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = await stage.hold("held")
    slots = descendants(stage.pool.guard_pid)
    next_packet = SlotLink._next_packet

    def take_first_alone(link: SlotLink) -> bytes:
        packet = next_packet(link)
        for pid in slots:
            os.kill(pid, signal.SIGCONT)
        while not stage.begun().keys() & {"second", "third"}:
            time.sleep(0.001)
        return packet

    stop(slots)
    began_ms = time.time_ns() // 1_000_000
    first = await stage.begin("first")
    behind = await stage.begin("second", "third", until=str(stage.gate))
    monkeypatch.setattr(SlotLink, "_next_packet", take_first_alone)
    assert not stage.pool.cancel(key("first"), "it came back")
    stage.let_go()
    assert await states(first) == [None]
    assert await states(held + behind) == [SUCCEEDED] * 3
    assert all(work.result().started_ms >= began_ms for work in behind)


def stop(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    await_stopped(*pids)


@pytest.mark.parametrize("seed", range(3))
async def test_no_run_is_begun_that_comes_back_and_none_twice(stage: Stage, seed: int) -> None:
    choose = random.Random(seed)
    works: dict[str, list[Work]] = {}
    for number in range(300):
        job_id = f"job-{number}"
        fate = choose.random()
        params = {"s": 0.0 if fate < 0.9 else choose.random() / 10, "dies": 0.9 < fate < 0.93}
        works[job_id] = await stage.begin(job_id, **params)
        if number % 100 == 99:
            await asyncio.gather(*(work for each in works.values() for work in each), return_exceptions=True)
            await stage.seen_to_be_quick()
        if choose.random() < 0.05:
            stage.pool.cancel(key(choose.choice(list(works))), "by chance")
        while len([work for each in works.values() for work in each if not work.done()]) >= 2 * DEPTH:
            await asyncio.sleep(0)
    ends = {job_id: (await states(each))[0] for job_id, each in works.items()}
    begun = stage.begun()
    assert {job_id for job_id, state in ends.items() if state is None}.isdisjoint(begun)
    assert set(begun.values()) == {1}
    assert {job_id for job_id, state in ends.items() if state is SUCCEEDED} <= begun.keys()
    assert {SUCCEEDED, CRASHED, None} <= set(ends.values())
