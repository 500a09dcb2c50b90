"""The load of a campaign: `python -m tests.chaos.load --history FOLDER --kafka ADDRESS --seed N --rate R`, until SIGTERM.

Open loop: when each job is submitted follows from seed and rate alone. A submission that waits, because Kafka is away, makes
none of those behind it wait.
"""

import asyncio
import contextlib
import random
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from dueline import AsyncClient, Every, Job, Missed, Once, Priority, Retry
from dueline.clock import from_ms, to_ms
from dueline.errors import NotAccepted, Unavailable
from dueline.ids import IdGenerator
from tests.chaos.history import SUBMISSIONS, History, now_ns, wall_ms

#: Longer than an outage of Kafka in a campaign, as a rule.
ACCEPTED_WITHIN_S = 60.0
#: One job in three waits for its due time, up to so long.
DUE_IN_MAX_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of job: how often it comes, and what becomes of each of its runs if the platform does its work."""

    weight: int
    params: Mapping[str, Any] = field(default_factory=dict)
    #: Bounds of the time that it goes on.
    seconds: tuple[float, float] = (0.0, 0.0)
    retry: Retry = field(default_factory=Retry)
    timeout_s: float = 60.0
    recurring: bool = False
    #: The state in which the views have to show its runs in the end.
    expects: str = "SUCCEEDED"


SOON = Retry(max_attempts=3, backoff_s=0.5)
KINDS: Mapping[str, Kind] = {
    "quick": Kind(weight=45),
    "pulse": Kind(weight=25, seconds=(0.05, 1.5)),
    "long": Kind(weight=4, seconds=(3.0, 10.0)),
    "wordy": Kind(weight=6, params={"bytes": 200_000}),
    "flaky": Kind(weight=6, params={"fails": 2}, retry=SOON),
    "failing": Kind(weight=3, params={"ends": "failure"}, retry=Retry(max_attempts=2), expects="FAILED"),
    "overrunning": Kind(weight=2, params={"ends": "overrun"}, timeout_s=1.0, expects="TIMED_OUT"),
    "crashing": Kind(weight=2, params={"ends": "crash"}, retry=SOON, expects="CRASHED"),
    "stubborn": Kind(weight=3, params={"stubborn": True}, seconds=(0.5, 3.0)),
    "recurring": Kind(weight=4, seconds=(0.0, 0.3), recurring=True),
}


class Load:
    """Makes jobs from a seed."""

    def __init__(self, history: History, seed: int) -> None:
        self._history = history
        self._random = random.Random(seed)
        self._ids = IdGenerator()
        self._seed = seed
        self._made = 0

    def next(self) -> tuple[str, Job]:
        """A job that is due soon, with its kind."""
        choose = self._random
        kind_name = choose.choices(list(KINDS), [kind.weight for kind in KINDS.values()])[0]
        kind = KINDS[kind_name]
        self._made += 1
        now_ms = wall_ms()
        in_ms = round(choose.choice((0, 0, 1)) * choose.uniform(0, DUE_IN_MAX_S) * 1000)
        params: dict[str, Any] = {
            "history": str(self._history.folder),
            "seconds": choose.uniform(*kind.seconds),
        }
        job = Job(
            id=self._ids.next(now_ms),
            executor_class="act",
            params=params | dict(kind.params),
            priority=choose.choice(list(Priority)),
            retry=kind.retry,
            timeout_s=kind.timeout_s,
            triggers=(Once(from_ms(now_ms + in_ms)),),
        )
        if not kind.recurring:
            return kind_name, job
        every_ms, times = choose.randrange(1000, 4000, 100), choose.randrange(2, 6)
        start = from_ms(now_ms + 5000 + in_ms)  # late enough to be accepted before, unless Kafka is away
        end = start + timedelta(milliseconds=every_ms * (times - 1))
        trigger = Every(timedelta(milliseconds=every_ms), start=start, end=end)
        return kind_name, Job(
            id=f"chaos-{self._seed}-{to_ms(start)}-{self._made}",
            executor_class="act",
            params=params,
            priority=job.priority,
            timeout_s=kind.timeout_s,
            triggers=(trigger,),
            missed=Missed.ALL,  # so that each due time is to be run
        )


async def submit(client: AsyncClient, history: History, kind: str, job: Job) -> None:
    """Submit a job, and write down what is known of it before and after."""
    expects = KINDS[kind].expects
    history.write(
        SUBMISSIONS,
        "submitting",
        job=job.id,
        kind=kind,
        expects=expects,
        max_attempts=job.retry.max_attempts,
        wall_ms=wall_ms(),
        **times_of(job),
    )
    begun_ns = now_ns()
    try:
        await client.submit_job(job, timeout=ACCEPTED_WITHIN_S)
    except (NotAccepted, Unavailable) as error:  # Kafka is away: neither makes those behind it wait
        history.write(SUBMISSIONS, "unknown", job=job.id, why=str(error))
        return
    took_ms = (now_ns() - begun_ns) / 1e6
    history.write(SUBMISSIONS, "acknowledged", job=job.id, wall_ms=wall_ms(), took_ms=took_ms)


def times_of(job: Job) -> dict[str, Any]:
    """When it is due, in plain numbers: `first_ms`, and for a recurring one `every_ms` and `last_ms`."""
    (trigger,) = job.triggers
    if isinstance(trigger, Once):
        return {"first_ms": to_ms(trigger.at)}
    assert isinstance(trigger, Every)
    assert trigger.start is not None
    assert trigger.end is not None
    every_ms = round(trigger.interval.total_seconds() * 1000)
    return {"first_ms": to_ms(trigger.start), "every_ms": every_ms, "last_ms": to_ms(trigger.end)}


async def run(history: History, kafka: str, seed: int, rate: float) -> None:
    """Submit until SIGTERM, then wait for the acknowledgements that are still missing."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    load, pauses = Load(history, seed), random.Random(seed)
    next_s = asyncio.get_running_loop().time()
    async with AsyncClient(kafka) as client, asyncio.TaskGroup() as under_way:
        while not stop.is_set():
            under_way.create_task(submit(client, history, *load.next()))
            next_s += pauses.expovariate(rate)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), max(0.0, next_s - asyncio.get_running_loop().time()))


@click.command()
@click.option("--history", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--kafka", required=True, help="host:port")
@click.option("--seed", type=int, required=True)
@click.option("--rate", type=float, required=True, help="Jobs a second.")
def main(history: Path, kafka: str, seed: int, rate: float) -> None:
    """Submit jobs of all kinds until SIGTERM."""
    asyncio.run(run(History(history), kafka, seed, rate))


if __name__ == "__main__":
    main()
