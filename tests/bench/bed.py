"""What is measured: both servers and the platform's processes, on ports and in a folder of their own."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.local.platform import PlatformProcess
from infra.local.servers import CassandraServer, KafkaServer, Say, at_once, servers_of
from infra.settings import Settings
from tests.bench.meter import Usage, usage_of
from tests.own_servers import own_settings, running


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How many there are of what."""

    partitions: int = 8
    schedulers: int = 1
    ledgers: int = 1
    executors: int = 1
    #: Of each executor.
    slots: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Bed:
    """Servers and processes that run."""

    shape: Shape
    settings: Settings
    kafka: KafkaServer
    cassandra: CassandraServer
    #: By name: scheduler-1, ledger-1, executor-1, executor-2, …
    processes: Mapping[str, PlatformProcess]

    def usage(self, submitter: int | None = None) -> Usage:
        """What all of it has used so far, by role; and who submits to it, given by its pid."""
        pids = {
            self.kafka.process.pid(): "kafka",
            self.cassandra.process.pid(): "cassandra",
            submitter: "submitter",
        }
        pids |= {process.worker_pid(): _role(name) for name, process in self.processes.items()}
        return usage_of({pid: name for pid, name in pids.items() if pid is not None})


@contextmanager
def bed_of(shape: Shape, say: Say, failed: Callable[[], bool]) -> Iterator[Bed]:
    """Servers with the settings that `make up` gives them, and the platform, until the end of the block.

    The data is removed then; the logs stay when something has failed.
    """
    data = Path(tempfile.mkdtemp(prefix="dueline-bench-"))
    say(f"starting servers and platform in the folder {data} : {shape}")
    begun = False
    try:
        with ExitStack() as ends:
            bed = _start(own_settings(data, partitions=shape.partitions, slots=shape.slots), shape, ends)
            begun = True
            yield bed
    finally:
        if begun and not failed():
            shutil.rmtree(data, ignore_errors=True)
        else:
            say(f"logs are in {data / 'logs'}")
            for name in ("kafka", "cassandra", "outputs"):
                shutil.rmtree(data / name, ignore_errors=True)


def _start(settings: Settings, shape: Shape, ends: ExitStack) -> Bed:
    kafka, cassandra = servers_of(settings)
    ends.enter_context(running(settings, kafka, cassandra))
    processes = _processes(settings, shape)
    ends.callback(at_once, PlatformProcess.stop, tuple(processes.values()))
    for process in processes.values():
        process.start()
    for process in processes.values():
        process.wait_until_up()
    return Bed(shape=shape, settings=settings, kafka=kafka, cassandra=cassandra, processes=processes)


def _processes(settings: Settings, shape: Shape) -> dict[str, PlatformProcess]:
    executor = ["consumers", "--slots", str(shape.slots), "--import", "tests.bench.jobs"]
    commands = {
        "scheduler": (shape.schedulers, ["stream_processors.scheduler"]),
        "ledger": (shape.ledgers, ["stream_processors.ledger"]),
        "executor": (shape.executors, executor),
    }
    names = {
        f"{role}-{n}": command for role, (count, command) in commands.items() for n in range(1, count + 1)
    }
    return {name: PlatformProcess(settings, name, command) for name, command in names.items()}


def _role(name: str) -> str:
    return name.rpartition("-")[0]
