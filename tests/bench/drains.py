"""Drains a number of jobs that are due now: the work of `drain`, and the warm-up of every other benchmark."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.bench.figures import percentiles
from tests.bench.helper import Helper, helper
from tests.bench.session import Place, say


@contextmanager
def submitter(place: Place, plan: Mapping[str, Any], callers: int = 0) -> Iterator[Helper]:
    """A submitter that is connected, and waits for its sign."""
    arguments = ("--kafka", place.bed.settings.kafka, "--callers", callers, json.dumps(plan))
    with helper("tests.bench.submit", *arguments) as found:
        yield found


def drain(place: Place, plan: Mapping[str, Any], *, callers: int = 0) -> dict[str, Any]:
    """Submit jobs that are due now, in bulk or one by one; wait until all are recorded, and tell what it took."""
    jobs = plan["count"]
    since = place.log.ends()
    with submitter(place, plan, callers) as found:
        before = place.bed.usage(found.pid)
        found.go()
        told = found.told()
        finished = place.log.until_recorded(since, jobs)
        after = place.bed.usage(found.pid)
    took_s = finished.recorded_s - told["begun_s"]
    return {
        "jobs": jobs,
        "jobs_per_s": round(jobs / took_s, 1),
        "submitted_per_s": round(jobs / (told["ended_s"] - told["begun_s"]), 1),
        "ledger_behind_s": round(finished.recorded_s - finished.logged_s, 3),
        **({"ack_ms": told["ack_ms"]} if callers else {}),
        "lateness_ms": percentiles([attempt.lateness_ms for attempt in finished.firsts]),
        "repeated": len(finished.attempts) - len(finished.firsts),
        **after.cpu_since(before, jobs),
        "memory_mb": after.memory_mb,
    }


def warm_up(place: Place, jobs: int, seed: int) -> None:
    """Let the servers' compilers have seen the work: cold, they double its cost."""
    if jobs:
        say(f"warming up with {jobs:,} jobs")
        done = drain(place, {"make": "due_now", "seed": seed, "count": jobs})
        say(f"warm: {done['jobs_per_s']:,} jobs a second")
