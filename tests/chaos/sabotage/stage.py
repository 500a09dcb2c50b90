"""Where scenarios are played: the platform's processes, of the sound build or another, and jobs that write the history."""

import asyncio
import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from cassandra.cluster import Cluster, Session

from dueline import AsyncClient, Job, Once, Priority
from dueline.address import shard_of
from infra.local.platform import PlatformProcess
from infra.local.servers import at_once
from tests.chaos.history import FAULTS, History, now_ns
from tests.chaos.load import submit
from tests.conftest import Servers

COMMANDS: Mapping[str, Sequence[str]] = {
    "scheduler": ["stream_processors.scheduler"],
    "ledger": ["stream_processors.ledger"],
    "executor": ["consumers", "--slots", "2", "--import", "tests.chaos.jobs"],
}


class Stage:
    """The platform, for one scenario after the other. What the next one needs as it is goes on running."""

    def __init__(self, servers: Servers) -> None:
        self.settings = settings = servers.settings
        self._servers = servers
        self.history: History
        self._processes: dict[str, tuple[PlatformProcess, Sequence[str]]] = {}
        self._cluster = Cluster(
            ["127.0.0.1"], port=int(settings.cassandra.rpartition(":")[2]), protocol_version=5
        )
        #: The driver's own: what the platform has stored is not to be read by its own code.
        self.cassandra: Session = self._cluster.connect(settings.keyspace)
        self._names = count()

    def begin(self, folder: Path) -> None:
        """Have a new history."""
        folder.mkdir()
        self.history = History(folder)

    def have(self, numbers: Mapping[str, int], builds: Mapping[str, str]) -> None:
        """Have so many processes of each role that serve, of these builds where one is named."""
        wanted: dict[str, Sequence[str]] = {}
        for role, number in numbers.items():
            launcher = ["tests.chaos.sabotage", builds[role]] if role in builds else []
            wanted |= {f"{role}-{n}": [*launcher, *COMMANDS[role]] for n in range(1, number + 1)}
        gone = [name for name, (_, command) in self._processes.items() if wanted.get(name) != command]
        at_once(PlatformProcess.stop, [self._processes.pop(name)[0] for name in gone])
        for name in wanted.keys() - self._processes.keys():
            process = PlatformProcess(self.settings, name, [*wanted[name]])
            self._processes[name] = process, wanted[name]
            process.start()
        for process, _ in self._processes.values():
            process.wait_until_up()

    def close(self) -> None:
        """End all processes, also those that are stopped."""
        self._cluster.shutdown()
        self._servers.kafka.kill(signal.SIGCONT)
        for process, _ in self._processes.values():
            process.kill(signal.SIGCONT)
        at_once(PlatformProcess.stop, [process for process, _ in self._processes.values()])

    def pid(self, name: str) -> int:
        """The pid of a process that serves."""
        pid = self._processes[name][0].worker_pid()
        assert pid is not None, f"{name} does not serve"
        return pid

    # -- injuries: of processes alone, not of what they have started --------------------------------------------------

    def kill(self, name: str) -> None:
        """SIGKILL a process. It stays away until it is to be had again."""
        with self._told("sigkill", name):
            os.kill(self.pid(name), signal.SIGKILL)
        process, _ = self._processes.pop(name)
        process.stop()  # its supervisor, which would have started another one

    @contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """SIGSTOP a process, and SIGCONT it in the end."""
        pid = self.pid(name)
        with self._told("sigstop", name):
            os.kill(pid, signal.SIGSTOP)
            try:
                yield
            finally:
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def without_kafka(self) -> Iterator[None]:
        """Kafka answers nobody meanwhile."""
        with self._told("sigstop", "kafka"):
            self._servers.kafka.kill(signal.SIGSTOP)
            try:
                yield
            finally:
                self._servers.kafka.kill(signal.SIGCONT)

    @contextmanager
    def _told(self, kind: str, target: str) -> Iterator[None]:
        begun_ns = now_ns()
        yield
        name = f"{kind} {target.partition('-')[0]}"
        self.history.write(FAULTS, "fault", kind=name, target=target, begun_ns=begun_ns, until_ns=now_ns())

    # -- jobs ------------------------------------------------------------------------------------------------------

    def submit(
        self,
        kind: str,
        shards: Iterable[int],
        *,
        in_s: float = 0.0,
        priority: Priority = Priority.NORMAL,
        **params: Any,
    ) -> list[str]:
        """A job in each of the shards, one for each time that it is named, and what Kafka has acknowledged of them."""
        due = datetime.now(UTC) + timedelta(seconds=in_s)
        jobs = [
            Job(
                id=self._name_in(shard),
                executor_class="act",
                params={"history": str(self.history.folder), **params},
                priority=priority,
                triggers=(Once(due),),
                timeout_s=60,
            )
            for shard in shards
        ]

        async def submit_all() -> None:
            async with AsyncClient(self.settings.kafka) as client:
                await asyncio.gather(*(submit(client, self.history, kind, job) for job in jobs))

        asyncio.run(submit_all())
        return [job.id or "" for job in jobs]

    def _name_in(self, shard: int) -> str:
        names = (f"{self.history.folder.name}-{now_ns()}-{number}" for number in self._names)
        fitting = (name for name in names if shard_of(name, self.settings.partitions) == shard)
        return next(fitting)
