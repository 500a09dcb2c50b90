"""What is told of the runs that go on."""

import asyncio
from dataclasses import replace

import pytest_asyncio

from consumers.backlog import Taken
from consumers.bulletin import STARTED_AFTER_S, Bulletin
from consumers.reporter import Reporter
from dueline.clock import ManualClock
from tests.consumers.ready_runs import taken


class FakeReporter(Reporter):
    """Tells it to the test."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[tuple[str, str | None, int]] = asyncio.Queue()

    def started(self, taken: Taken, started_ms: int) -> None:
        self.told.put_nowait((taken.run.job_id, None, started_ms))

    def reported(self, taken: Taken, started_ms: int, now_ms: int, progress: str) -> None:
        self.told.put_nowait((taken.run.job_id, progress, now_ms))


class Desk:
    def __init__(self) -> None:
        self.clock = ManualClock(1000)
        self.reporter = FakeReporter()
        self.bulletin = Bulletin(self.reporter, self.clock, progress_told_s=0.01)

    async def told(self) -> tuple[str, str | None, int]:
        return await asyncio.wait_for(self.reporter.told.get(), 10)


@pytest_asyncio.fixture
async def desk() -> Desk:
    return Desk()


def announced(job_id: str) -> Taken:
    return replace(taken(job_id), announced=True)


async def test_a_start_is_told_after_a_while_and_progress_not_before_it(desk: Desk) -> None:
    slow, told_before = taken("slow"), announced("told before")
    heard = desk.bulletin.begin(slow, 7)
    heard("1")
    desk.bulletin.begin(told_before, 7)("a")
    assert await desk.told() == ("told before", "a", 1000)
    heard("2")
    desk.clock.advance(round(STARTED_AFTER_S * 1000))
    assert await desk.told() == ("slow", None, 7)
    assert await desk.told() == ("slow", "2", 1250)


async def test_of_a_run_that_has_ended_nothing_is_told(desk: Desk) -> None:
    short, long = taken("short"), announced("long")
    desk.bulletin.begin(short, 7)("1")
    desk.bulletin.begin(long, 7)("")
    desk.bulletin.end(short)
    desk.clock.advance(1000)
    assert await desk.told() == ("long", "", 2000)
    again = announced("again")
    desk.bulletin.begin(again, 7)("1")
    assert await desk.told() == ("again", "1", 2000)


async def test_many_reports_are_told_once(desk: Desk) -> None:
    heard = desk.bulletin.begin(announced("eager"), 7)
    for number in range(100):
        heard(str(number))
    assert (await desk.told())[1] == "99"
    heard("100")
    assert (await desk.told())[1] == "100"
