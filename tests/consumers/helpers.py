"""What the tests of the slots share: ready runs, and a look at the processes that are there."""

import asyncio
import os
import random
import select
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from consumers.cage import Protection, is_allowed
from consumers.slot_link import NotBegun
from consumers.slots import Outcome, SlotPool
from dueline.codec import encode_ready_run
from dueline.job import Priority
from dueline.policies import Retry
from dueline.runs import ReadyRun

#: What the tests of slots are repeated with. Containers often allow the last one alone.
PROTECTIONS = [protection for protection in Protection if is_allowed(protection)]
CLASSES = "tests.consumers.classes"


def ready(executor_class: str, *, job_id: str = "job", timeout_s: float = 60, **params: Any) -> ReadyRun:
    return ReadyRun(
        job_id=job_id,
        due_ms=1_700_000_000_000,
        emit_ms=1_700_000_000_000,
        attempt=2,
        version=7,
        executor_class=executor_class,
        priority=Priority.HIGH,
        params=params,
        timeout_ms=round(timeout_s * 1000),
        retry=Retry(),
        name="a name",
    )


async def perform(
    pool: SlotPool, run: ReadyRun, heard: Callable[[str], None] = lambda progress: None
) -> Outcome:
    """Perform a run as soon as a slot has room for it."""
    while True:
        with suppress(NotBegun):
            return await pool.perform(run, encode_ready_run(run), heard)
        await asyncio.sleep(0.001)


def new_marker() -> str:
    """An argument for `sleep` by which its process can be found."""
    return f"{random.randrange(10**6, 10**9)}.{random.randrange(10**9)}"


def pids_with(argument: str) -> list[int]:
    """The processes that were started with this argument."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if argument.encode() in arguments:
                found.append(int(entry.name))
    return found


def await_ends(pids: Iterable[int], timeout_s: float = 10) -> None:
    """Wait until all these processes are dead."""
    poll = select.poll()
    alive = set()
    for pid in pids:
        try:
            alive.add(fd := os.pidfd_open(pid))
        except ProcessLookupError:
            continue
        poll.register(fd, select.POLLIN)
    while alive:
        ended = poll.poll(timeout_s * 1000)
        assert ended, "a process that should be dead lives on"
        for fd, _ in ended:
            poll.unregister(fd)
            os.close(fd)
            alive.remove(fd)
