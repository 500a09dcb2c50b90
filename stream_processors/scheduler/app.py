"""The scheduler's process."""

import asyncio

from dueline.address import SUBMISSIONS
from infra.cassandra import connect
from infra.publisher import Placed
from infra.settings import Settings
from infra.store import Store
from infra.views import Views
from stream_processors.partitions import PartitionedApp, report_failure
from stream_processors.scheduler.broker_clock import BrokerClock
from stream_processors.scheduler.calendars import KeptCalendars
from stream_processors.scheduler.shard import Shard, Turning


class Scheduler(PartitionedApp):
    """A shard for each assigned partition of the submissions."""

    pace_s = 0.02  # what is due now waits for it

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "scheduler", SUBMISSIONS)
        self._store: Store
        self._clock: BrokerClock
        self._turning = Turning()

    async def open(self) -> None:
        session = await connect(self.settings)
        self._store = Store(session, self.settings.partitions)
        self._clock = BrokerClock()
        self._views = Views(session, self.settings, self._clock)
        self._calendars = KeptCalendars(self._store)
        self._fresh = asyncio.create_task(self._calendars.keep_fresh())
        report_failure(self._fresh, self.fail)

    async def close(self) -> None:
        if hasattr(self, "_fresh"):
            self._fresh.cancel()
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

    def heard(self, placed: Placed) -> None:
        self._clock.heard(placed.timestamp_ms)
