"""The scheduler's process."""

from dueline.address import SUBMISSIONS
from infra.cassandra import connect
from infra.publisher import Placed
from infra.settings import Settings
from infra.store import Store
from stream_processors.partitions import PartitionedApp
from stream_processors.scheduler.broker_clock import BrokerClock
from stream_processors.scheduler.shard import Shard


class Scheduler(PartitionedApp):
    """A shard for each assigned partition of the submissions."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "scheduler", SUBMISSIONS)
        self._store: Store
        self._clock: BrokerClock

    async def open(self) -> None:
        self._store = Store(await connect(self.settings), self.settings.partitions)
        self._clock = BrokerClock()

    async def close(self) -> None:
        if hasattr(self, "_store"):  # it may never have connected
            await self._store.close()

    def worker(self, partition: int) -> Shard:
        return Shard(
            partition,
            owner=self.process_id,
            settings=self.settings,
            store=self._store,
            publisher=self.publisher,
            clock=self._clock,
            failed=self.fail,
        )

    def heard(self, placed: Placed) -> None:
        self._clock.heard(placed.timestamp_ms)
