"""The whole platform under its supervisors, on the servers of the test session."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cassandra.cluster import Cluster
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from dueline.address import SUBMISSIONS
from infra.local.platform import PlatformProcess
from infra.local.servers import at_once
from infra.log_reader import ends_of
from infra.settings import Settings
from tests.conftest import Servers

RECORDING = "tests.platform.recording"
CONTRACT_JOBS = "tests.platform.contract_jobs"


class Platform:
    """Scheduler, ledger and executor, and what a test asks of them."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self.settings: Settings = servers.settings
        commands = {
            "scheduler": ["stream_processors.scheduler"],
            "ledger": ["stream_processors.ledger"],
            "executor": ["consumers", "--slots", "2", "--import", RECORDING, "--import", CONTRACT_JOBS],
        }
        self.processes = {
            name: PlatformProcess(self.settings, name, command) for name, command in commands.items()
        }

    def start(self) -> None:
        for process in self.processes.values():
            process.start()
        for process in self.processes.values():
            process.wait_until_up()

    def stop(self) -> None:
        at_once(PlatformProcess.stop, tuple(self.processes.values()))

    @contextmanager
    def cassandra(self) -> Iterator[Any]:
        """A plain session of the driver: what the platform stored is not to be read by its own code."""
        host, _, port = self.settings.cassandra.partition(":")
        with Cluster([host], port=int(port), protocol_version=5) as cluster:
            yield cluster.connect(self.settings.keyspace)

    def kill(self, *names: str) -> None:
        """SIGKILL processes; returns when their supervisors have started others that serve."""
        old = {name: self.processes[name].worker_pid() for name in names}
        for name in names:
            self.processes[name].kill()
        killed = [(self.processes[name], pid) for name, pid in old.items()]
        what = f"others after SIGKILL of {', '.join(names)}"
        wait_for(lambda: all(process.worker_pid() not in (None, pid) for process, pid in killed), what, 60)


@pytest.fixture(scope="module")
def platform(servers: Servers) -> Iterator[Platform]:
    with serving(servers) as platform:
        yield platform


@contextmanager
def serving(servers: Servers) -> Iterator[Platform]:
    """The platform serves in the block."""
    platform = Platform(servers)
    drop_submissions(platform.settings)
    try:
        platform.start()
        yield platform
    finally:
        platform.stop()


def drop_submissions(settings: Settings) -> None:
    """Delete what tests of the client have submitted, tens of thousands of jobs, to a platform that was not there."""
    ends = ends_of(settings, [(SUBMISSIONS, partition) for partition in range(settings.partitions)])
    places = [TopicPartition(*place, end) for place, end in ends.items()]
    admin = AdminClient({"bootstrap.servers": settings.kafka})  # kept: its futures never end without it
    for deleted in admin.delete_records(places).values():
        deleted.result()


@pytest.fixture
def history(tmp_path: Path) -> Path:
    path = tmp_path / "history"
    path.touch()
    return path


def lines_of(history: Path) -> list[str]:
    """What jobs have written down so far, without a line of which only a part is there yet."""
    whole, _, _ = history.read_text().rpartition("\n")
    return whole.splitlines()


def wait_for(condition: Callable[[], bool], what: str, limit_s: float) -> None:
    """Return when the condition holds; the limit only ends a test that would wait for ever."""
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited {limit_s:g} s in vain for {what}")
        time.sleep(0.1)
