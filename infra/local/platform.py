"""The platform's processes on this machine, each under a supervisor that starts it again when it exits.

How a process says that it serves: its environment has `DUELINE_READY_FILE`, the path of a file that it creates, with
its pid as the content, once it does (`<data>/run/<name>.ready`). The supervisor removes the file before each start.
"""

import os
import signal
import sys
import time
from pathlib import Path

from dueline.errors import Unavailable
from infra.local.background import Background, last_lines
from infra.local.servers import Say, at_once, labelled
from infra.settings import Settings

READY_LIMIT_S = 60.0
"""They take 2 to 5 s, most of it the joining of their Kafka groups; after a kill the old member's session counts too."""

STOP_LIMIT_S = 40.0
"""An executor drains for up to 20 s; the rest is for what it then has to kill and write down."""


class PlatformProcess:
    """One process of the platform: its supervisor, and the worker that the supervisor keeps running."""

    def __init__(self, settings: Settings, name: str, command: list[str], say: Say = lambda _: None) -> None:
        self.settings = settings
        self.name = name
        self.ready_file = settings.data / "run" / f"{name}.ready"
        self._command = command
        self._say = say
        self.supervisor = Background(
            name=name,
            marker=str(self.ready_file),
            pid_file=settings.data / "run" / f"{name}.pid",
            log_file=settings.data / "logs" / f"{name}.log",
        )

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.supervisor.pid() is not None:
            return
        self.ready_file.parent.mkdir(parents=True, exist_ok=True)
        self.ready_file.unlink(missing_ok=True)
        python = [sys.executable, "-u", "-m"]
        command = [*python, "infra.local.supervisor", str(self.ready_file), *python, *self._command]
        pid = self.supervisor.start(command, {**os.environ, **self.settings.environment()})
        self._say(f"starting (supervisor {pid})")

    def worker_pid(self) -> int | None:
        """The pid of the process itself, once it has said that it serves."""
        try:
            pid = int(self.ready_file.read_text())
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError, ValueError):  # it may end while this is read
            return None
        return pid if parent == self.supervisor.pid() else None

    def is_up(self) -> bool:
        """Whether it serves."""
        return self.worker_pid() is not None

    def wait_until_up(self, limit_s: float = READY_LIMIT_S) -> None:
        """Return when it serves. Raises Unavailable when its supervisor gave up, or it takes longer than the limit."""
        begun = time.monotonic()
        while not self.is_up():
            if self.supervisor.pid() is None:
                raise Unavailable(self._with_log(f"the {self.name} cannot start"))
            if time.monotonic() - begun > limit_s:
                raise Unavailable(self._with_log(f"the {self.name} does not serve after {limit_s:.0f} s"))
            time.sleep(0.1)
        self._say(f"serves (process {self.worker_pid()})")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send the process itself a signal; after SIGKILL its supervisor starts it again."""
        pid = self.worker_pid()
        if pid is not None:
            os.kill(pid, number)

    def stop(self) -> None:
        """Stop it for good, and return when it has ended."""
        if self.supervisor.pid() is not None:
            self._say("stopping")
        self.supervisor.stop(STOP_LIMIT_S)
        self.ready_file.unlink(missing_ok=True)

    def _with_log(self, what: str) -> str:
        log = self.supervisor.log_file
        return f"{what}: its log {log} says why; it ends with\n{last_lines(log)}"


def platform_of(settings: Settings, say: Say = lambda _: None) -> tuple[PlatformProcess, ...]:
    """All processes of the platform, in the order of the path; what they have to say is said with their names."""
    commands = {
        "scheduler": ["stream_processors.scheduler"],
        "ledger": ["stream_processors.ledger"],
        "executor": ["consumers", "--slots", str(settings.slots)],
    }
    return tuple(
        PlatformProcess(settings, name, command, labelled(say, name)) for name, command in commands.items()
    )


def start_platform(settings: Settings, say: Say = lambda _: None) -> None:
    """Start all, and return when all serve."""
    processes = platform_of(settings, say)
    for process in processes:
        process.start()
    for process in processes:
        process.wait_until_up()


def stop_platform(settings: Settings, say: Say = lambda _: None) -> None:
    """Stop all at once, and return when all have ended."""
    at_once(PlatformProcess.stop, platform_of(settings, say))
