"""The worker of one partition of `jobs.runs`."""

import logging
from collections.abc import Sequence

from faust.types import Message

from dueline.codec import decode_run_record, require_storable
from dueline.errors import UndecodableRecord
from dueline.runs import OwnerStarted, RunEvent, Succession
from infra.kafka import RECORD_LENGTH_MAX
from infra.store import Store, Told
from stream_processors.partitions import Worker

log = logging.getLogger(__name__)

INSTANTS = ("due_ms", "at_ms", "started_ms", "ended_ms", "retry_ms")


class Recorder(Worker):
    """Stores the events of one shard, in order."""

    def __init__(self, partition: int, store: Store) -> None:
        super().__init__(partition)
        self._store = store
        self._recorded: int | None = None

    async def prepare(self) -> None:
        """Learn who owns the shard: all before that owner's start is recorded, and comes again if at all."""
        self._succession = Succession(await self._store.owner_epoch(self.partition))

    async def handle(self, batch: Sequence[Message]) -> None:
        told: list[Told] = []
        owner: tuple[int, OwnerStarted] | None = None
        for message in batch:
            record = _storable(message)
            if record is None or not self._succession.admits(record):
                continue
            if isinstance(record, OwnerStarted):
                owner = (message.offset, record)
            else:
                told.append((message.offset, record, message.value or b""))
        await self._store.save_events(self.partition, told)
        if (
            owner is not None
        ):  # after the events before it, since those count no more for a ledger that has read it
            await self._store.save_owner(*owner)
        self._recorded = batch[-1].offset + 1

    def committable(self) -> int | None:
        return self._recorded


def _storable(message: Message) -> RunEvent | OwnerStarted | None:
    value = message.value or b""
    try:
        if len(value) > RECORD_LENGTH_MAX:
            raise UndecodableRecord(f"it has {len(value)} bytes, more than {RECORD_LENGTH_MAX}")
        record = decode_run_record(value)
        if isinstance(record, RunEvent):
            require_storable(
                record.job_id, record.attempt, {name: getattr(record, name) for name in INSTANTS}
            )
        elif record.shard != message.partition or not record.epoch:
            raise UndecodableRecord(f"no owner of this shard has started: {record}")
        return record
    except ValueError as error:  # as are all of the ways to be wrong
        # Only executors and schedulers write here; a foreign record must not stop the partition.
        place = (message.partition, message.offset)
        log.error("jobs.runs/%d/%d passed over: %s", *place, error, extra={"action": "foreign_record"})
        return None
