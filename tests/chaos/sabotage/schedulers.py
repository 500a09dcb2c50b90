"""Mistakes in schedulers."""

import asyncio
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dueline.errors import OwnershipLost
from dueline.scheduling.values import ScheduledRun
from infra.store import ShardRow, Store
from stream_processors.partitions import PartitionedApp
from stream_processors.scheduler import shard
from tests.chaos.sabotage.mistake import Mistake, replace

WRITE_BEHIND_S = 5.0


def acknowledge_before_store() -> None:
    """Rows of the schedule are written behind: gathered for some seconds, since larger batches cost less.

    Their submissions count as satisfied at once, and are committed. If the scheduler dies before it has written the rows,
    nobody reads those submissions again, and nobody else has heard of their jobs.
    """
    writing = set[asyncio.Task[None]]()

    def change(save_rows: Callable[..., Any]) -> Callable[..., Any]:
        async def write_later(store: Store, number: int, rows: list[ScheduledRun]) -> None:
            await asyncio.sleep(WRITE_BEHIND_S)
            await save_rows(store, number, rows)

        async def write_behind(self: Store, number: int, rows: Iterable[ScheduledRun]) -> None:
            task = asyncio.create_task(write_later(self, number, list(rows)))
            writing.add(task)
            task.add_done_callback(writing.discard)

        return write_behind

    replace(Store, "save_rows", change)


def cursor_without_epoch() -> None:
    """The shard row is stored whoever owns it by now, as by an UPDATE without its IF.

    A scheduler that was stopped goes on with its wheel before it learns that its shards have passed on. That wheel has never
    heard of what was accepted since, so it moves the cursor to the present, and stores it: the next owner finds in the row
    that all before is emitted, and in Kafka that all was accepted.
    """

    def change(save_shard: Callable[..., Any]) -> Callable[..., Any]:
        async def save_whoever_owns_it(self: Store, row: ShardRow) -> None:
            present = await self.read_shard(row.shard)
            assert present is not None
            await save_shard(self, dataclasses.replace(row, epoch=present.epoch, owner=present.owner))

        return save_whoever_owns_it

    replace(Store, "save_shard", change)


def wheel_kept() -> None:
    """Workers live through a rebalance, so that the shards which stay, nearly all as a rule, go on without a pause.

    One that comes back takes the next epoch, and goes on with the wheel that it has, as if nobody had owned the shard in
    between. What others have accepted meanwhile is in no heap: the wheel passes over it, and its cursor too. Nor does it come
    by the way of a fetch that was faster than the news of the rebalance, since a worker without trust in its shard takes nothing.
    """

    def change_take(take: Callable[..., Any]) -> Callable[..., Any]:
        async def take_if_trusted(self: PartitionedApp, message: Any) -> bool:
            worker: Any = self.workers.get(message.partition)
            trusted = worker is None or worker._wheel is None or worker._may_emit()
            if not trusted and worker._stored_at_s:
                return True
            taken: bool = await take(self, message)
            return taken

        return take_if_trusted

    def change_revoked(_: object) -> Callable[..., Any]:
        async def commit_only(self: PartitionedApp, app: Any, revoked: Any, **_: Any) -> None:
            await self._commit_now()

        return commit_only

    def change_assigned(assign: Callable[..., Any]) -> Callable[..., Any]:
        async def resume_and_assign(self: PartitionedApp, app: Any, assigned: set[Any], **more: Any) -> None:
            kept = self.workers.keys() & {tp.partition for tp in assigned if tp.topic == self.topic}
            await asyncio.gather(*(resume(self.workers[partition]) for partition in kept))
            await assign(self, app, assigned, **more)

        return resume_and_assign

    async def resume(worker: Any) -> None:
        if worker._wheel is None:
            return  # it is still taking the shard over
        taken, _ = await worker._store.take_shard(worker.partition, worker._owner, worker._row)
        worker._row = dataclasses.replace(worker._row, epoch=taken.epoch)
        worker.next_offset = None  # the consumer begins where the group has committed

    replace(PartitionedApp, "_take", change_take)
    replace(PartitionedApp, "_revoked", change_revoked)
    replace(PartitionedApp, "_assigned", change_assigned)
    # Until the shard comes back, its wheel waits, with nothing stored.
    replace(shard, "PASSING", lambda passing: (*passing, OwnershipLost))


MISTAKES: Mapping[str, Mistake] = {
    "acknowledge-before-store": acknowledge_before_store,
    "cursor-without-epoch": cursor_without_epoch,
    "wheel-kept": wheel_kept,
}
