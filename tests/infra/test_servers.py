"""The real servers: they come back with what they acknowledged, and tell the truth about whether they serve."""

import signal

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from infra.settings import Settings
from tests.conftest import Servers
from tests.stopped import await_stopped

pytestmark = pytest.mark.servers


def topics(settings: Settings) -> set[str]:
    return set(AdminClient({"bootstrap.servers": settings.kafka}).list_topics(timeout=10).topics)


def test_both_serve(servers: Servers) -> None:
    assert servers.kafka.is_up()
    assert servers.cassandra.is_up()
    assert "jobs.submissions" in topics(servers.settings)


def test_kafka_comes_back_from_a_kill_with_its_topics(servers: Servers) -> None:
    before = topics(servers.settings)
    servers.kafka.kill()
    servers.kafka.start()
    servers.kafka.wait_until_up()
    assert topics(servers.settings) >= before


def test_starting_twice_is_starting_once(servers: Servers) -> None:
    pid = servers.kafka.process.pid()
    servers.kafka.start()
    assert servers.kafka.process.pid() == pid


def test_a_paused_server_is_not_up(servers: Servers) -> None:
    servers.cassandra.kill(signal.SIGSTOP)
    try:
        pid = servers.cassandra.process.pid()
        assert pid is not None
        await_stopped(pid)
        assert not servers.cassandra.is_up()
    finally:
        servers.cassandra.kill(signal.SIGCONT)
    servers.cassandra.wait_until_up()


def test_a_misspelt_topic_is_not_made(servers: Servers) -> None:
    producer = Producer({"bootstrap.servers": servers.settings.kafka, "message.timeout.ms": 3000})
    producer.produce("jobs.submisions", b"{}")
    producer.flush(5)
    assert "jobs.submisions" not in topics(servers.settings)
