"""Writes jobs straight into the store: `python -m tests.bench.fill KIND --seed N --count N …`, with settings in the environment.

For benchmarks of what many stored jobs do to others: the rows are those that scheduler and ledger would have written, by
their own code, without the way through Kafka that takes them hours. It works like tests.bench.submit.

Kinds: `waiting`, jobs that are due within a span of time; `ended`, jobs of the days before, each of which has run.
"""

import asyncio
import json
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import click
import uvloop

from dueline.address import shard_of
from dueline.codec import encode_job, encode_run_event
from dueline.ids import generated_at_ms
from dueline.job import Job
from dueline.runs import RunEvent
from dueline.scheduling.rows import first_row
from dueline.scheduling.values import JobRow, ScheduledRun
from dueline.states import AttemptState
from infra.cassandra import connect
from infra.settings import load_settings
from infra.store import Store, Told
from tests.bench.made_jobs import made_id, waiting
from tests.bench.meter import now_s

#: Jobs that are made together: by time of their making or due time, so that they share partitions.
CHUNK = 8_000


@dataclass(slots=True)
class Rows:
    """What is written for some jobs of one shard."""

    jobs: list[JobRow] = field(default_factory=list)
    schedule: list[ScheduledRun] = field(default_factory=list)
    events: list[Told] = field(default_factory=list)


def add_waiting(rows: Rows, job: Job) -> None:
    """What the scheduler writes for a job that it accepts."""
    assert job.id is not None
    made_ms = generated_at_ms(job.id)
    job = job.anchored(made_ms)
    row = JobRow(job_id=job.id or "", version=0, accepted_ms=made_ms, definition=encode_job(job))
    first = first_row(row, job, made_ms, {})
    assert first is not None
    rows.jobs.append(row)
    rows.schedule.append(first)


def add_ended(rows: Rows, job: Job, state: AttemptState) -> None:
    """What is left of a job that was due at once and has run: its bucket of the schedule is deleted."""
    add_waiting(rows, job)
    run = rows.schedule.pop()
    due_ms = run.emit_ms
    event = RunEvent(
        job_id=rows.jobs[-1].job_id,
        due_ms=due_ms,
        attempt=1,
        version=0,
        state=state,
        at_ms=due_ms + 20,
        executor_class=job.executor_class,
        priority=job.priority,
        recurring=False,
        executor="executor-of-the-bench",
        epoch=1,
        started_ms=due_ms + 10,
        ended_ms=due_ms + 20,
        output=f"bench/{due_ms}",
    )
    rows.events.append((0, event, encode_run_event(event)))


async def write(store: Store, chunk: dict[int, Rows]) -> None:
    await asyncio.gather(
        *(store.save_rows(shard, rows.schedule) for shard, rows in chunk.items() if rows.schedule),
        *(store.save_jobs(shard, rows.jobs) for shard, rows in chunk.items()),
        *(store.save_events(shard, rows.events) for shard, rows in chunk.items() if rows.events),
    )


async def fill(jobs: Iterator[Job], add: Callable[[Rows, Job], None]) -> None:
    settings = load_settings()
    store = Store(await connect(settings), settings.partitions)
    under_way: asyncio.Task[None] | None = None
    while part := list(islice(jobs, CHUNK)):
        chunk: defaultdict[int, Rows] = defaultdict(Rows)
        for job in part:
            add(chunk[shard_of(job.id or "", settings.partitions)], job)
        if under_way is not None:
            await under_way
        under_way = asyncio.create_task(write(store, chunk))
        await asyncio.sleep(0)
    if under_way is not None:
        await under_way
    await store.close()


def made_over(seed: int, count: int, from_ms: int, span_ms: int) -> Iterator[Job]:
    """Jobs that were made, and due, over a span of time."""
    choose = random.Random(seed)
    for number in range(count):
        yield Job(id=made_id(choose, from_ms + span_ms * number // count), executor_class="noop")


def ends_of(seed: int, failed: float) -> Callable[[Rows, Job], None]:
    """Some of the jobs fail."""
    choose = random.Random(-seed)

    def add(rows: Rows, job: Job) -> None:
        add_ended(rows, job, AttemptState.FAILED if choose.random() < failed else AttemptState.SUCCEEDED)

    return add


@click.command()
@click.argument("kind", type=click.Choice(["waiting", "ended"]))
@click.option("--seed", type=int, required=True)
@click.option("--count", type=int, required=True)
@click.option("--from-ms", type=int, required=True, help="Begin of the span.")
@click.option("--span-ms", type=int, required=True)
@click.option("--failed", type=float, default=0.0, help="The share of those that have failed.")
def main(kind: str, seed: int, count: int, from_ms: int, span_ms: int, failed: float) -> None:
    """Store jobs."""
    print("ready", flush=True)
    sys.stdin.readline()
    begun_s = now_s()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    if kind == "waiting":
        asyncio.run(fill(waiting(seed, count, from_ms, span_ms, ordered=1), add_waiting))
    else:
        asyncio.run(fill(made_over(seed, count, from_ms, span_ms), ends_of(seed, failed)))
    print(json.dumps({"begun_s": begun_s, "ended_s": now_s()}), flush=True)


if __name__ == "__main__":
    main()
