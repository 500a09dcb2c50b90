"""Servers of one's own: on free ports and in a folder of their own, beside a platform in daily use."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from infra.cassandra import ensure_tables
from infra.kafka import ensure_topics
from infra.local.checks import free_ports
from infra.local.servers import CassandraServer, KafkaServer, Server, at_once
from infra.settings import Settings, load_settings

FAST_START = "-XX:TieredStopAtLevel=1"
"""Servers that live for minutes never earn back what the optimising compiler costs them: this halves their start."""


def own_settings(data: Path, **more: object) -> Settings:
    """Settings with free ports; what is given besides goes first."""
    kafka, controller, cassandra, storage = free_ports(4)
    return load_settings(
        data=data,
        kafka=f"127.0.0.1:{kafka}",
        cassandra=f"127.0.0.1:{cassandra}",
        kafka_port=kafka,
        kafka_controller_port=controller,
        cassandra_port=cassandra,
        cassandra_storage_port=storage,
        **more,
    )


@contextmanager
def running(settings: Settings, kafka: KafkaServer, cassandra: CassandraServer) -> Iterator[None]:
    """Both servers run, with topics and tables, until the end of the block."""
    both: tuple[Server, Server] = (kafka, cassandra)
    with ExitStack() as ends:
        ends.callback(at_once, Server.stop, both)
        at_once(Server.start, both)
        at_once(Server.wait_until_up, both)
        ensure_topics(settings)
        ensure_tables(settings)
        yield
