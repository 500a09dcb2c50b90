"""A submitter: `python -m tests.bench.submit --kafka ADDRESS --callers N PLAN`, where tests.bench.made_jobs has the plans.

It says `ready` when it is connected, and begins at a line on its standard input; then it tells what it saw as JSON. In
a process of its own, as users are, so that its CPU time can be told from the platform's.

Callers are threads with one client in common, each of which waits for the acknowledgement of a job before it submits its
next one. Without any, all jobs are handed over in bulk.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import click

from dueline import Client, Job
from tests.bench.figures import percentiles
from tests.bench.made_jobs import distant, jobs_of
from tests.bench.meter import now_s

#: Of one call: its ids are kept until it returns.
BULK_MAX = 200_000


def bulk(client: Client, jobs: Iterator[Job]) -> list[float]:
    while client.submit_many(islice(jobs, BULK_MAX)):
        pass
    return []


def one_by_one(client: Client, plan: Mapping[str, Any], callers: int) -> list[float]:
    """Acknowledgement latencies, in ms."""

    def call(number: int) -> list[float]:
        share = plan["count"] // callers + (number < plan["count"] % callers)
        latencies_ms = []
        for job in jobs_of({**plan, "seed": plan["seed"] * callers + number, "count": share}):
            begun_s = time.perf_counter()
            client.submit_job(job)
            latencies_ms.append((time.perf_counter() - begun_s) * 1000)
        return latencies_ms

    with ThreadPoolExecutor(callers) as pool:
        return [latency for share in pool.map(call, range(callers)) for latency in share]


@click.command()
@click.option("--kafka", required=True, help="host:port")
@click.option("--callers", type=int, required=True, help="0: all in bulk.")
@click.argument("plan", type=json.loads)
def main(kafka: str, callers: int, plan: Mapping[str, Any]) -> None:
    """Submit the jobs of a plan."""
    with Client(kafka) as client:
        client.submit_job(distant())
        print("ready", flush=True)
        sys.stdin.readline()
        begun_s = now_s()
        latencies_ms = one_by_one(client, plan, callers) if callers else bulk(client, jobs_of(plan))
        told = {"begun_s": begun_s, "ended_s": now_s(), "ack_ms": percentiles(latencies_ms, 3)}
        print(json.dumps(told), flush=True)
        sys.stdin.read()  # what it used is asked for while it is still there


if __name__ == "__main__":
    main()
