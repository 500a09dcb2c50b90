"""A process that hangs is ended, and one that was merely stopped is not."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

HUNG = """
import asyncio, os, sys, time
from infra import watchdog

watchdog.TICK_S, watchdog.TICKS_MAX = 0.05, 4

def failed(error):
    print(error, flush=True)
    os._exit(70)

async def main():
    watchdog.watch(asyncio.get_running_loop(), failed)
    await asyncio.sleep(0.3)
    print("going on", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    print("hanging", flush=True)
    time.sleep(60)

asyncio.run(main())
"""


@contextmanager
def process() -> Iterator["subprocess.Popen[str]"]:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", HUNG], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as hung:
        try:
            yield hung
        finally:
            hung.kill()


def test_a_loop_that_hangs_ends_its_process_and_shows_where() -> None:
    with process() as hung:
        output, stacks = hung.communicate("\n", timeout=30)
    assert output.splitlines() == ["going on", "hanging", "the event loop has not turned for 0.2 s"]
    assert "in main" in stacks
    assert hung.returncode == 70


def test_a_process_that_was_stopped_goes_on() -> None:
    with process() as hung:
        assert hung.stdout
        assert hung.stdin
        assert hung.stdout.readline() == "going on\n"
        os.kill(hung.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, hung.pid, os.WSTOPPED | os.WNOWAIT)
        subprocess.run(["sleep", "1"], check=True)  # many times what a hanging loop has
        os.kill(hung.pid, signal.SIGCONT)
        hung.stdin.write("\n")
        hung.stdin.flush()
        assert hung.stdout.readline() == "hanging\n"


def test_a_process_that_does_not_come_to_its_end_is_ended_by_force() -> None:
    code = "import time; from infra.watchdog import end_within; end_within(0.2); time.sleep(60)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 70
    assert "time.sleep" in done.stderr or "<module>" in done.stderr


def test_one_that_ends_in_time_is_left_alone() -> None:
    code = "from infra.watchdog import end_within; end_within(60)"
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 0
