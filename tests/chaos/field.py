"""What a campaign is fought over: two servers, and two of each process of the platform, all of which write the history."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from dueline.processes import descendants
from infra.local.platform import PlatformProcess
from infra.local.servers import CassandraServer, KafkaServer, at_once
from infra.settings import Settings
from tests.chaos.history import History
from tests.chaos.network import relays_of

ROLES = ("scheduler", "ledger", "executor")
#: Enough that the jobs of a campaign seldom wait for one.
SLOTS = 8
#: For what was submitted last to be acknowledged.
LOAD_STOP_S = 120.0
#: For what has been killed to be gone.
GONE_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Field:
    settings: Settings
    kafka: KafkaServer
    cassandra: CassandraServer
    #: By name: scheduler-1, scheduler-2, ledger-1, …
    processes: Mapping[str, PlatformProcess]
    history: History
    #: Names of the processes that live in networks of their own.
    cuttable: frozenset[str]
    #: Set when nothing more is to be done to them: a fault that goes on is undone at once.
    over: Event = field(default_factory=Event)
    #: Names of the processes that had to be killed in the end, since they did not end when they were told to.
    did_not_end: list[str] = field(default_factory=list)

    def worker(self, name: str) -> int | None:
        """The pid of a process; None while it is being started."""
        return self.processes[name].worker_pid()

    def guard(self, name: str) -> int | None:
        """The guard of an executor."""
        found = self._below(name, b"consumers.guard")
        return min(found) if found else None

    def slots(self, name: str) -> list[int]:
        """The slots of an executor."""
        return self._below(name, b"dueline.slot")

    def tree(self, name: str) -> list[int]:
        """A process with all below it, but for its relays, which are no part of the platform."""
        worker = self.worker(name)
        if worker is None:
            return []
        below = set(descendants(worker)) - set(self.relays(name).values())
        return [worker, *sorted(below)]

    def relays(self, name: str) -> Mapping[str, int]:
        """By server."""
        worker = self.worker(name)
        return relays_of(worker, self.settings) if worker is not None and name in self.cuttable else {}

    def _below(self, name: str, module: bytes) -> list[int]:
        found = []
        for pid in self.tree(name):
            try:
                if module in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    found.append(pid)
            except OSError:
                pass  # it ended meanwhile
        return found

    @contextmanager
    def load(self, seed: int, rate: float) -> Iterator[None]:
        """Jobs are submitted meanwhile; afterwards what was submitted is acknowledged, or known not to be."""
        command = [sys.executable, "-m", "tests.chaos.load", "--history", str(self.history.folder)]
        command += ["--kafka", self.settings.kafka, "--seed", str(seed), "--rate", str(rate)]
        with subprocess.Popen(command) as load:
            try:
                yield
                load.terminate()
                load.wait(LOAD_STOP_S)
            finally:
                load.kill()
        if load.returncode != 0:
            raise RuntimeError(f"the load ended with status {load.returncode}")


@contextmanager
def field_on(
    settings: Settings,
    kafka: KafkaServer,
    cassandra: CassandraServer,
    folder: Path,
    *,
    each: int = 2,
    cuttable: Sequence[str] = (),
    #: What stands before the module of a process: by role.
    launchers: Mapping[str, Sequence[str]] = {},  # never changed
) -> Iterator[Field]:
    """The platform's processes on servers that run, until the end of the block."""
    commands = {
        "scheduler": ["stream_processors.scheduler"],
        "ledger": ["stream_processors.ledger"],
        "executor": ["consumers", "--slots", str(SLOTS), "--import", "tests.chaos.jobs"],
    }
    processes: dict[str, PlatformProcess] = {}
    for role in ROLES:
        for number in range(1, each + 1):
            name = f"{role}-{number}"
            launcher = ["tests.chaos.network"] if name in cuttable else []
            command = [*launcher, *launchers.get(role, ()), *commands[role]]
            processes[name] = PlatformProcess(settings, name, command)
    folder.mkdir(parents=True, exist_ok=True)
    made = Field(settings, kafka, cassandra, processes, History(folder), frozenset(cuttable))

    def stop(process: PlatformProcess) -> None:
        if not _stop(process):
            made.did_not_end.append(process.name)

    with ExitStack() as ends:
        ends.callback(at_once, stop, tuple(processes.values()))
        for process in processes.values():
            process.start()
        for process in processes.values():
            process.wait_until_up()
        yield made


def _stop(process: PlatformProcess) -> bool:
    """Stop a process, also one that a fault has left stopped. What does not end is killed: then it returns False."""
    supervisor = process.supervisor.pid()
    with ExitStack() as handles:
        held = []
        for pid in descendants(supervisor) if supervisor is not None else ():
            with suppress(ProcessLookupError):  # held by descriptor: a number may pass on to another process
                handle = os.pidfd_open(pid)
                handles.callback(os.close, handle)
                held.append(handle)
                signal.pidfd_send_signal(handle, signal.SIGCONT)
        process.stop()
        left = [handle for handle in held if not select.select([handle], [], [], GONE_LIMIT_S)[0]]
        for handle in left:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        return not left
