"""What gathers before it is stored: nothing counts as satisfied by it before it is, and what is due does not wait for it."""

import asyncio
from dataclasses import replace
from typing import cast

import pytest

from dueline.clock import ManualClock
from dueline.job import Priority
from dueline.scheduling.judge import Judged
from dueline.scheduling.values import JobRow, ScheduledRun
from infra.store import Store
from stream_processors.scheduler import gathering as module
from stream_processors.scheduler.acceptance import Asked
from stream_processors.scheduler.gathering import HURRY_MS, Gathering
from stream_processors.scheduler.wheel import Wheel
from tests.stream_processors.transport import Transport, following, row

NOW_MS = 200
LATE, LATER = row(150), row(NOW_MS + HURRY_MS, "later")


class Rows:
    """A store that keeps what it is given, each time in one write, once it may."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.fails = False
        self.writes: list[tuple[list[ScheduledRun], list[JobRow]]] = []

    async def save_rows(self, shard: int, rows: list[ScheduledRun]) -> None:
        await self.open.wait()
        if self.fails:
            raise OSError("gone")
        self.writes.append((rows, []))

    async def save_jobs(self, shard: int, jobs: list[JobRow]) -> None:
        self.writes[-1] = (self.writes[-1][0], jobs)


class Bed:
    """A gathering between a store and a wheel that has turned until now."""

    def __init__(self) -> None:
        self.rows, self.transport, self.now_ms = Rows(), Transport(), NOW_MS
        #: Each time that the wheel called for a step, how many writes there had been.
        self.calls: list[int] = []
        self.wheel = Wheel(
            cursor_ms=100,
            submissions=1,
            ready=dict.fromkeys(Priority, 0),
            emitted={},
            found_ends={},
            unread=0,
            publish=self.transport.publish,
            judge=lambda *asked: self.transport.judge(*asked),
            save=lambda rows: self.gathering.save(rows),
            progress=lambda: self.calls.append(len(self.rows.writes)),
            failed=lambda error: pytest.fail(repr(error)),
        )
        self.wheel.read([], (1_000_000, "", 0, 0))
        self.gathering = Gathering(0, cast(Store, self.rows), self.wheel, ManualClock(NOW_MS))
        self.wheel.step(NOW_MS)

    async def add(self, end: int, *rows: ScheduledRun) -> None:
        jobs = [
            JobRow(job_id=f"job-{end}-{n}", version=end - 1, accepted_ms=NOW_MS, definition=b"any")
            for n in range(len(rows))
        ]
        await self.gathering.add(Asked(end=end, rows=list(rows), jobs=jobs))

    async def turn(self) -> None:
        self.wheel.step(self.now_ms)
        for _ in range(10):
            await asyncio.sleep(0)

    async def acknowledge(self) -> None:
        for sending in list(self.transport.sent):
            self.transport.acknowledge(sending)
        await self.turn()


async def test_what_comes_meanwhile_is_stored_in_one_write() -> None:
    bed = Bed()
    for end in (2, 3, 4):
        await bed.add(end, row(NOW_MS + HURRY_MS, f"job-{end}"))
    assert not bed.rows.writes
    assert bed.wheel.submissions == 1
    await bed.gathering.store()
    await bed.turn()
    assert [(len(rows), len(jobs)) for rows, jobs in bed.rows.writes] == [(3, 3)]
    assert bed.wheel.submissions == 4


async def test_the_wheel_is_called_for_what_is_late_at_once_and_for_the_rest_when_it_is_stored() -> None:
    bed = Bed()
    await bed.add(2, LATER)
    assert bed.calls == [], "there is nothing to do yet"
    await bed.add(3, LATE)
    assert bed.calls == [0]
    await bed.gathering.store()
    assert bed.calls == [0, 1], "what is due before its next turn would be late"


async def test_what_is_late_is_emitted_at_once_and_satisfied_when_its_job_is_stored() -> None:
    bed = Bed()
    await bed.add(2, LATE, LATER)
    await bed.turn()
    assert [key for sending in bed.transport.sent for key in sending.keys] == [LATE.key]
    await bed.acknowledge()
    assert bed.wheel.submissions == 1, "its job is not stored"
    assert bed.wheel.ready == dict.fromkeys(Priority, 0), "a new owner has to find it emitted"
    await bed.gathering.store()
    await bed.turn()
    assert bed.rows.writes[0][0] == [LATER], "nobody would look for a late row in the schedule"
    assert bed.wheel.submissions == 2
    assert bed.wheel.ready != dict.fromkeys(Priority, 0)


async def test_what_is_stored_before_it_is_acknowledged_waits_for_that() -> None:
    bed = Bed()
    await bed.add(2, LATE)
    await bed.turn()
    await bed.gathering.store()
    await bed.turn()
    assert bed.wheel.submissions == 1
    await bed.acknowledge()
    assert bed.wheel.submissions == 2


async def test_what_is_due_soon_is_stored_before_the_next_batch_is_taken() -> None:
    bed = Bed()
    await bed.add(2, row(NOW_MS + HURRY_MS - 1, "soon"))
    assert len(bed.rows.writes) == 1


@pytest.mark.parametrize(("name", "most"), [("ROWS_MAX", 4), ("BYTES_MAX", 6)])
async def test_no_more_gathers_than_may(name: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, name, most)
    bed = Bed()
    await bed.add(2, LATER)
    assert not bed.rows.writes
    await bed.add(3, LATER)
    assert len(bed.rows.writes) == 1


async def test_who_stores_waits_for_what_is_being_stored() -> None:
    bed = Bed()
    bed.rows.open.clear()
    await bed.add(2, LATER)
    first = asyncio.create_task(bed.gathering.store())
    await bed.turn()
    await bed.add(3, LATER)
    second = asyncio.create_task(bed.gathering.store())
    await bed.turn()
    bed.rows.open.set()
    await second
    assert first.done()
    assert bed.wheel.admitted == 3


async def test_what_follows_upon_a_run_is_stored_with_the_rest_before_the_run_is_done_with() -> None:
    bed = Bed()
    recurring = row(NOW_MS + 5, more=1)
    after = replace(following(recurring), emit_ms=NOW_MS + HURRY_MS)
    bed.transport.judge = lambda row, now_ms: Judged(True, following=after)  # type: ignore[method-assign]
    bed.wheel.add([recurring])
    bed.now_ms = recurring.emit_ms
    await bed.add(2, LATER)
    await bed.turn()
    await bed.acknowledge()
    assert not bed.rows.writes
    assert bed.wheel.cursor_ms == NOW_MS + 1, "a new owner would not find what follows"
    await bed.gathering.store()
    await bed.turn()
    assert bed.rows.writes[0][0] == [LATER, after]
    assert bed.wheel.cursor_ms == bed.now_ms + 1
    assert len(bed.wheel) == 2


async def test_what_follows_soon_is_stored_at_once() -> None:
    bed = Bed()
    await bed.gathering.save([row(NOW_MS + HURRY_MS - 1)])
    assert len(bed.rows.writes) == 1


async def test_what_was_emitted_early_leaves_the_account_together_with_its_submission() -> None:
    bed = Bed()
    await bed.add(2, LATE)
    await bed.turn()
    await bed.acknowledge()
    bed.wheel.add([row(NOW_MS + 5, "between")])
    bed.now_ms += 5
    await bed.turn()
    await bed.gathering.store()
    await bed.turn()
    assert bed.wheel.submissions == 1, "what lies between is not acknowledged"
    assert bed.wheel.ready == dict.fromkeys(Priority, 0)
    await bed.acknowledge()
    assert bed.wheel.submissions == 2
    assert bed.wheel.ready[Priority.NORMAL] == 2


async def test_what_is_stored_behind_something_that_was_given_up_is_not_satisfied() -> None:
    bed = Bed()
    bed.rows.open.clear()
    await bed.add(2, LATER)
    given_up = asyncio.create_task(bed.gathering.store())
    await bed.turn()
    await bed.add(3, row(NOW_MS + HURRY_MS, "behind"))
    given_up.cancel()
    bed.rows.open.set()
    await bed.gathering.store()
    await bed.turn()
    assert len(bed.rows.writes) == 1
    assert bed.wheel.submissions == bed.wheel.admitted == 1


async def test_what_could_not_be_stored_is_never_satisfied() -> None:
    bed = Bed()
    bed.rows.fails = True
    await bed.add(2, LATE)
    await bed.turn()
    with pytest.raises(OSError, match="gone"):
        await bed.gathering.store()
    await bed.acknowledge()
    assert bed.wheel.submissions == 1
    await bed.wheel.close(0)


async def test_who_waits_for_what_could_not_be_stored_waits_no_longer() -> None:
    bed = Bed()
    bed.rows.fails = True
    waiting = asyncio.create_task(bed.gathering.save([LATER]))
    await bed.turn()
    with pytest.raises(OSError, match="gone"):
        await bed.gathering.store()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
