"""The executor classes of the benchmarks, loaded by `python -m consumers --import tests.bench.jobs`."""

import time

from dueline import Run, executor_class


@executor_class("noop")
def noop(run: Run) -> None:
    """Nothing: what is left is what the platform itself costs."""


@executor_class("nap")
def nap(run: Run) -> None:
    """Waits, as a job does that calls another service."""
    time.sleep(run.params["seconds"])
