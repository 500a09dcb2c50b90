"""Lets what plain submissions ask for gather, so that it is stored in fewer and fuller writes.

A write of fifty rows costs Cassandra little more than that of one, and nobody waits for the row of a job or for one of the
schedule that is due later. What is late already is emitted meanwhile, and stays in the wheel's account until its job is stored too.

The first after a pause is stored at once, so a lone job is seen at once. Under load writes begin `PACE_S` apart.
"""

import asyncio
from dataclasses import dataclass, field

from dueline.clock import Pace
from dueline.scheduling.values import JobRow, ScheduledRun
from infra.store import Store
from stream_processors.scheduler.acceptance import Asked
from stream_processors.scheduler.wheel import Wheel

#: Between the begins of two writes: at a hundred submissions a second and shard, twenty to a write.
PACE_S = 0.2
#: What is due sooner than this is stored at once, so that it is in the heap in time.
HURRY_MS = 1_000
#: No more gathers than this: rows, and bytes of definitions.
ROWS_MAX, BYTES_MAX = 1_000, 4_000_000


@dataclass(slots=True)
class _Gathered:
    """What is to be stored together."""

    #: What was emitted of it waits for this: see `Wheel.admit_early`.
    early: asyncio.Future[None]
    rows: list[ScheduledRun] = field(default_factory=list)
    jobs: list[JobRow] = field(default_factory=list)
    size: int = 0
    #: The submissions offset that holds then; 0 if nothing has gathered.
    end: int = 0


class Gathering:
    """What one shard has accepted and not yet stored."""

    def __init__(self, shard: int, store: Store, wheel: Wheel) -> None:
        self._shard = shard
        self._store = store
        self._wheel = wheel
        self._pace = Pace(PACE_S)
        self._gathered = _nothing()
        self._some = asyncio.Event()
        #: One write at a time: the offsets that follow on them are in order.
        self._storing = asyncio.Lock()

    async def add(self, asked: Asked, now_ms: int) -> None:
        """Take in what plain submissions ask for. Returns at once, but if much has gathered or some of it is due soon."""
        late = [row for row in asked.rows if self._wheel.is_late(row)]
        later = [row for row in asked.rows if not self._wheel.is_late(row)]
        gathered = self._gathered
        self._wheel.admit_early(late, gathered.early)
        gathered.rows += later
        gathered.jobs += asked.jobs
        gathered.size += sum(len(job.definition or b"") for job in asked.jobs)
        gathered.end = asked.end
        self._some.set()
        is_much = len(gathered.rows) + len(gathered.jobs) >= ROWS_MAX or gathered.size >= BYTES_MAX
        if is_much or any(row.emit_ms < now_ms + HURRY_MS for row in later):
            await self.store()

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
            if not gathered.end:
                return
            try:
                await self._store.save_rows(self._shard, gathered.rows)
                await self._store.save_jobs(self._shard, gathered.jobs)
            except BaseException:
                gathered.early.cancel()  # it is read again, by the next owner
                raise
            self._wheel.admit(gathered.rows, gathered.end, gathered.early)


def _nothing() -> _Gathered:
    return _Gathered(asyncio.get_running_loop().create_future())
