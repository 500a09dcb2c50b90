"""Starts one process of the platform, and starts it again whenever it exits.

    python -m infra.local.supervisor <ready file> <command> <argument>...

An executor whose lease has ended exits in order to be started anew, and what crashes comes back, each time a little
later. SIGTERM and SIGINT are passed on, and the supervisor ends with its process. A process that never became ready and
failed three times in a row would fail for ever (a wrong option, a missing package): then the supervisor gives up.
It is only for one machine; elsewhere systemd or Kubernetes does the same.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event
from types import FrameType

from dueline.processes import die_with_parent

PAUSE_S_MIN, PAUSE_S_MAX = 0.2, 5.0
"""Between an exit and the next start: doubles from exit to exit, and starts over after a life of STEADY_S."""

STEADY_S = 30.0

FAILURES_MAX = 3
"""In a row, without ever having been ready."""


class Supervisor:
    def __init__(self, ready_file: Path, command: list[str]) -> None:
        self._ready_file = ready_file
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = Event()

    def run(self) -> int:
        """Keep the process running until a signal says to stop. Returns the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        pause_s, failures, was_ready = PAUSE_S_MIN, 0, False
        while not self._stopping.is_set():
            begun = time.monotonic()
            self._ready_file.unlink(missing_ok=True)
            status = self._run_once()
            if self._stopping.is_set():
                break
            lived_s = time.monotonic() - begun
            was_ready = was_ready or self._ready_file.exists()
            failures = 0 if was_ready else failures + 1
            if failures == FAILURES_MAX:
                _log(f"it ended {failures} times before it was ever ready: giving up")
                return 1
            pause_s = PAUSE_S_MIN if lived_s > STEADY_S else pause_s
            _log(f"it ended with status {status} after {lived_s:.1f} s, and starts again in {pause_s:.1f} s")
            self._sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)
        self._ready_file.unlink(missing_ok=True)
        return 0

    def _run_once(self) -> int:
        environment = {**os.environ, "DUELINE_READY_FILE": str(self._ready_file)}
        self._process = subprocess.Popen(self._command, env=environment, preexec_fn=_end_with_supervisor)
        if self._stopping.is_set():  # the signal came while it was being started
            self._process.terminate()
        return self._process.wait()

    def _sleep(self, duration_s: float) -> None:
        until = time.monotonic() + duration_s
        while not self._stopping.is_set() and time.monotonic() < until:
            time.sleep(0.05)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping.set()
        if self._process is not None:
            self._process.terminate()
            self._process.send_signal(signal.SIGCONT)  # one that is paused would never hear of it


def _end_with_supervisor() -> None:
    """In the new process: have the kernel end it should its supervisor be killed, so that none is left without one."""
    die_with_parent(signal.SIGTERM)


def _log(what: str) -> None:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    print(f"{now} supervisor: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(Supervisor(Path(sys.argv[1]), sys.argv[2:]).run())
