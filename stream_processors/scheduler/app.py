"""The scheduler's process."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import cast

from dueline.address import SUBMISSIONS
from infra.cassandra import connect
from infra.kafka import Group
from infra.publisher import Placed
from infra.settings import Settings
from infra.store import ShardRow, Store
from infra.views import Views
from stream_processors.partitions import PartitionedApp, report_failure
from stream_processors.scheduler.broker_clock import BrokerClock
from stream_processors.scheduler.calendars import KeptCalendars
from stream_processors.scheduler.shard import Shard, Turning
from stream_processors.scheduler.trimming import Trimming


class Scheduler(PartitionedApp):
    """A shard for each assigned partition of the submissions."""

    pace_s = 0.02  # what is due now waits for it

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "scheduler", Group.SCHEDULERS, SUBMISSIONS)
        self._store: Store
        self._clock: BrokerClock
        self._turning = Turning()
        self._loops: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        session = await connect(self.settings)
        self._store = Store(session, self.settings.partitions)
        self._clock = BrokerClock()
        self._views = Views(session, self.settings, self._clock)
        self._calendars = KeptCalendars(self._store)
        trimming = Trimming(self.settings, self._clock)
        for loop in (self._calendars.keep_fresh(), trimming.keep_trimmed(self._stored_rows)):
            self._loops.append(asyncio.create_task(loop))
            report_failure(self._loops[-1], self.fail)

    async def close(self) -> None:
        for loop in self._loops:
            loop.cancel()
        if hasattr(self, "_store"):  # it may never have connected
            await self._store.close()

    def worker(self, partition: int) -> Shard:
        return Shard(
            partition,
            owner=self.process_id,
            settings=self.settings,
            store=self._store,
            views=self._views,
            publisher=self.publisher,
            clock=self._clock,
            calendars=self._calendars,
            turning=self._turning,
            failed=self.fail,
        )

    def _stored_rows(self) -> Sequence[ShardRow]:
        shards = cast(Iterable[Shard], self.workers.values())
        return [shard.stored for shard in shards if shard.stored is not None]

    def heard(self, placed: Placed) -> None:
        self._clock.heard(placed.timestamp_ms)
