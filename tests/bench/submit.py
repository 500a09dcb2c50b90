"""A submitter: `python -m tests.bench.submit --kafka ADDRESS --seed N --jobs N --callers N`.

It says `ready` when it is connected, and begins at a line on its standard input; then it tells what it saw as JSON. In
a process of its own, as users are, so that its CPU time can be told from the platform's.

Callers are threads with one client in common, each of which waits for the acknowledgement of a job before it submits its
next one. Without any, all jobs are handed over in bulk.
"""

import json
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import click

from dueline import Client, Job, Once
from tests.bench.figures import percentiles
from tests.bench.made_ids import made_id
from tests.bench.meter import now_s


def jobs_of(seed: int, count: int) -> Iterator[Job]:
    """Jobs that are due now; from the seed follow the shards that they belong to."""
    choose = random.Random(seed)
    for _ in range(count):
        yield Job(id=made_id(choose, time.time_ns() // 1_000_000), executor_class="noop")


def bulk(client: Client, seed: int, count: int) -> list[float]:
    client.submit_many(jobs_of(seed, count))
    return []


def one_by_one(client: Client, seed: int, count: int, callers: int) -> list[float]:
    """Acknowledgement latencies, in ms."""

    def call(number: int) -> list[float]:
        latencies_ms = []
        share = count // callers + (number < count % callers)
        for job in jobs_of(seed * callers + number, share):
            begun_s = time.perf_counter()
            client.submit_job(job)
            latencies_ms.append((time.perf_counter() - begun_s) * 1000)
        return latencies_ms

    with ThreadPoolExecutor(callers) as pool:
        return [latency for share in pool.map(call, range(callers)) for latency in share]


def distant_job() -> Job:
    """To open the connection with: it is not due while anybody measures."""
    return Job(executor_class="noop", triggers=(Once(datetime.now(UTC) + timedelta(days=365)),))


@click.command()
@click.option("--kafka", required=True, help="host:port")
@click.option("--seed", type=int, required=True)
@click.option("--jobs", type=int, required=True)
@click.option("--callers", type=int, required=True, help="0: all in bulk.")
def main(kafka: str, seed: int, jobs: int, callers: int) -> None:
    """Submit jobs that are due now."""
    with Client(kafka) as client:
        client.submit_job(distant_job())
        print("ready", flush=True)
        sys.stdin.readline()
        begun_s = now_s()
        latencies_ms = one_by_one(client, seed, jobs, callers) if callers else bulk(client, seed, jobs)
        told = {"begun_s": begun_s, "ended_s": now_s(), "ack_ms": percentiles(latencies_ms, 3)}
        print(json.dumps(told), flush=True)
        sys.stdin.read()  # what it used is asked for while it is still there


if __name__ == "__main__":
    main()
