"""The clients of a TestPlatform: those of `dueline.client`, whose records go to a schedule in memory."""

from collections.abc import Callable, Sequence
from itertools import count

from dueline.client import AsyncClient, Client
from dueline.clock import Clock
from dueline.delivery import Batch, Delivery, Flow
from dueline.errors import Unavailable
from dueline.ids import IdGenerator, id_of_record

#: Takes the key and the value of a record of the submissions topic.
Receive = Callable[[str, bytes], None]


class Inbox(Delivery):
    """Stands in for Kafka: hands each record on at once, and acknowledges it."""

    def __init__(self, receive: Receive) -> None:
        # Not that of the base, which starts a producer.
        self.bootstrap = "a TestPlatform"
        self._receive = receive

    def until_topic_known(self, deadline: float) -> Flow:
        yield from ()

    def send(self, records: Sequence[tuple[str, bytes]], deadline: float) -> Flow:
        batch = Batch([job_id for job_id, _ in records])
        for job_id, value in records:
            self._receive(job_id, value)
        batch.acknowledged = bytearray(b"\1" * len(records))
        batch.settled.set_result(None)
        yield from ()
        return batch

    def why(self) -> str:
        return ""


class RepeatableIds(IdGenerator):
    """Makes ids that are the same whenever the test runs, however many for one instant."""

    def __init__(self) -> None:
        self._numbers = count()

    def next(self, now_ms: int) -> str:
        return id_of_record(now_ms, "dueline.testing", 0, next(self._numbers))


class _InMemory:
    """What the clients in memory share: the place where those of the platform connect to Kafka is theirs."""

    _closed: bool
    _ids: IdGenerator
    _inbox: Inbox
    _repeatable_ids: RepeatableIds

    def _connected(self) -> Delivery:
        if self._closed:
            raise Unavailable("this client is closed; make a new one")
        return self._inbox

    def _start_afresh(self) -> None:
        super()._start_afresh()  # type: ignore[misc]
        self._ids = self._repeatable_ids


class MemoryClient(_InMemory, Client):
    """A Client whose jobs are accepted by a schedule in memory before a call returns."""

    def __init__(self, receive: Receive, clock: Clock, ids: RepeatableIds) -> None:
        self._inbox, self._repeatable_ids = Inbox(receive), ids
        super().__init__("TestPlatform", clock=clock)


class MemoryAsyncClient(_InMemory, AsyncClient):
    """An AsyncClient like that."""

    def __init__(self, receive: Receive, clock: Clock, ids: RepeatableIds) -> None:
        self._inbox, self._repeatable_ids = Inbox(receive), ids
        super().__init__("TestPlatform", clock=clock)
