"""The guard: whoever dies, nothing below it lives on."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from consumers.cage import Protection
from consumers.guard import Guard
from consumers.slots import SlotPool
from dueline.clock import SystemClock
from dueline.processes import descendants
from dueline.states import AttemptState
from tests.consumers.helpers import CLASSES, PROTECTIONS, await_ends, new_marker, perform, pids_with, ready


@pytest.fixture(params=PROTECTIONS, ids=lambda protection: protection.name.lower())
def protection(request: pytest.FixtureRequest) -> Protection:
    return Protection(request.param)


@pytest.fixture
def executor(doomed: tuple[subprocess.Popen[str], int, list[int]]) -> tuple[int, int, list[int]]:
    """An executor that performs a run: its pid, its guard's, and those of all below it."""
    process, guard, below = doomed
    return process.pid, guard, below


@pytest.fixture
def doomed(protection: Protection, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int, list[int]]]:
    marker = new_marker()
    argv = [
        sys.executable,
        "-m",
        "tests.consumers.doomed_executor",
        protection.name,
        marker,
        str(tmp_path / "left"),
    ]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        guard = int(process.stdout.readline())
        below = descendants(process.pid) + pids_with(marker)
        assert guard in below
        assert len(below) >= 6  # the guard, two slots with their inits, what the run left behind
        yield process, guard, below
        process.kill()


def lease(process: subprocess.Popen[str], seconds: float) -> None:
    """Have the executor take a lease; returns when its guard has it."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{seconds}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "leased\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_when_the_executor_dies_everything_below_it_does(
    executor: tuple[int, int, list[int]], number: signal.Signals
) -> None:
    pid, _, below = executor
    os.kill(pid, number)
    await_ends(below)


def test_when_the_guard_dies_everything_below_it_does(executor: tuple[int, int, list[int]]) -> None:
    pid, guard, below = executor
    os.kill(guard, signal.SIGKILL)
    await_ends(set(below) - {pid})


# Without a namespace an init that is stopped can't hunt: that is what namespaces are for.
@pytest.mark.parametrize("protection", [each for each in PROTECTIONS if each.namespaces])
def test_a_stopped_family_dies_too(executor: tuple[int, int, list[int]]) -> None:
    pid, _, below = executor
    for each in below:
        os.kill(each, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    await_ends(below)


@pytest.mark.parametrize("protection", [each for each in PROTECTIONS if each.namespaces])
def test_at_the_end_of_the_lease_all_is_dead_though_all_is_stopped(
    doomed: tuple[subprocess.Popen[str], int, list[int]],
) -> None:
    process, _, below = doomed
    lease(process, 1.5)
    os.kill(process.pid, signal.SIGSTOP)
    for each in set(below) - {process.pid}:
        os.kill(each, signal.SIGSTOP)
    await_ends(set(below) - {process.pid})
    assert process.poll() is None  # nobody woke it up to do that
    os.kill(process.pid, signal.SIGCONT)


def test_at_the_end_of_the_lease_all_below_a_stopped_executor_is_dead(
    doomed: tuple[subprocess.Popen[str], int, list[int]],
) -> None:
    process, _, below = doomed
    lease(process, 1.5)
    os.kill(process.pid, signal.SIGSTOP)
    await_ends(set(below) - {process.pid})


def test_a_lease_that_is_over_ends_all_at_once(
    doomed: tuple[subprocess.Popen[str], int, list[int]],
) -> None:
    process, _, below = doomed
    assert process.stdin is not None
    process.stdin.write("-1\n")
    process.stdin.flush()
    await_ends(set(below) - {process.pid})


async def test_an_extension_replaces_the_end_before() -> None:
    pool = SlotPool(1, [CLASSES])
    await pool.start()
    first_s = SystemClock().elapsed_s() + 0.3
    await take_lease(pool, first_s)
    await take_lease(pool, first_s + 60)
    run = perform(pool, ready("sleep", s=1))  # it goes on beyond the first end
    assert (await run).state is AttemptState.SUCCEEDED
    await pool.close()


async def test_without_a_lease_nothing_ends() -> None:
    pool = SlotPool(1, [CLASSES])
    await pool.start()
    await take_lease(pool, SystemClock().elapsed_s() + 0.5)
    pool.lease(None)
    assert (await perform(pool, ready("sleep", s=1))).state is AttemptState.SUCCEEDED
    await pool.close()


async def take_lease(pool: SlotPool, until_s: float) -> None:
    pool.lease(until_s)
    await pool.leased(until_s)


def test_a_stop_meant_for_the_executor_leaves_the_guard_alone(
    executor: tuple[int, int, list[int]],
) -> None:
    pid, guard, below = executor
    os.kill(guard, signal.SIGTERM)
    os.kill(guard, signal.SIGINT)
    with Path(f"/proc/{guard}/status").open() as status:  # a signal that kills has done so before this line
        assert "State:\tZ" not in status.read()
    os.kill(pid, signal.SIGKILL)
    await_ends(below)


async def test_a_lost_guard_interrupts_its_runs_and_says_so() -> None:
    pool = SlotPool(1, [CLASSES])
    await pool.start()
    run = ready("sleep")
    task_of_run = perform(pool, run)
    os.kill(pool.guard_pid, signal.SIGKILL)
    assert (await task_of_run).state is AttemptState.INTERRUPTED
    await pool.lost
    await pool.close()


async def test_slots_inherit_no_foreign_descriptors(tmp_path: Path) -> None:
    with tmp_path.joinpath("lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        pool = SlotPool(2, [CLASSES])
        await pool.start()
        for pid in descendants(pool.guard_pid):
            links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
            assert str(tmp_path / "lock") not in links
        await pool.close()


class Started:
    """A slot that was started a moment ago."""

    pid = os.getpid()

    def __init__(self) -> None:
        self.ends: list[str] = []

    def kill(self) -> None:
        self.ends.append("killed")

    def reap(self) -> None:
        self.ends.append("reaped")


@pytest.mark.parametrize("fails", ["socket.socketpair", "consumers.guard.start", "os.pidfd_open"])
def test_a_guard_short_of_descriptors_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def full(*arguments: object, **more: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    started = Started()

    def start(argv: Sequence[str], *, channel: int, protection: Protection) -> Started:
        os.close(channel)
        return started

    ours, control = socket.socketpair()
    with ours, control:
        guard = Guard(control, [], Protection.SUBREAPERS)
        before = os.listdir("/proc/self/fd")  # noqa: PTH208
        with monkeypatch.context() as short:
            short.setattr("consumers.guard.start", start)
            short.setattr(fails, full)
            guard._spawn(7, "/tmp")
        assert json.loads(ours.recv(1000)) == {"event": "exited", "slot": 7, "status": os.EX_OSERR << 8}
        assert started.ends == (["killed", "reaped"] if fails == "os.pidfd_open" else [])
        if fails != "consumers.guard.start":  # which closes the channel, and is replaced
            assert os.listdir("/proc/self/fd") == before  # noqa: PTH208
