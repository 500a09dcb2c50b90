"""The executor class of the campaigns: `act` does what its parameters say, and writes its own history meanwhile.

    history    the folder                                        seconds   how long it goes on
    ends       success, failure, crash, overrun                  bytes     how much it prints
    fails      how many executions fail before one that ends so  stubborn  ignores SIGTERM, and leaves a detached grandchild

It writes `start` and `end`, synced, and `alive` all the while. A grandchild writes `alive` too, for as long as it lives.
"""

import hashlib
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from dueline import Run, executor_class
from dueline.registry import Failed
from tests.chaos.history import EXECUTIONS, History, now_ns, wall_ms

ALIVE_INTERVAL_S = 0.01
#: A grandchild that nobody kills ends by itself: longer than anything that should.
GRANDCHILD_S = 60.0


@executor_class("act")
def act(run: Run) -> None:
    history = History(Path(str(run.params["history"])))
    execution = f"{os.uname().nodename}-{now_ns()}-{random.randrange(1 << 32)}"
    marks: dict[str, Any] = {"run": run.run_id, "attempt": run.attempt, "execution": execution}
    history.write(EXECUTIONS, "start", **marks, wall_ms=wall_ms())
    if run.params.get("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _leave_grandchild(history, marks)
    ends = str(run.params.get("ends", "success"))
    if _failures_so_far(history, run) < int(run.params.get("fails", 0)):
        ends = "failure"
    _go_on(history, marks, 1e9 if ends == "overrun" else float(run.params.get("seconds", 0)))
    if ends == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    text = _text(execution, int(run.params.get("bytes", 0)))
    print(text, end="", flush=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    if ends == "failure":
        _note_failure(history, run)
    history.write(EXECUTIONS, "end", **marks, outcome=ends, sha256=digest)
    if ends == "failure":
        raise Failed("as it was told to")


def _go_on(history: History, marks: dict[str, Any], seconds: float) -> None:
    until_s = time.monotonic() + seconds
    while (left_s := until_s - time.monotonic()) > 0:
        time.sleep(min(left_s, ALIVE_INTERVAL_S))
        history.write(EXECUTIONS, "alive", sync=False, **marks)


def _leave_grandchild(history: History, marks: dict[str, Any]) -> None:
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            _go_on(history, marks, GRANDCHILD_S)
        os._exit(0)
    os.waitpid(child, 0)


def _text(execution: str, length: int) -> str:
    """What no other execution prints."""
    line = f"{execution}\n"
    return line * max(1, length // len(line))


def _failures_so_far(history: History, run: Run) -> int:
    try:
        return _failures(history, run).stat().st_size
    except FileNotFoundError:
        return 0


def _note_failure(history: History, run: Run) -> None:
    with _failures(history, run).open("ab") as file:
        file.write(b"x")


def _failures(history: History, run: Run) -> Path:
    folder = history.folder / "failures"
    folder.mkdir(exist_ok=True)
    return folder / run.run_id.replace("/", "_")
