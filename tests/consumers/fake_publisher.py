"""A publisher that keeps what is sent."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from dueline.codec import decode_run_event
from dueline.runs import RunEvent
from infra.publisher import Placed, Record


class FakePublisher:
    def __init__(self) -> None:
        self.records: list[Record] = []
        self._sent = asyncio.Event()

    def publish(self, records: Iterable[Record]) -> "asyncio.Future[Sequence[Placed]]":
        sent = list(records)
        self.records += sent
        self._sent.set()
        future: asyncio.Future[Sequence[Placed]] = asyncio.get_running_loop().create_future()
        future.set_result([Placed(record.topic, record.partition, 0, 0) for record in sent])
        return future

    async def deliver(
        self, records: Sequence[Record], check: Callable[[], None] = lambda: None
    ) -> Sequence[Placed]:
        check()
        return await self.publish(records)

    async def sent(self, count: int) -> list[Record]:
        """What was sent, once it is so many records."""
        while len(self.records) < count:
            self._sent.clear()
            await self._sent.wait()
        return self.records

    @property
    def last_event(self) -> RunEvent:
        return decode_run_event(self.records[-1].value or b"")
