"""Lets what plain submissions ask for, and what follows upon runs of recurring jobs, gather, so that it is stored in fewer and
fuller writes.

A write of fifty rows costs Cassandra little more than that of one, and nobody waits for the row of a job or for one of the
schedule that is due later. What is late already is emitted meanwhile, and stays in the wheel's account until its job is stored too;
so does a run until the next of its job is.

The first after a pause is stored at once, so a lone job is seen at once. Under load writes begin `PACE_S` apart.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dueline.clock import Clock, Pace
from dueline.scheduling.values import JobRow, ScheduledRun
from infra.store import Store
from stream_processors.scheduler.acceptance import Asked
from stream_processors.scheduler.wheel import Wheel

#: Between the begins of two writes: at a hundred submissions a second and shard, twenty to a write.
PACE_S = 0.2
#: What is due sooner than this is stored at once, so that it is in the heap in time.
HURRY_MS = 500
#: No more gathers than this: rows, and bytes of definitions.
ROWS_MAX, BYTES_MAX = 1_000, 4_000_000


@dataclass(slots=True, eq=False)
class _Gathered:
    """What is to be stored together."""

    #: Done when all of it is durable.
    stored: asyncio.Future[None]
    rows: list[ScheduledRun] = field(default_factory=list)
    jobs: list[JobRow] = field(default_factory=list)
    #: What follows upon runs: the wheel asked for it, and knows what to do with it.
    following: list[ScheduledRun] = field(default_factory=list)
    size: int = 0
    #: The submissions offset that holds then; 0 if none of it was submitted.
    end: int = 0

    @property
    def is_much(self) -> bool:
        count = len(self.rows) + len(self.jobs) + len(self.following)
        return count >= ROWS_MAX or self.size >= BYTES_MAX


class Gathering:
    """What one shard is to store and has not stored yet."""

    def __init__(self, shard: int, store: Store, wheel: Wheel, clock: Clock) -> None:
        self._shard = shard
        self._store = store
        self._wheel = wheel
        self._clock = clock
        self._pace = Pace(PACE_S)
        self._gathered = _nothing()
        self._some = asyncio.Event()
        #: One write at a time: the offsets that follow on them are in order.
        self._storing = asyncio.Lock()
        #: What was given up, or failed, will be read again by the next owner; and so all behind it.
        self._broken = False

    async def add(self, asked: Asked) -> None:
        """Take in what plain submissions ask for. Returns at once, but if much has gathered or some of it is due soon."""
        late = [row for row in asked.rows if self._wheel.is_late(row)]
        later = [row for row in asked.rows if not self._wheel.is_late(row)]
        gathered = self._gathered
        self._wheel.admit_early(late, gathered)
        gathered.rows += later
        gathered.jobs += asked.jobs
        gathered.end = asked.end
        await self._grown(gathered, asked.jobs, later)

    async def save(self, following: Sequence[ScheduledRun]) -> None:
        """Make rows durable that follow upon runs. Returns when they are."""
        gathered = self._gathered
        gathered.following += following
        await self._grown(gathered, following, following)
        await asyncio.shield(gathered.stored)

    async def keep_stored(self) -> None:
        """Store what gathers, for ever."""
        while True:
            await self._some.wait()
            await asyncio.sleep(self._pace.pause_s())
            await self.store()

    async def store(self) -> None:
        """Return when all that was added before is durable and in the wheel's hands."""
        async with self._storing:
            gathered, self._gathered = self._gathered, _nothing()
            self._some.clear()
            try:
                await self._store.save_rows(self._shard, gathered.rows + gathered.following)
                await self._store.save_jobs(self._shard, gathered.jobs)
            except BaseException:
                self._broken = True
                gathered.stored.cancel()
                raise
            gathered.stored.set_result(None)
            if gathered.end and not self._broken:
                self._wheel.admit(gathered.rows, gathered.end, gathered)

    async def _grown(
        self, gathered: _Gathered, defined: Iterable[JobRow | ScheduledRun], rows: Iterable[ScheduledRun]
    ) -> None:
        """Store what has gathered if it is much now, or some of these rows are due soon; else it is stored in its time."""
        gathered.size += sum(len(each.definition or b"") for each in defined)
        self._some.set()
        soon_ms = self._clock.now_ms() + HURRY_MS
        if gathered.is_much or any(row.emit_ms < soon_ms for row in rows):
            await self.store()


def _nothing() -> _Gathered:
    return _Gathered(asyncio.get_running_loop().create_future())
