"""A steady stream of submissions: `python -m tests.bench.stream --kafka ADDRESS --seed N --rate R --seconds S …`.

Open loop: when each job is submitted follows from seed and rate alone, and its acknowledgement is timed from that instant
on. So a platform that is slow for a moment is charged for all whom it kept waiting, and so is a submitter that comes late.
"""

import asyncio
import json
import random
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import click

from dueline import AsyncClient, Job, Once, Priority
from dueline.clock import from_ms
from dueline.errors import NotAccepted, Unavailable
from tests.bench.figures import percentiles
from tests.bench.made_jobs import distant, made_id, wall_ms
from tests.bench.meter import now_s

#: Longer than any stall that a round survives.
ACCEPTED_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is submitted when: the same for the same values."""

    seed: int
    rate: float
    seconds: float
    #: A job is due so long after its submission, with every time in between as likely.
    due_min_s: float
    due_max_s: float
    #: What each job does: it waits for so long, if at all.
    nap_s: float = 0.0

    def submissions(self, begun_ms: int) -> Iterator[tuple[float, Job]]:
        """Jobs, each with the seconds from the begin to its submission."""
        choose = random.Random(self.seed)
        executor_class, params = ("nap", {"seconds": self.nap_s}) if self.nap_s else ("noop", {})
        at_s = choose.expovariate(self.rate)
        while at_s < self.seconds:
            now_ms = begun_ms + round(at_s * 1000)
            due_ms = now_ms + round(choose.uniform(self.due_min_s, self.due_max_s) * 1000)
            yield (
                at_s,
                Job(
                    id=made_id(choose, now_ms),
                    executor_class=executor_class,
                    params=params,
                    priority=choose.choice(list(Priority)),
                    triggers=(Once(from_ms(due_ms)),),
                ),
            )
            at_s += choose.expovariate(self.rate)


class Stream:
    """Submits what is planned."""

    def __init__(self, client: AsyncClient, settle_s: float) -> None:
        self._client = client
        self._settle_s = settle_s
        self._latencies_ms: list[float] = []
        self._submitted = self._refused = 0

    async def run(self, plan: Plan, stop: asyncio.Event) -> None:
        """Until the plan is fulfilled, or `stop` is set."""
        begun_s, begun_ms = now_s(), wall_ms()
        async with asyncio.TaskGroup() as under_way:
            for at_s, job in plan.submissions(begun_ms):
                if (left_s := begun_s + at_s - now_s()) > 0:
                    await asyncio.sleep(left_s)
                if stop.is_set():
                    return
                under_way.create_task(self._submit(job, begun_s + at_s, counts=at_s >= self._settle_s))

    def told(self) -> str:
        ack_ms = percentiles(self._latencies_ms, 3)
        return json.dumps({"submitted": self._submitted, "refused": self._refused, "ack_ms": ack_ms})

    async def _submit(self, job: Job, planned_s: float, *, counts: bool) -> None:
        try:
            await self._client.submit_job(job, timeout=ACCEPTED_WITHIN_S)
        except (NotAccepted, Unavailable) as error:
            self._refused += 1
            if self._refused == 1:
                print(error, file=sys.stderr, flush=True)
            return
        self._submitted += 1
        if counts:
            self._latencies_ms.append((now_s() - planned_s) * 1000)


async def run(kafka: str, plan: Plan, settle_s: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with AsyncClient(kafka) as client:
        await client.submit_job(distant())
        stream = Stream(client, settle_s)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await stream.run(plan, stop)
        print(stream.told(), flush=True)
        await asyncio.to_thread(sys.stdin.read)


@click.command()
@click.option("--kafka", required=True, help="host:port")
@click.option("--seed", type=int, required=True)
@click.option("--rate", type=float, required=True, help="Jobs a second, on average.")
@click.option("--seconds", type=float, required=True, help="How long it goes on.")
@click.option("--settle", type=float, required=True, help="Acknowledgements count from here on.")
@click.option("--due-min", type=float, required=True, help="Seconds from a submission to its due time.")
@click.option("--due-max", type=float, required=True)
@click.option("--nap", type=float, default=0.0, help="Seconds that a job waits, instead of doing nothing.")
def main(kafka: str, settle: float, seed: int, rate: float, seconds: float, **plan: float) -> None:
    """Submit jobs steadily, one in three of each priority, until their time is over or SIGTERM comes."""
    due = {"due_min_s": plan["due_min"], "due_max_s": plan["due_max"], "nap_s": plan["nap"]}
    asyncio.run(run(kafka, Plan(seed=seed, rate=rate, seconds=seconds, **due), settle))


if __name__ == "__main__":
    main()
