"""A process in the background, known by its pid file: started detached, signalled only while it is surely ours."""

import contextlib
import fcntl
import os
import select
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dueline.errors import Unavailable
from dueline.processes import timer_slack

LOG_BYTES_MAX = 20 * 1024**2
"""A longer log is put aside at the next start, as `<name>.log.1`: what led to yesterday's end is still there."""

KILL_LIMIT_S = 10.0
"""The kernel needs a moment to take down a large heap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """A detached process. `marker` stands in its command line and in no other's."""

    name: str
    marker: str
    pid_file: Path
    log_file: Path
    #: How much later than asked for its timers may fire; 0 for what the starting thread has, 50 microseconds as a rule.
    timer_slack_ns: int = 0

    def start(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> int:
        """Start it in a session of its own, so that a Ctrl-C at our terminal doesn't reach it."""
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_BYTES_MAX:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        log_flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with _batch(), timer_slack(self.timer_slack_ns):
            pid = os.posix_spawn(
                command[0],
                [str(part) for part in command],
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, str(self.log_file), log_flags, 0o644),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE),
            )
        self.pid_file.write_text(f"{pid}\n")
        # For an instant a process that was just spawned has an empty command line, as one that has ended has.
        limit = time.monotonic() + 1.0
        while self.pid() is None and time.monotonic() < limit:
            time.sleep(0.001)
        return pid

    def pid(self) -> int | None:
        """Its pid while it runs; None when it has ended, or when its number now belongs to another process."""
        try:
            pid = int(self.pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # if it was our own child, let the system forget it
        return pid if self._is_ours(pid) else None

    def signal(self, number: int) -> bool:
        """Send a signal, if it still runs; after SIGKILL it has ended when this returns."""
        with self._handle() as handle:
            if handle is None:
                return False
            signal.pidfd_send_signal(handle, number)
            if number == signal.SIGKILL:
                _ended(handle, KILL_LIMIT_S)
            return True

    def stop(self, limit_s: float) -> None:
        """End it: SIGTERM, and SIGKILL if it is still there after the limit."""
        with self._handle() as handle:
            if handle is not None:
                signal.pidfd_send_signal(handle, signal.SIGTERM)
                if not _ended(handle, limit_s):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    _ended(handle, KILL_LIMIT_S)
        if self.pid() is None:
            self.pid_file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _handle(self) -> Iterator[int | None]:
        """A descriptor of the very process that was checked: its number may pass on, the descriptor does not."""
        pid = self.pid()
        handle = _open(pid) if pid is not None else None
        try:
            # Checked again, now that it is held: the number could have passed on in between.
            yield handle if handle is not None and pid is not None and self._is_ours(pid) else None
        finally:
            if handle is not None:
                os.close(handle)

    def _is_ours(self, pid: int) -> bool:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False
        return self.marker.encode() in command.split(b"\0")


@contextlib.contextmanager
def _batch() -> Iterator[None]:
    """What is started meanwhile, and all that it starts, does not take the processor from a process in the midst of its work.

    Where few cores are all busy, each process is then interrupted a thousand times a second less often, and finds its caches warm:
    a job costs about a tenth less. On a machine with a core to spare nothing changes. Only this thread is meant.
    """
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameter)


def last_lines(log_file: Path, count: int = 12) -> str:
    """The end of a log, indented, for messages about an end."""
    try:
        lines = log_file.read_text(errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        lines = []
    return "\n".join(f"    {line}" for line in lines)


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _ended(handle: int, limit_s: float) -> bool:
    return bool(select.select([handle], [], [], limit_s)[0])


@contextlib.contextmanager
def alone(
    data: Path,
    otherwise: str = "another command is starting or stopping things",
    remedy: str = "wait for it to end, and try again",
) -> Iterator[None]:
    """Let nobody else start or stop things in a data folder meanwhile. Raises Unavailable, in the words given."""
    data.mkdir(parents=True, exist_ok=True)
    with (data / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(f"{otherwise} in {data}: {remedy}") from None
        yield
