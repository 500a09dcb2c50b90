"""Settings and real servers for the tests.

`settings` has ports and a folder of its own, so tests run beside a platform in daily use. `servers` adds a running Kafka and
a running Cassandra with their topics and tables: containers where a Docker engine has the images already, else local
processes. Whatever was started is stopped at the end, also after a failure, a Ctrl-C or a SIGTERM; the logs are kept
when a test has failed.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.local.servers import CassandraServer, KafkaServer, servers_of
from infra.settings import Settings
from tests.containers import CassandraContainer, KafkaContainer, engine_with_images
from tests.own_servers import FAST_START, own_settings, running


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """The servers of this test session. A test that stops one starts it again."""

    settings: Settings
    kafka: KafkaServer
    cassandra: CassandraServer


@pytest.fixture(scope="session")
def settings(request: pytest.FixtureRequest) -> Iterator[Settings]:
    data = Path(tempfile.mkdtemp(prefix="dueline-tests-"))
    yield own_settings(data, kafka_heap="320m", cassandra_heap="640m")
    if request.session.testsfailed:
        print(f"\nlogs of what the tests started: {data / 'logs'}")
        for name in ("kafka", "cassandra"):
            shutil.rmtree(data / name, ignore_errors=True)
    else:
        shutil.rmtree(data, ignore_errors=True)


@pytest.fixture(scope="session")
def servers(settings: Settings) -> Iterator[Servers]:
    os.environ["JDK_JAVA_OPTIONS"] = FAST_START
    kafka: KafkaServer
    cassandra: CassandraServer
    if engine_with_images():
        kafka, cassandra = KafkaContainer(settings), CassandraContainer(settings)
    else:
        kafka, cassandra = servers_of(settings)
    with running(settings, kafka, cassandra):
        yield Servers(settings=settings, kafka=kafka, cassandra=cassandra)


def pytest_configure(config: pytest.Config) -> None:
    signal.signal(signal.SIGTERM, _end_session)


def pytest_report_header() -> str:
    if engine_with_images():
        return "servers: testcontainers (the Docker engine has the images)"
    return "servers: local processes (no Docker engine answers that has the images)"


def _end_session(number: int, frame: object) -> None:
    pytest.exit("ended by SIGTERM", returncode=143)
