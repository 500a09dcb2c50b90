"""Executor classes of the contract suite: performed in this process on a TestPlatform, in a slot on the platform."""

import sys
import time
from typing import Any

from dueline import Failed, Run, executor_class
from dueline.clock import from_ms

#: How a run takes its time. On a TestPlatform the clock is moved instead.
pause = time.sleep


@executor_class("contract-tell")
def tell(run: Run) -> dict[str, Any]:
    print("to stdout")
    print("to stderr", file=sys.stderr)
    return {"attempt": run.attempt, "due": run.due.isoformat(), "params": dict(run.params)}


@executor_class("contract-foreseen")
def foreseen(run: Run) -> None:
    retry_at = from_ms(run.params["retry_at_ms"]) if "retry_at_ms" in run.params else None
    raise Failed(f"attempt {run.attempt}", retry=run.params.get("retry", True), retry_at=retry_at)


@executor_class("contract-raise")
def raise_(run: Run) -> None:
    raise KeyError("no such thing")


@executor_class("contract-return")
def return_(run: Run) -> object:
    return object()


@executor_class("contract-overrun")
def overrun(run: Run) -> str:
    print("begun")
    pause(60)
    return "in time"
