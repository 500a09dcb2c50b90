"""An executor class for tests: it writes down each of its executions, so that a test need not believe the platform."""

import os
import signal
import time

from dueline import Failed, Run, executor_class
from dueline.clock import from_ms


@executor_class("record")
def record(run: Run) -> dict[str, object]:
    """Append start and end to the file that `history` names, synced, by a clock that all processes share."""
    history = str(run.params["history"])
    _append(history, f"start {run.run_id} {run.attempt} {_now_ns()}")
    time.sleep(float(run.params.get("seconds", 0)))
    print(f"ran {run.run_id}")
    _append(history, f"end {run.run_id} {run.attempt} {_now_ns()}")
    return {"number": run.params["number"]}


@executor_class("pulse")
def pulse(run: Run) -> None:
    """Append a line every few milliseconds from start to end, so that an execution that is killed shows until when it went on."""
    file = os.open(str(run.params["history"]), os.O_WRONLY | os.O_APPEND)
    # All slots have the same pid, each in a namespace of its own, and two may begin in one nanosecond of a coarse clock.
    execution = f"{run.run_id} {run.attempt} {os.urandom(8).hex()}"
    os.write(file, f"start {execution} {_now_ns()}\n".encode())
    end_ns = _now_ns() + round(run.params["seconds"] * 1e9)
    while _now_ns() < end_ns:
        os.write(file, f"alive {execution} {_now_ns()}\n".encode())
        time.sleep(0.005)
    os.write(file, f"end {execution} {_now_ns()}\n".encode())
    os.close(file)


@executor_class("crash")
def crash(run: Run) -> None:
    """Die by itself."""
    os.kill(os.getpid(), signal.SIGKILL)


@executor_class("wish")
def wish(run: Run) -> None:
    """Want the second attempt at a time, and no third."""
    if run.attempt == 1:
        raise Failed("later", retry_at=from_ms(run.params["retry_at_ms"]))
    raise Failed("never again", retry=False)


def _append(path: str, line: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{line}\n".encode())
    os.fsync(file)
    os.close(file)


def _now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
