"""Workers handle what has gathered in order, and take turns."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from dueline.clock import ManualClock
from stream_processors import partitions
from stream_processors.partitions import BATCH_MAX, INBOX_BYTES_MAX, STUCK_AFTER_S, Worker


class Recording(Worker):
    """Notes its batches, and handles each for as long as it is told to."""

    def __init__(self, partition: int, under_way: set[int]) -> None:
        super().__init__(partition)
        self.batches: list[list[int]] = []
        self.go_on = asyncio.Event()
        self.begun, self.idle = asyncio.Event(), asyncio.Event()
        #: The partitions of which a batch is handled, over all workers.
        self._under_way = under_way

    async def prepare(self) -> None:
        pass

    async def handle(self, batch: Sequence[Any]) -> None:
        self.batches.append([message.offset for message in batch])
        self._under_way.add(self.partition)
        self.begun.set()
        await self.go_on.wait()
        self._under_way.remove(self.partition)
        if batch[-1].offset + 1 == self.next_offset:
            self.idle.set()

    def committable(self) -> int | None:
        return None


def message(offset: int, value: bytes = b"") -> Any:
    return SimpleNamespace(offset=offset, value=value)


def failed(error: BaseException) -> None:
    raise AssertionError from error


async def test_what_came_while_a_batch_was_handled_is_the_next_batch() -> None:
    worker = Recording(0, set())
    worker.start(asyncio.Semaphore(1), failed)
    await worker.offer(message(0))
    await worker.begun.wait()
    for offset in range(1, BATCH_MAX + 3):
        await worker.offer(message(offset))
    worker.go_on.set()
    await worker.idle.wait()
    assert [len(batch) for batch in worker.batches] == [1, BATCH_MAX, 2]
    assert [offset for batch in worker.batches for offset in batch] == list(range(BATCH_MAX + 3))
    await worker.stop()


async def one_of_two_begun(turns: asyncio.Semaphore, under_way: set[int]) -> tuple[Recording, Recording]:
    """Two workers, the first of which has the one turn there is."""
    first, second = (Recording(partition, under_way) for partition in (0, 1))
    for worker in (first, second):
        worker.start(turns, failed)
    await first.offer(message(0))
    await first.begun.wait()
    return first, second


async def test_a_worker_without_a_turn_gathers_until_it_has_one() -> None:
    turns = asyncio.Semaphore(1)
    first, second = await one_of_two_begun(turns, set())
    await second.offer(message(0))
    await asyncio.sleep(0)
    await second.offer(message(1))
    second.go_on.set()
    first.go_on.set()
    await second.idle.wait()
    assert second.batches == [[0, 1]]
    for worker in (first, second):
        await worker.stop()
    assert not turns.locked()


async def test_a_turn_that_does_not_end_holds_nobody_up_for_ever() -> None:
    turns, under_way = asyncio.Semaphore(1), set[int]()
    stuck, other = await one_of_two_begun(turns, under_way)
    other.go_on.set()
    await other.offer(message(0))
    await other.idle.wait()
    assert under_way == {0}
    assert turns.locked()
    await stuck.stop()
    await other.stop()
    assert not turns.locked()


async def test_a_worker_is_stuck_when_what_waits_has_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, long_ms = ManualClock(), round(STUCK_AFTER_S * 1000) + 1
    monkeypatch.setattr(partitions, "SystemClock", lambda: clock)
    worker = Recording(0, set())
    worker.start(asyncio.Semaphore(1), failed)
    await asyncio.sleep(0)
    clock.advance(long_ms)
    assert not worker.stuck()
    await worker.offer(message(0))
    assert not worker.stuck(), "it came after a long time without any"
    await worker.begun.wait()
    clock.advance(long_ms)
    await worker.offer(message(1))
    clock.advance(long_ms)
    assert worker.stuck()
    worker.go_on.set()
    await worker.idle.wait()
    assert not worker.stuck()
    await worker.stop()


async def test_no_more_gathers_than_fits_into_memory() -> None:
    worker = Recording(0, set())
    worker.start(asyncio.Semaphore(1), failed)
    large = bytes(INBOX_BYTES_MAX // 4)
    await worker.offer(message(0))
    await worker.begun.wait()
    for offset in range(1, 4):
        await worker.offer(message(offset, large))
    last = asyncio.create_task(worker.offer(message(4, large)))
    await asyncio.sleep(0)
    assert not last.done()
    worker.go_on.set()
    await worker.idle.wait()
    await last
    assert worker.batches == [[0], [1, 2, 3, 4]]
