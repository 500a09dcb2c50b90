"""The jobs that benchmarks submit. What they are follows from a seed, down to the shards that they belong to.

They are made in the submitter's process, which is told what to make as JSON: `{"make": "due_now", "seed": 1, "count": 100}`.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from dueline import Cron, Every, Job, Once, Priority
from dueline.clock import from_ms

PRIORITIES = tuple(Priority)


def made_id(choose: random.Random, now_ms: int) -> str:
    """A UUIDv7 of that time."""
    bits = choose.getrandbits(74)
    return str(UUID(int=now_ms << 80 | 0x7 << 76 | (bits >> 62) << 64 | 0b10 << 62 | bits & (1 << 62) - 1))


def due_now(seed: int, count: int) -> Iterator[Job]:
    """Jobs that do nothing."""
    choose = random.Random(seed)
    for _ in range(count):
        yield Job(id=made_id(choose, wall_ms()), executor_class="noop")


def naps(seed: int, count: int, seconds: float) -> Iterator[Job]:
    """Jobs that are due now, and wait for so long."""
    choose = random.Random(seed)
    for _ in range(count):
        yield Job(id=made_id(choose, wall_ms()), executor_class="nap", params={"seconds": seconds})


def due_at(seed: int, count: int, due_ms: int) -> Iterator[Job]:
    """Jobs that are due at one instant, one in three of each priority."""
    choose = random.Random(seed)
    triggers = (Once(from_ms(due_ms)),)
    for number in range(count):
        priority = PRIORITIES[number % 3]
        job_id = made_id(choose, wall_ms())
        yield Job(id=job_id, executor_class="noop", priority=priority, triggers=triggers)


def waiting(seed: int, count: int, from_due_ms: int, span_ms: int, ordered: int = 0) -> Iterator[Job]:
    """Jobs that are due within a span of time, in no order or in that of their due times."""
    choose = random.Random(seed)
    for number in range(count):
        into_ms = span_ms * number // count if ordered else choose.randrange(span_ms)
        triggers = (Once(from_ms(from_due_ms + into_ms)),)
        yield Job(id=made_id(choose, wall_ms()), executor_class="noop", triggers=triggers)


def every(seed: int, first: int, count: int, of: int, start_ms: int, interval_s: int) -> Iterator[Job]:
    """Named jobs with the same interval, so that of all of them as many are due in each second of it."""
    interval = timedelta(seconds=interval_s)
    for number in range(first, first + count):
        start = from_ms(start_ms + interval_s * 1000 * number // of)
        yield Job(
            id=f"bench-{seed}-every-{number:08}",
            executor_class="noop",
            triggers=(Every(interval, start=start),),
        )


def cron(seed: int, first: int, count: int, interval_min: int, start_ms: int) -> Iterator[Job]:
    """Named jobs that are due every so many minutes by the clock, as many of them at each minute."""
    for number in range(first, first + count):
        trigger = Cron(f"{number % interval_min}-59/{interval_min} * * * *", start=from_ms(start_ms))
        yield Job(id=f"bench-{seed}-cron-{number:08}", executor_class="noop", triggers=(trigger,))


def distant() -> Job:
    """A job to open the connection with: it is not due while anybody measures."""
    return Job(executor_class="noop", triggers=(Once(datetime.now(UTC) + timedelta(days=365)),))


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


MAKERS: Mapping[str, Callable[..., Iterator[Job]]] = {
    maker.__name__: maker for maker in (due_now, naps, due_at, waiting, every, cron)
}


def jobs_of(plan: Mapping[str, Any]) -> Iterator[Job]:
    """The jobs of a plan."""
    arguments = dict(plan)
    return MAKERS[arguments.pop("make")](**arguments)
