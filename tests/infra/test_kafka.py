"""The topics on a real Kafka: made as the guarantees need them, and refused when they are otherwise."""

from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic  # type: ignore[attr-defined]  # re-exported

from dueline.errors import DuelineError, Unavailable
from infra import kafka as module
from infra.kafka import TOPICS, Topic, ensure_topics
from tests.conftest import Servers

pytestmark = pytest.mark.servers


@pytest.fixture
def admin(servers: Servers) -> AdminClient:
    return AdminClient({"bootstrap.servers": servers.settings.kafka})


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> tuple[Topic, Topic]:
    """Two topics that are not there: one keyed by job, one with a partition count of its own."""
    some = Topic(f"test.keyed.{uuid4()}", None, "-1"), Topic(f"test.single.{uuid4()}", 1, "1000")
    monkeypatch.setattr(module, "TOPICS", some)
    return some


def partitions(admin: AdminClient, name: str) -> int:
    return len(admin.list_topics(timeout=10).topics[name].partitions)


def test_topics_keyed_by_job_have_a_partition_a_shard(servers: Servers, admin: AdminClient) -> None:
    for topic in TOPICS:
        assert partitions(admin, topic.name) == (topic.partitions or servers.settings.partitions)


def test_missing_topics_are_made_and_others_left_alone(
    servers: Servers, admin: AdminClient, topics: tuple[Topic, Topic]
) -> None:
    for _ in range(2):
        ensure_topics(servers.settings)
        assert [partitions(admin, topic.name) for topic in topics] == [servers.settings.partitions, 1]
    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic.name) for topic in topics]
    described = [future.result() for future in admin.describe_configs(resources).values()]
    assert [config["retention.ms"].value for config in described] == ["-1", "1000"]
    assert {config["message.timestamp.type"].value for config in described} == {"LogAppendTime"}
    assert {config["max.message.bytes"].value for config in described} == {str(module.RECORD_LENGTH_MAX)}


@pytest.mark.parametrize("which", [0, 1])
def test_another_partition_count_is_refused(
    servers: Servers, admin: AdminClient, topics: tuple[Topic, Topic], which: int
) -> None:
    name = topics[which].name
    admin.create_topics([NewTopic(name, 3, 1)])[name].result()
    while name not in admin.list_topics(timeout=10).topics:
        pass  # the brokers tell each other of it a little later
    with pytest.raises(DuelineError, match=f"{name} has 3 partitions, not"):
        ensure_topics(servers.settings)
    assert topics[1 - which].name not in admin.list_topics(timeout=10).topics  # nothing is made before


def test_a_kafka_that_is_not_there(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    away = servers.settings.model_copy(update={"kafka": "127.0.0.1:1"})
    list_topics = AdminClient.list_topics
    monkeypatch.setattr(AdminClient, "list_topics", lambda self, timeout: list_topics(self, timeout=0.5))
    with pytest.raises(Unavailable, match="make up"):
        ensure_topics(away)
