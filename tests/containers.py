"""Kafka and Cassandra in containers, by testcontainers: configuration, ports and verbs of the local servers.

Images are never pulled: without a Docker engine that has them, the tests take the local servers. The containers use the
host's network and the session's data folder, so what infra/local writes for its own servers serves them unchanged.
"""

import os
import signal
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import docker
from docker.errors import DockerException, NotFound
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from infra.local.servers import CassandraServer, KafkaServer, Server
from infra.settings import Settings

KAFKA_IMAGE = "apache/kafka:4.3.1"
CASSANDRA_IMAGE = "cassandra:5.0.8"


@cache
def engine_with_images() -> bool:
    """Whether a Docker engine answers and has both images."""
    if "DOCKER_HOST" not in os.environ and not Path("/var/run/docker.sock").exists():
        return False  # docker's own answer to this leaks a socket, which the tests would count as an error
    try:
        engine = docker.from_env(timeout=5)
    except DockerException:
        return False
    try:
        for image in (KAFKA_IMAGE, CASSANDRA_IMAGE):
            engine.images.get(image)
    except DockerException:
        return False
    finally:
        engine.close()
    return True


class ContainerProcess:
    """A container with the verbs of infra.local.background.Background."""

    def __init__(self, image: str, server: Server, script: str, environment: Mapping[str, str]) -> None:
        self.log_file = server.process.log_file
        data = str(server.settings.data)
        testcontainers_config.ryuk_disabled = (
            True  # its image might not be here; our fixture removes the containers
        )
        self._image = image
        self._options: dict[str, Any] = {
            "env": {**environment, "LOG_DIR": f"{data}/logs"},
            "volumes": [(data, data, "rw")],
            "network_mode": "host",
            "user": f"{os.getuid()}:{os.getgid()}",
            "entrypoint": ["sh", "-c", script],
        }
        self._container: DockerContainer | None = None

    def run(self) -> None:
        self.stop(0.0)
        self._container = DockerContainer(self._image, **self._options).start()

    def pid(self) -> int | None:
        if self._container is None:
            return None
        state = self._wrapped()
        state.reload()
        return int(state.attrs["State"]["Pid"]) or None

    def signal(self, number: int) -> bool:
        if self.pid() is None:
            return False
        self._wrapped().kill(signal.Signals(number).name)
        return True

    def stop(self, limit_s: float) -> None:
        if self._container is None:
            return
        try:
            self._wrapped().stop(timeout=int(limit_s))
            self.log_file.parent.mkdir(exist_ok=True)
            with self.log_file.open("ab") as log:
                log.write(self._wrapped().logs())
            self._container.stop()
        except NotFound:
            pass
        self._container = None

    def _wrapped(self) -> Any:
        assert self._container is not None
        return self._container.get_wrapped_container()


class KafkaContainer(KafkaServer):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        home = "/opt/kafka/bin"
        config = self.config / "server.properties"
        storage = f"{home}/kafka-storage.sh format --ignore-formatted --cluster-id ZHVlbGluZS1sb2NhbC0wMQ"
        script = f"{storage} --config {config} && exec {home}/kafka-server-start.sh {config}"
        environment = {"KAFKA_HEAP_OPTS": f"-Xms{self.heap} -Xmx{self.heap}"}
        self.process = cast(Any, ContainerProcess(KAFKA_IMAGE, self, script, environment))

    def start(self) -> None:
        start_container(self)


class CassandraContainer(CassandraServer):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        script = "exec /opt/cassandra/bin/cassandra -f -R"
        environment = {
            "MAX_HEAP_SIZE": self.heap,
            "HEAP_NEWSIZE": "128m",
            "JVM_EXTRA_OPTS": f"-Dcassandra.config=file://{self.config / 'cassandra.yaml'}",
            "CASSANDRA_LOG_DIR": str(settings.data / "logs"),
        }
        self.process = cast(Any, ContainerProcess(CASSANDRA_IMAGE, self, script, environment))

    def start(self) -> None:
        start_container(self)


def start_container(server: Server) -> None:
    """Start the server's container on a fresh copy of its configuration, unless it runs."""
    if server.process.pid() is None:
        (server.data / "data").mkdir(parents=True, exist_ok=True)
        (server.settings.data / "logs").mkdir(exist_ok=True)
        server.write_config()
        cast(Any, server.process).run()
