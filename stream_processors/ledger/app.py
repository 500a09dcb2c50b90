"""The ledger's process."""

import logging
from typing import Any

from dueline.address import EXECUTORS, RUNS
from dueline.codec import decode_heartbeat
from dueline.errors import UndecodableRecord
from infra.cassandra import connect
from infra.kafka import Group
from infra.settings import Settings
from infra.store import Store
from stream_processors.ledger.recorder import Recorder
from stream_processors.partitions import PartitionedApp

log = logging.getLogger(__name__)


class Ledger(PartitionedApp):
    """A recorder for each assigned partition of `jobs.runs`, and the heartbeats of all processes."""

    #: Nothing but the views waits for it, and a write of fifty rows costs Cassandra little more than that of one.
    pace_s = 0.25

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "ledger", Group.LEDGERS, RUNS)
        self._store: Store
        # Not keyed by job and only of interest while it is new: Faust's own commits do.
        heartbeats = self.raw_topic(EXECUTORS, acks=True)
        self.app.agent(heartbeats, name="dueline.heartbeats")(self._record_heartbeats)

    async def open(self) -> None:
        self._store = Store(await connect(self.settings), self.settings.partitions)

    async def close(self) -> None:
        if hasattr(self, "_store"):  # it may never have connected
            await self._store.close()

    def worker(self, partition: int) -> Recorder:
        return Recorder(partition, self._store)

    async def _record_heartbeats(self, stream: Any) -> None:
        async for event in stream.events():
            try:
                beat = decode_heartbeat(event.message.value or b"")
            except UndecodableRecord as error:
                log.error("a foreign record on %s: %s", EXECUTORS, error, extra={"action": "foreign_record"})
                continue
            await self._store.save_heartbeat(event.message.offset, beat)
