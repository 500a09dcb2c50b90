"""A background process is signalled only while it is surely ours, and stays in the background."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from infra.local.background import LOG_BYTES_MAX, Background
from infra.local.platform import PlatformProcess
from infra.settings import Settings

SLEEP = "import time; time.sleep(60)"
SLEEP_THROUGH_SIGTERM = (
    f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); {SLEEP}"
)


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Background]:
    process = Background(
        name="sleeper",
        marker="marker-of-a-test",
        pid_file=tmp_path / "run" / "pid",
        log_file=tmp_path / "logs" / "x.log",
    )
    yield process
    process.stop(0.0)


def start(process: Background, code: str) -> int:
    return process.start([sys.executable, "-c", code, process.marker], os.environ)


def test_it_runs_in_a_session_of_its_own_until_stopped(sleeper: Background) -> None:
    pid = start(sleeper, SLEEP)
    assert sleeper.pid() == pid
    assert os.getsid(pid) == pid
    sleeper.stop(5.0)
    assert sleeper.pid() is None
    assert not sleeper.pid_file.exists()
    sleeper.stop(5.0)  # and once more does no harm


@pytest.mark.parametrize("slack_ns", [0, 1_000_000])
def test_its_timers_may_be_late(sleeper: Background, slack_ns: int) -> None:
    ours = Path(f"/proc/{os.getpid()}/timerslack_ns").read_text()
    pid = start(replace(sleeper, timer_slack_ns=slack_ns), SLEEP)
    assert int(Path(f"/proc/{pid}/timerslack_ns").read_text()) == (slack_ns or int(ours))
    assert Path(f"/proc/{os.getpid()}/timerslack_ns").read_text() == ours


def test_what_ignores_sigterm_is_killed_after_the_limit(sleeper: Background) -> None:
    start(sleeper, SLEEP_THROUGH_SIGTERM)
    while "deaf" not in sleeper.log_file.read_text():
        time.sleep(0.01)
    sleeper.stop(0.2)
    assert sleeper.pid() is None


def test_a_number_that_passed_to_a_stranger_is_left_alone(sleeper: Background) -> None:
    with subprocess.Popen([sys.executable, "-c", SLEEP]) as stranger:
        sleeper.pid_file.parent.mkdir()
        sleeper.pid_file.write_text(str(stranger.pid))
        assert sleeper.pid() is None
        assert not sleeper.signal(signal.SIGKILL)
        sleeper.stop(1.0)
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("content", ["", "not a number", "999999999"])
def test_a_stale_pid_file_means_that_nothing_runs(sleeper: Background, content: str) -> None:
    sleeper.pid_file.parent.mkdir()
    sleeper.pid_file.write_text(content)
    assert sleeper.pid() is None


def test_a_long_log_is_put_aside(sleeper: Background) -> None:
    sleeper.log_file.parent.mkdir()
    sleeper.log_file.write_bytes(b"x" * (LOG_BYTES_MAX + 1))
    start(sleeper, SLEEP)
    assert sleeper.log_file.stat().st_size == 0
    assert sleeper.log_file.with_suffix(".log.1").stat().st_size == LOG_BYTES_MAX + 1


WORKER = """
import os, pathlib, time
pathlib.Path(os.environ["DUELINE_READY_FILE"]).write_text(str(os.getpid()))
time.sleep(60)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that stands for one of the platform's processes."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    return tmp_path / "worker_of_a_test.py"


@pytest.fixture
def worker(module: Path, tmp_path: Path) -> Iterator[PlatformProcess]:
    process = PlatformProcess(Settings(data=tmp_path / "data"), "worker", [module.stem])
    yield process
    process.stop()


def test_a_process_that_is_killed_starts_again(worker: PlatformProcess, module: Path) -> None:
    module.write_text(WORKER)
    worker.start()
    worker.wait_until_up(10.0)
    first = worker.worker_pid()
    worker.kill()
    until = time.monotonic() + 10.0
    while worker.worker_pid() in (first, None) and time.monotonic() < until:
        time.sleep(0.01)
    assert worker.worker_pid() not in (first, None)


def test_a_process_ends_with_its_supervisor(worker: PlatformProcess, module: Path) -> None:
    module.write_text(WORKER)
    worker.start()
    worker.wait_until_up(10.0)
    handle = os.pidfd_open(worker.worker_pid() or 0)
    worker.supervisor.signal(signal.SIGKILL)
    assert ended(handle)
    assert not worker.is_up()


@pytest.mark.parametrize("paused", [False, True])
def test_stop_ends_both(worker: PlatformProcess, module: Path, *, paused: bool) -> None:
    module.write_text(WORKER)
    worker.start()
    worker.wait_until_up(10.0)
    handle = os.pidfd_open(worker.worker_pid() or 0)
    if paused:
        worker.kill(signal.SIGSTOP)
    worker.stop()
    assert ended(handle)
    assert worker.supervisor.pid() is None
    assert not worker.ready_file.exists()


def test_one_that_cannot_start_is_given_up(worker: PlatformProcess, module: Path) -> None:
    module.write_text("raise SystemExit('a package is missing')")
    worker.start()
    with pytest.raises(Exception, match=r"(?s)worker cannot start.*logs/worker.log.*a package is missing"):
        worker.wait_until_up(10.0)


def ended(handle: int) -> bool:
    return bool(select.select([handle], [], [], 5.0)[0])
