"""Executor classes for the tests of the slots: well-behaved ones, and one for each way to misbehave."""

import asyncio
import ctypes
import io
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from dueline import Failed, Run, executor_class
from dueline.clock import from_ms
from dueline.frames import pack_progress


@executor_class("noop")
def noop(run: Run) -> None:
    pass


@executor_class("tell")
def tell(run: Run) -> dict[str, Any]:
    print("to stdout, buffered", end="")
    os.system("echo from a child >&2")
    return {
        "run_id": run.run_id,
        "job_id": run.job_id,
        "attempt": run.attempt,
        "due": run.due.isoformat(),
        "params": dict(run.params),
        "timeout_s": run.timeout.total_seconds(),
        "time_left": (run.deadline - run.due).total_seconds() > 0,
        "name": run.name,
        "priority": run.priority,
        "folder": str(Path.cwd()),
        "children": Path("/proc/self/task").joinpath(str(os.getpid())).exists(),
    }


@executor_class("raise")
def raise_(run: Run) -> None:
    print("before")
    raise KeyError("no such thing")


@executor_class("foreseen")
def foreseen(run: Run) -> None:
    raise Failed("the shop is closed")


@executor_class("no-text")
def no_text(run: Run) -> None:
    raise FileNotFoundError("no file caf\udce9")


@executor_class("sys-exit")
def sys_exit(run: Run) -> None:
    sys.exit(0)


@executor_class("return")
def return_(run: Run) -> Any:
    return {
        "nan": float("nan"),
        "object": object(),
        "surrogate": "\udc80",
        "long": "x" * (2 << 20),
        "endless": (endless := [], endless.append(endless))[0],  # type: ignore[func-returns-value, var-annotated]
    }[run.params["what"]]


@executor_class("wish")
def wish(run: Run) -> None:
    """Fails, with what it wants to follow."""
    if "retry_at_ms" in run.params:
        raise Failed("later", retry_at=from_ms(run.params["retry_at_ms"]))
    raise Failed("never again", retry=False)


@executor_class("sleep")
def sleep(run: Run) -> None:
    print("sleeping")
    time.sleep(run.params.get("s", 100))


@executor_class("mark")
def mark(run: Run) -> None:
    """Writes down that it begins; takes its time, or waits for a file to be there, and dies or is sent a SIGTERM if it is to."""
    with Path(run.params["file"]).open("a") as file:
        print(run.job_id, file=file, flush=True)
    time.sleep(run.params.get("s", 0))
    while "until" in run.params and not Path(run.params["until"]).exists():
        time.sleep(0.001)
    if run.params.get("dies"):
        os._exit(3)
    if run.params.get("terminated"):
        os.kill(os.getpid(), signal.SIGTERM)


@executor_class("swallow")
def swallow(run: Run) -> str:
    try:
        time.sleep(100)
    except BaseException:
        return "as if nothing had happened"
    return "in time"


@executor_class("deaf")
def deaf(run: Run) -> None:
    while True:
        with suppress(BaseException):
            time.sleep(100)


@executor_class("die")
def die(run: Run) -> None:
    ways: dict[str, Callable[[], object]] = {
        "abort": os.abort,
        "exit": lambda: os._exit(3),
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
        "segfault": lambda: ctypes.string_at(0),
        "close everything": lambda: os.closerange(3, 1 << 16),
    }
    ways[run.params["how"]]()


@executor_class("babble")
def babble(run: Run) -> None:
    """Says to the executor what no slot would."""
    words = {
        "": b"\xff" * 12,
        "progress": pack_progress("{"),
        "progress without pause": pack_progress("") * 10,
    }
    for fd in range(3, 100):
        try:
            os.write(fd, words[run.params.get("what", "")])
        except OSError:
            continue
    time.sleep(100)


@executor_class("report")
def report(run: Run) -> Any:
    """Reports values, or just that it is alive, waits for a word from its test, and goes on as told."""
    for value in run.params.get("values", []):
        run.progress(value)
    if "values" not in run.params:
        run.heartbeat()
    if "wait_for" in run.params:
        Path(run.params["wait_for"]).read_bytes()
    if run.params.get("then") == "die":
        os._exit(1)
    if run.params.get("then") == "fail":
        raise Failed("half way")
    if run.params.get("then") == "report nonsense":
        run.progress(object())
    return run.last_progress


@executor_class("log")
def log(run: Run) -> None:
    run.log("fetched", pages=7, of="the archive", note='"')
    logging.getLogger("library").info("it has %d pages", 7)
    logging.getLogger("library").debug("of no interest")
    try:
        raise KeyError("gone")
    except KeyError:
        logging.exception("no page")


@executor_class("report-from-a-fork")
def report_from_a_fork(run: Run) -> int:
    if os.fork() == 0:
        try:
            run.progress(1)
        except RuntimeError:
            os._exit(7)
    return os.waitstatus_to_exitcode(os.wait()[1])


@executor_class("flood")
def flood(run: Run) -> None:
    chunk = b"x" * (1 << 20)
    for _ in range(run.params["mib"]):
        os.write(1, chunk)
    os.write(2, b"and stderr")


@executor_class("trickle")
def trickle(run: Run) -> None:
    for _ in range(300_000):
        os.write(1, b".")


@executor_class("close-stdout")
def close_stdout(run: Run) -> None:
    print("lost or not", flush=False)
    sys.stdout.close()
    os.close(1)
    sys.stderr = None
    os.close(2)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.chdir("/")


@executor_class("leave-behind")
def leave_behind(run: Run) -> None:
    """Leaves a process of the worst kind: its own session, forked twice, deaf to SIGTERM, holding stdout."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.execvp("sleep", ["sleep", run.params["marker"]])
        os._exit(0)
    os.wait()
    print("left", flush=True)
    if "tell" in run.params:
        Path(run.params["tell"]).touch()
    if run.params.get("then") == "die":
        os._exit(1)
    time.sleep(run.params.get("s", 0))


@executor_class("fork-and-return")
def fork_and_return(run: Run) -> str:
    return "child" if os.fork() == 0 else "parent"


@executor_class("async")
async def async_(run: Run) -> Any:
    """A coroutine function that does what its run says, with a task beside it that is left over."""
    left = asyncio.create_task(_leave_a_word())
    await asyncio.sleep(0)
    what = run.params.get("what")
    if what == "raise":
        raise KeyError("no such thing")
    if what == "fail":
        raise Failed("the shop is closed", retry=False)
    if what == "exit":
        sys.exit(0)
    if what == "await":
        await asyncio.sleep(100)
    if what == "await a thread":
        await asyncio.to_thread(time.sleep, 100)
    if what == "compute":
        _compute()
    if what == "compute beside":
        await asyncio.create_task(_compute_beside())
    if what == "swallow":
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(100)
    if what == "cancel":
        raise asyncio.CancelledError
    return {"loop": id(asyncio.get_running_loop()), "left": left.done()}


async def _leave_a_word() -> None:
    try:
        await asyncio.sleep(100)
    finally:
        print("cancelled")


def _compute() -> None:
    while True:
        time.sleep(0.01)


async def _compute_beside() -> None:
    _compute()


@executor_class("left-child")
async def left_child(run: Run) -> None:
    """Its loop has a thread that waits for the child which the slot kills."""
    await asyncio.create_subprocess_exec("sleep", "100")


@executor_class("detach")
def detach(run: Run) -> None:
    sys.stdout = io.TextIOWrapper(cast(io.TextIOWrapper, sys.stdout).detach())


@executor_class("fail-at-end")
def fail_at_end(run: Run) -> None:
    run.at_end.callback(os.rmdir, "/no/such/folder")


@executor_class("odd-signals")
def odd_signals(run: Run) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.setitimer(signal.ITIMER_REAL, 0.3)


@executor_class("remove-temporary")
def remove_temporary(run: Run) -> None:
    shutil.rmtree(tempfile.gettempdir())


@executor_class("fork-server")
def fork_server(run: Run) -> int | None:
    process = multiprocessing.get_context("forkserver").Process(target=os.getpid)
    process.start()
    process.join()
    return process.exitcode
