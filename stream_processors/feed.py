"""A shorter way for messages through Faust: from its consumer to us, without channel, stream and event.

Faust hands each message over in two tasks and a wait for whichever ends first, so that it can give up one that is being handled
when the flow is suspended. That and the stream behind it cost more than all that we do with a message. Here a message is
handed over by a plain call, which waits only while a worker's inbox is full; a worker that is stopped lets go of it.

What has been fetched is taken no more often than once a pace, and a partition is fetched again only when what came of
it was taken. So under load there are fewer and fuller fetches, each of which costs the broker and us the same.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import faust
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer
from faust.types import Message

from dueline.clock import Pace

#: False: its partition has gone meanwhile, and with it all that was fetched.
Take = Callable[[Message], Awaitable[bool]]

#: Messages between two turns of the event loop.
YIELD_EVERY = 100


def feed(app: faust.App, topic: str, take: Take, pace_s: float) -> None:
    """Have the messages of a topic taken like this, with so much time between two takings. Other topics of the app go on as ever."""
    app.transport.Consumer = partial(_Consumer, topic, take, pace_s)  # type: ignore[assignment, misc]


class _Thread(AIOKafkaConsumerThread):
    """Reads what was committed: a submission whose transaction was given up was none."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer: Any = super()._create_worker_consumer(transport)
        # Faust asks for it together with transactions of its own alone. It is heeded when the consumer starts.
        consumer._isolation_level = "read_committed"
        return consumer


class _Consumer(Consumer):
    def __init__(self, topic: str, take: Take, pace_s: float, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._topic = topic
        self._take = take
        self._pace_s = pace_s

    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def _drain_messages(self, fetcher: Any) -> None:
        """As Faust's own, for what it needs here: no acknowledgements, so no gaps to tell of and no commits."""
        try:
            await self._drain(fetcher)
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise

    async def _drain(self, fetcher: Any) -> None:
        since_turn = 0
        pace = Pace(self._pace_s)
        while not (self._stopped.is_set() or fetcher._stopped.is_set()):
            async for partition, message in self.getmany(timeout=1.0):
                read = self._read_offset[partition]
                if read is not None and message.offset < read:
                    continue
                if partition.topic != self._topic:
                    await self.callback(message)
                elif not await self._take(message):
                    break  # and where the next owner's reading begins is not ours to say, which may be this process again
                self._read_offset[partition] = message.offset
                since_turn += 1
                if since_turn >= YIELD_EVERY:
                    since_turn = 0
                    await asyncio.sleep(0)
            await asyncio.sleep(pace.pause_s())
