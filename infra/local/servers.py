"""The local Kafka and the local Cassandra: one JVM each, with the configuration that lies beside this file.

`start` returns when the process runs, `wait_until_up` when it answers: the two apart, so that both servers can start at once
and a test can do something in between. A server that runs is left alone by `start`, a stopped one by `stop`.
"""

import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from string import Template
from typing import ClassVar, TypeVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from dueline.errors import Unavailable
from infra.local.background import Background, last_lines
from infra.local.checks import check_disk, check_port, find_java
from infra.local.jars import jars_of
from infra.settings import Settings

T = TypeVar("T")

Say = Callable[[str], None]
"""Tells a person what is going on."""

UP_LIMIT_S = 120.0
"""Both answer within 15 s on two idle cores; eight times that is a server that hangs."""

STOP_LIMIT_S = 30.0
"""Both stop within 5 s; a busy Cassandra first writes its memtables out."""

ANSWER_LIMIT_S = 2.0
"""An answer to "are you there" takes milliseconds; a paused server gives none."""


class Server(ABC):
    """One server in the background."""

    name: ClassVar[str]
    main_class: ClassVar[str]
    config_files: ClassVar[Sequence[str]]
    timer_slack_ns: ClassVar[int] = 0

    def __init__(self, settings: Settings, say: Say = lambda _: None) -> None:
        self.settings = settings
        self.data = settings.data / self.name
        self.source = Path(__file__).parent / self.name
        self.config = self.data / "config"
        self._say = say
        self._marker = f"-Ddueline.data={self.data}"
        self.process = Background(
            name=self.name,
            marker=self._marker,
            pid_file=settings.data / "run" / f"{self.name}.pid",
            log_file=settings.data / "logs" / f"{self.name}.log",
            timer_slack_ns=self.timer_slack_ns,
        )

    @property
    @abstractmethod
    def ports(self) -> dict[str, int]:
        """The ports it listens on, by the name of their setting; clients use the first."""

    @property
    @abstractmethod
    def heap(self) -> str:
        """The size of its heap."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it serves a client's request now."""

    def placeholders(self) -> dict[str, object]:
        """What its configuration files leave open."""
        return {"data": self.data}

    def java_options(self, jars: Path) -> list[str]:
        """Options besides those of jvm.options."""
        return []

    def prepare(self, java: Path, class_path: str) -> None:
        """What must be done before each start, if anything."""
        return

    def check(self) -> Path:
        """The Java to start it with. Raises Unavailable, with the remedy, where the machine lacks something."""
        check_disk(self.data)
        for setting, port in self.ports.items():
            check_port(port, setting)
        return find_java()

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.process.pid() is not None:
            return
        java = self.check()
        jars = jars_of(self.name, self.source / "pom.xml", self.settings.cache, self._say)
        class_path = f"{jars}/*"
        self.write_config()
        self.prepare(java, class_path)
        heap = [f"-Xms{self.heap}", f"-Xmx{self.heap}", f"-XX:ErrorFile={self.process.log_file}.crash"]
        options = [f"@{self.source / 'jvm.options'}", *heap, *self.java_options(jars), self._marker]
        pid = self.process.start(
            [java, *options, "-cp", class_path, self.main_class, *self.arguments()], os.environ
        )
        self._say(f"starting (process {pid})")

    def arguments(self) -> list[str]:
        """What its main class is called with."""
        return []

    def wait_until_up(self, limit_s: float = UP_LIMIT_S) -> None:
        """Return when it answers. Raises Unavailable when it has died, or takes longer than the limit."""
        begun = time.monotonic()
        told = begun
        while not self.answers():
            now = time.monotonic()
            if self.process.pid() is None:
                raise Unavailable(self._with_log(f"{self.title} died while it was starting"))
            if now - begun > limit_s:
                raise Unavailable(self._with_log(f"{self.title} does not answer after {limit_s:.0f} s"))
            if now - told >= 5.0:
                self._say(f"still starting, {now - begun:.0f} s so far")
                told = now
            time.sleep(0.1)
        self._say(f"answers on 127.0.0.1:{next(iter(self.ports.values()))}")

    def is_up(self) -> bool:
        """Whether our process runs and answers."""
        return self.process.pid() is not None and self.answers()

    def stop(self) -> None:
        """Stop it, and return when it has ended."""
        if self.process.pid() is not None:
            self._say("stopping")
        self.process.stop(STOP_LIMIT_S)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal: SIGKILL, or SIGSTOP and SIGCONT to have it pause."""
        self.process.signal(number)

    @property
    def title(self) -> str:
        return self.name.capitalize()

    def write_config(self) -> None:
        """Fill in its configuration files and lay them into its data folder."""
        self.config.mkdir(parents=True, exist_ok=True)
        for name in self.config_files:
            text = (self.source / name).read_text()
            (self.config / name).write_text(Template(text).substitute(self.placeholders()))

    def _with_log(self, what: str) -> str:
        log = self.process.log_file
        return f"{what}: its log {log} says why; it ends with\n{last_lines(log)}"


class KafkaServer(Server):
    """Broker and controller in one process."""

    name = "kafka"
    main_class = "kafka.Kafka"
    config_files = ("server.properties",)

    @property
    def ports(self) -> dict[str, int]:
        return {
            "DUELINE_KAFKA_PORT": self.settings.kafka_port,
            "DUELINE_KAFKA_CONTROLLER_PORT": self.settings.kafka_controller_port,
        }

    @property
    def heap(self) -> str:
        return self.settings.kafka_heap

    def placeholders(self) -> dict[str, object]:
        return {
            "data": self.data / "data",
            "port": self.settings.kafka_port,
            "controller_port": self.settings.kafka_controller_port,
        }

    def java_options(self, jars: Path) -> list[str]:
        return [f"-Dlog4j2.configurationFile={self.source / 'log4j2.xml'}"]

    def arguments(self) -> list[str]:
        return [str(self.config / "server.properties")]

    def prepare(self, java: Path, class_path: str) -> None:
        """Kafka's storage has to be formatted once."""
        if (self.data / "data" / "meta.properties").exists():
            return
        self._say("formatting its storage")
        command = [str(java), *self.java_options(Path()), "-cp", class_path, "kafka.tools.StorageTool"]
        command += ["format", "--cluster-id", "ZHVlbGluZS1sb2NhbC0wMQ", "--ignore-formatted"]
        command += ["--config", *self.arguments()]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Unavailable(
                f"Kafka could not format {self.data}: {(done.stderr or done.stdout).strip()[-500:]}; remove the folder "
                "if nothing in it is needed, and try again"
            )

    def answers(self) -> bool:
        if not _accepts(
            self.settings.kafka_port
        ):  # the client below would fill the terminal with its complaints
            return False
        client = AdminClient({"bootstrap.servers": self.settings.local_kafka, "log_level": 0})
        try:
            return bool(client.list_topics(timeout=ANSWER_LIMIT_S).brokers)
        except KafkaException:
            return False


class CassandraServer(Server):
    """One node, a cluster of its own."""

    name = "cassandra"
    main_class = "org.apache.cassandra.service.CassandraDaemon"
    config_files = ("cassandra.yaml",)
    #: An idle worker of Cassandra looks for work every ten microseconds for a while, in naps that end so late at most. With the kernel's
    #: 50 microseconds that is seven wake-ups a job at 800 jobs a second, and a fourth of what Cassandra costs there; with this two.
    timer_slack_ns = 1_000_000

    @property
    def ports(self) -> dict[str, int]:
        return {
            "DUELINE_CASSANDRA_PORT": self.settings.cassandra_port,
            "DUELINE_CASSANDRA_STORAGE_PORT": self.settings.cassandra_storage_port,
        }

    @property
    def heap(self) -> str:
        return self.settings.cassandra_heap

    def placeholders(self) -> dict[str, object]:
        return {
            "data": self.data,
            "port": self.settings.cassandra_port,
            "storage_port": self.settings.cassandra_storage_port,
        }

    def java_options(self, jars: Path) -> list[str]:
        (memory_meter,) = jars.glob("jamm-*.jar")  # how Cassandra measures its memtables
        return [
            f"-javaagent:{memory_meter}",
            f"-Dlogback.configurationFile={self.source / 'logback.xml'}",
            f"-Dcassandra.config=file://{self.config / 'cassandra.yaml'}",
            f"-Dcassandra.storagedir={self.data}",
            "-Dcassandra-foreground=yes",
        ]

    def answers(self) -> bool:
        """Ask for the protocol's options: the port is opened last, when the node can serve all else."""
        options_request = b"\x04\x00\x00\x00\x05\x00\x00\x00\x00"
        supported_reply = 0x06
        try:
            with socket.create_connection(
                ("127.0.0.1", self.settings.cassandra_port), ANSWER_LIMIT_S
            ) as connection:
                connection.sendall(options_request)
                header = connection.recv(9)
        except OSError:
            return False
        return len(header) > 4 and header[4] == supported_reply


def servers_of(settings: Settings, say: Say = lambda _: None) -> tuple[KafkaServer, CassandraServer]:
    """Both servers; what they have to say is said with their names."""
    return KafkaServer(settings, labelled(say, "kafka")), CassandraServer(
        settings, labelled(say, "cassandra")
    )


def labelled(say: Say, name: str) -> Say:
    """The same, with a name in front."""
    return lambda text: say(f"{name:<10} {text}")


def start_servers(settings: Settings, say: Say = lambda _: None) -> None:
    """Start both at once, and return when both answer. What was started stays, also where the other failed."""

    def bring_up(server: Server) -> None:
        server.start()
        server.wait_until_up()

    servers = servers_of(settings, say)
    for server in servers:
        if server.process.pid() is None:
            server.check()  # before either of them takes its seconds
    at_once(bring_up, servers)


def stop_servers(settings: Settings, say: Say = lambda _: None) -> None:
    """Stop both at once, and return when both have ended."""
    at_once(Server.stop, servers_of(settings, say))


def at_once(work: Callable[[T], None], items: Iterable[T]) -> None:
    """Do the same for each, all at once; the first failure is raised when all have ended."""
    with ThreadPoolExecutor() as pool:
        for outcome in [pool.submit(work, item) for item in items]:
            outcome.result()


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), ANSWER_LIMIT_S):
            return True
    except OSError:
        return False
