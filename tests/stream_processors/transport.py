"""A transport for wheels whose acknowledgements the test gives, in any order, and rows to send through it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from dueline.address import READY
from dueline.job import Priority
from dueline.runs import RunEvent, RunKey
from dueline.scheduling.judge import Judged
from dueline.scheduling.values import ScheduledRun
from infra.publisher import Placed

#: What follows upon a run of a job that recurs this often, in ms.
INTERVAL_MS = 7


def row(
    emit_ms: int,
    job: str = "job",
    *,
    submission: int = 0,
    attempt: int = 1,
    more: int = 0,
    priority: Priority = Priority.NORMAL,
) -> ScheduledRun:
    """A run of a job, upon which `more` others follow."""
    return ScheduledRun(
        emit_ms=emit_ms,
        run_id=f"{job}@{emit_ms}",
        attempt=attempt,
        priority=priority,
        submission=submission,
        run=b"",
        definition=str(more).encode() if more else None,
    )


def following(behind: ScheduledRun) -> ScheduledRun:
    """The row of the next run of a recurring job."""
    assert behind.definition is not None
    return row(
        behind.emit_ms + INTERVAL_MS,
        behind.run_id.partition("@")[0],
        submission=behind.submission,
        more=int(behind.definition) - 1,
        priority=behind.priority,
    )


@dataclass(slots=True, eq=False)
class Sending:
    """Rows that a wheel has sent."""

    rows: Sequence[ScheduledRun]
    future: "asyncio.Future[Sequence[Placed]]"
    placed: list[Placed] = field(default_factory=list)

    @property
    def keys(self) -> list[RunKey]:
        return [row.key for row in self.rows]


@dataclass(slots=True, eq=False)
class Saving:
    """Rows that a wheel wants to be durable."""

    rows: Sequence[ScheduledRun]
    future: "asyncio.Future[None]"


class Transport:
    """The ready topics of one shard and the way there. Nothing is appended or acknowledged unless a test says so."""

    def __init__(self) -> None:
        self.log: dict[Priority, list[RunKey]] = {priority: [] for priority in Priority}
        self.sent: list[Sending] = []
        self.saving: list[Saving] = []

    async def publish(
        self, rows: Sequence[ScheduledRun], events: Sequence[RunEvent] = ()
    ) -> Sequence[Placed]:
        if not rows:
            return ()
        sending = Sending(list(rows), asyncio.get_running_loop().create_future())
        self.sent.append(sending)
        return await sending.future

    def judge(self, row: ScheduledRun, now_ms: int) -> Judged:
        """All is emitted."""
        return Judged(True, following=following(row) if row.definition is not None else None)

    async def save(self, rows: Sequence[ScheduledRun]) -> None:
        saving = Saving(list(rows), asyncio.get_running_loop().create_future())
        self.saving.append(saving)
        await saving.future

    def append(self, sending: Sending) -> None:
        """The brokers have the records, and nobody knows it yet. Again: their acknowledgement was lost."""
        sending.placed.clear()
        for row in sending.rows:
            partition = self.log[row.priority]
            sending.placed.append(Placed(READY[row.priority], 0, len(partition), 0))
            partition.append(row.key)

    def acknowledge(self, sending: Sending) -> None:
        if not sending.placed:
            self.append(sending)
        self.sent.remove(sending)
        sending.future.set_result(sending.placed)

    def saved(self, saving: Saving) -> None:
        self.saving.remove(saving)
        saving.future.set_result(None)

    def emitted(self, ready: dict[Priority, int] | None = None) -> list[RunKey]:
        """What the log holds from these offsets on."""
        starts = ready or dict.fromkeys(Priority, 0)
        return [key for priority, keys in self.log.items() for key in keys[starts[priority] :]]
