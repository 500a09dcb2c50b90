"""What scenarios wait for: events in the history, and how far the platform is."""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from dueline.address import BUCKET_MS, SUBMISSIONS, minute_of
from dueline.errors import NotFound
from dueline.states import JobState
from infra.kafka import Group
from infra.views import Views, open_views
from stream_processors.scheduler.shard import READ_AHEAD_MS
from tests.chaos.checker.past import Execution, read
from tests.chaos.history import SUBMISSIONS as SUBMITTED
from tests.chaos.history import wall_ms
from tests.chaos.sabotage.stage import Stage
from tests.platform.conftest import wait_for

LIMIT_S = 60.0
#: So long before its begin every wheel that turns has read a minute.
SURELY_READ_AHEAD_MS = READ_AHEAD_MS - 4_000


def await_executions(stage: Stage, jobs: Collection[str], number: int, seconds: float = 0.0) -> None:
    """Return when each of the jobs has begun so often, and that execution has gone on for so long, or to its end."""

    def begun() -> bool:
        by_job = read(stage.history.folder).by_job()
        latest = [by_job.get(job, ())[number - 1 :] for job in jobs]
        return all(found and _has_gone_on(found[0], seconds) for found in latest)

    wait_for(begun, f"execution {number} of {len(jobs)} jobs", LIMIT_S)


def await_committed(stage: Stage, shards: Collection[int]) -> None:
    """Return when the schedulers have committed all submissions of the shards that are there."""
    places = [TopicPartition(SUBMISSIONS, shard) for shard in shards]
    consumer = Consumer({"bootstrap.servers": stage.settings.kafka, "group.id": Group.SCHEDULERS})
    try:
        ends = {place.partition: consumer.get_watermark_offsets(place, 10)[1] for place in places}
        wait_for(
            lambda: all(each.offset >= ends[each.partition] for each in consumer.committed(places, 10)),
            f"commits of shards {sorted(shards)}",
            LIMIT_S,
        )
    finally:
        consumer.close()


def await_owners(stage: Stage, role: str, *pids: int) -> Mapping[int, Sequence[int]]:
    """Return when these processes, and no others, own shards, as many each: which ones each has."""
    owned: dict[int, list[int]] = {}

    def all_owned() -> bool:
        owned.clear()
        for shard, owner in stage.cassandra.execute(_OWNERS[role]):
            # Its id has the pid before the last dash; that of none is empty.
            owned.setdefault(int(owner.split("-")[-2]) if owner else 0, []).append(shard)
        # One that takes shards over does so one after the other, and has them all when it has its share.
        share = stage.settings.partitions // len(pids)
        return owned.keys() == set(pids) and all(len(shards) >= share for shards in owned.values())

    wait_for(all_owned, f"shards of the {role}s {pids}", LIMIT_S)
    return owned


def await_read_ahead(seconds: float) -> int:
    """Return when the wheels have read the schedule for so long ahead; the time up to which they have, in ms of the epoch.

    They read whole minutes, each some seconds before it begins.
    """
    while (until_ms := _read_until_ms()) < wall_ms() + seconds * 1000:
        time.sleep((until_ms - SURELY_READ_AHEAD_MS - wall_ms()) / 1000)
    return until_ms


def _read_until_ms() -> int:
    return (minute_of(wall_ms() + SURELY_READ_AHEAD_MS) + 1) * BUCKET_MS


def await_cursors(stage: Stage, shards: Collection[int], until_ms: int, *, or_end_of: int = 0) -> None:
    """Return when the rows of these shards say that all before this time is emitted, or when a process is gone."""

    def passed() -> bool:
        rows = stage.cassandra.execute("SELECT shard, cursor_ms FROM shards")
        return all(cursor_ms > until_ms for shard, cursor_ms in rows if shard in shards)

    wait_for(
        lambda: passed() or (or_end_of > 0 and not is_there(or_end_of)),
        f"the cursors of {shards}",
        LIMIT_S,
    )


def is_there(pid: int) -> bool:
    """Whether a process has not ended."""
    return Path(f"/proc/{pid}").exists()


_OWNERS = {"scheduler": "SELECT shard, owner FROM shards", "executor": "SELECT shard, executor FROM owners"}


def await_settled(stage: Stage, but: Collection[str] = ()) -> None:
    """Return when the views show all jobs of the history as completed, but for these."""
    jobs = {line["job"] for line in stage.history.read(SUBMITTED)} - set(but)

    async def settled() -> bool:
        async with open_views(stage.settings) as views:
            return all(await asyncio.gather(*(_is_completed(views, job) for job in jobs)))

    wait_for(lambda: asyncio.run(settled()), f"the ends of {len(jobs)} jobs", LIMIT_S)


async def _is_completed(views: Views, job: str) -> bool:
    try:
        return (await views.job(job)).state is JobState.COMPLETED
    except NotFound:
        return False  # it is not accepted yet


def _has_gone_on(execution: Execution, seconds: float) -> bool:
    return execution.outcome is not None or execution.last_ns - execution.start_ns >= seconds * 1e9
