"""Drains a number of jobs that are due now: the work of `drain`, and the warm-up of every other benchmark."""

from typing import Any

from tests.bench.figures import percentiles
from tests.bench.helper import helper
from tests.bench.session import Place, say


def drain(place: Place, *, jobs: int, seed: int, callers: int = 0) -> dict[str, Any]:
    """Submit them, in bulk or one by one by some callers; wait until all are recorded, and tell what it took."""
    since = place.log.ends()
    arguments = ("--kafka", place.bed.settings.kafka, "--seed", seed, "--jobs", jobs, "--callers", callers)
    with helper("tests.bench.submit", *arguments) as submitter:
        before = place.bed.usage(submitter.pid)
        submitter.go()
        told = submitter.told()
        finished = place.log.until_recorded(since, jobs)
        after = place.bed.usage(submitter.pid)
    took_s = finished.recorded_s - told["begun_s"]
    lateness_ms = percentiles([attempt.lateness_ms for attempt in finished.firsts])
    return {
        "jobs": jobs,
        "jobs_per_s": round(jobs / took_s, 1),
        "submitted_per_s": round(jobs / (told["ended_s"] - told["begun_s"]), 1),
        "ledger_behind_s": round(finished.recorded_s - finished.logged_s, 3),
        **({"ack_ms": told["ack_ms"]} if callers else {}),
        "lateness_ms": lateness_ms,
        "repeated": len(finished.attempts) - len(finished.firsts),
        **after.cpu_since(before, jobs),
        "memory_mb": after.memory_mb,
    }


def warm_up(place: Place, *, jobs: int, seed: int) -> None:
    """Let the servers' compilers have seen the work: cold, they double its cost."""
    if jobs:
        say(f"warming up with {jobs:,} jobs")
        done = drain(place, jobs=jobs, seed=seed)
        say(f"warm: {done['jobs_per_s']:,} jobs a second")
