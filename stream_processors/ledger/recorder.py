"""The worker of one partition of `jobs.runs`."""

import logging
from collections.abc import Sequence

from faust.types import Message

from dueline.clock import from_ms
from dueline.codec import decode_run_event
from dueline.errors import UndecodableRecord
from dueline.runs import RunEvent
from infra.store import Store
from stream_processors.partitions import Worker

log = logging.getLogger(__name__)


class Recorder(Worker):
    """Stores the events of one shard, in order."""

    def __init__(self, partition: int, store: Store) -> None:
        super().__init__(partition)
        self._store = store
        self._recorded: int | None = None

    async def prepare(self) -> None:
        """Nothing is to be taken over: what is recorded is in the store."""

    async def handle(self, batch: Sequence[Message]) -> None:
        events = [(message.offset, event) for message in batch if (event := _event(message)) is not None]
        await self._store.save_events(self.partition, events)
        self._recorded = batch[-1].offset + 1

    def committable(self) -> int | None:
        return self._recorded


def _event(message: Message) -> RunEvent | None:
    try:
        event = decode_run_event(message.value or b"")
        from_ms(event.due_ms)  # what is no date has no bucket either
        return event
    except (UndecodableRecord, ValueError, OverflowError) as error:
        # Only executors and schedulers write here; a foreign record must not stop the partition.
        place = (message.partition, message.offset)
        log.error("jobs.runs/%d/%d passed over: %s", *place, error, extra={"action": "foreign_record"})
        return None
