"""Builds with a mistake in them: `python -m tests.chaos.sabotage MISTAKE MODULE [ARGUMENT …]` runs a module of the platform with it.

Each is one that somebody could have made, in a few lines, and each must be caught by the checker (`test_sabotage.py`): a
checker that finds nothing might just not look.
"""

import asyncio
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import consumers.claim
from consumers.backlog import Taken
from consumers.output_store import _Container
from consumers.performer import Performer
from consumers.slots import SlotPool
from dueline.errors import OwnershipLost
from infra.store import ScheduledRun, ShardRow, Store
from stream_processors.partitions import PartitionedApp

#: Rows that are written later are written so much later.
BEHIND_S = 2.0


def commit_before_output() -> None:
    """A ready record counts as finished when its run begins: what is killed meanwhile is never read again."""
    perform = Performer._perform

    async def _perform(self: Performer, taken: Taken) -> None:
        self._account.finish(taken.place, taken.offset)
        await perform(self, taken)

    _replace(Performer, "_perform", _perform)


def no_lease_wait() -> None:
    """A new owner begins at once, as if the group's session were always longer than the lease."""
    _replace(consumers.claim, "wait_s", lambda found: 0.0)


def no_guard() -> None:
    """Nothing kills the slots of an executor that can't do it itself."""

    async def leased(self: SlotPool, until_s: float) -> None:
        return

    _replace(SlotPool, "lease", lambda self, until_s: None)
    _replace(SlotPool, "leased", leased)


def acknowledge_before_store() -> None:
    """Rows are written behind, and their submissions count as satisfied meanwhile."""
    save_rows, behind = Store.save_rows, set[asyncio.Task[None]]()

    async def later(self: Store, shard: int, rows: Sequence[ScheduledRun]) -> None:
        await asyncio.sleep(BEHIND_S)
        await save_rows(self, shard, rows)

    async def save(self: Store, shard: int, rows: Sequence[ScheduledRun]) -> None:
        behind.add(asyncio.create_task(later(self, shard, list(rows))))

    _replace(Store, "save_rows", save)


def output_not_atomic() -> None:
    """The last bytes of an output are written with the next one, as a buffered file would."""
    append, kept = _Container._append, dict[int, bytes]()

    def _append(self: _Container, data: bytes) -> None:
        whole = kept.pop(id(self), b"") + data
        length = len(whole) - 10 if self._end else len(whole)  # the file's header is whole
        kept[id(self)] = whole[length:]
        end = self._end
        append(self, whole[:length])
        self._end = end + len(data)

    _replace(_Container, "_append", _append)


def cursor_without_epoch() -> None:
    """A shard's row is stored by whoever thinks that it is his."""
    save_shard = Store.save_shard

    async def save(self: Store, row: ShardRow) -> None:
        found = await self.read_shard(row.shard)
        await save_shard(self, replace(row, epoch=found.epoch, owner=found.owner) if found else row)

    _replace(Store, "save_shard", save)


def wheel_kept() -> None:
    """A wheel lives on through rebalances. Is its shard another's, it takes the epoch anew and goes on with what it has in memory."""
    save_shard = Store.save_shard

    async def save(self: Store, row: ShardRow) -> None:
        try:
            await save_shard(self, row)
        except OwnershipLost:
            found = await self.read_shard(row.shard)
            assert found is not None
            await save_shard(self, replace(row, epoch=found.epoch, owner=found.owner))

    async def revoked(self: PartitionedApp, app: Any, revoked: Any, **_: Any) -> None:
        await self._commit_now()
        for worker in self.workers.values():
            worker.next_offset = None

    _replace(Store, "save_shard", save)
    _replace(PartitionedApp, "_revoked", revoked)


MISTAKES: Mapping[str, Callable[[], None]] = {
    "commit-before-output": commit_before_output,
    "no-lease-wait": no_lease_wait,
    "no-guard": no_guard,
    "acknowledge-before-store": acknowledge_before_store,
    "output-not-atomic": output_not_atomic,
    "cursor-without-epoch": cursor_without_epoch,
    "wheel-kept": wheel_kept,
}


def _replace(owner: object, name: str, by: object) -> None:
    """What is not there can't be replaced: then the platform has changed, and the mistake has to be made anew."""
    if not hasattr(owner, name):
        raise AttributeError(f"{owner} has no {name}")
    setattr(owner, name, by)


def main(arguments: Sequence[str]) -> None:
    mistake, module, *rest = arguments
    MISTAKES[mistake]()
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
