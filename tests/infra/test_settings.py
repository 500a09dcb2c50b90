"""What settings are refused, and that the sentence names them."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from infra.settings import Settings, SettingsError, load_settings


def test_the_local_servers_are_the_default_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUELINE_KAFKA_PORT", "19092")
    assert Settings().kafka == "127.0.0.1:19092"
    assert Settings(kafka="kafka-1:9092,kafka-2:9092").kafka == "kafka-1:9092,kafka-2:9092"


def test_a_misspelt_variable_is_refused_with_a_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUELINE_KAKFA_PORT", "19092")
    with pytest.raises(SettingsError, match=r"DUELINE_KAKFA_PORT is set.*did you mean DUELINE_KAFKA_PORT"):
        load_settings()


def test_a_wrong_value_is_refused_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUELINE_PARTITIONS", "many")
    with pytest.raises(SettingsError, match=r"^DUELINE_PARTITIONS: "):
        load_settings()


def test_two_servers_cannot_share_a_port() -> None:
    with pytest.raises(ValidationError, match="kafka_port and cassandra_port are both 9042"):
        Settings(kafka_port=9042)


@pytest.mark.parametrize("address", ["localhost", "host:", "http://host:9092", "host:9092, other:9092"])
def test_addresses_are_host_and_port(address: str) -> None:
    with pytest.raises(ValidationError, match="is no address"):
        Settings(kafka=address)


@pytest.mark.parametrize("heap", ["1", "1gb", "-1g", "1 g"])
def test_heaps_are_a_number_with_a_unit(heap: str) -> None:
    with pytest.raises(ValidationError, match="kafka_heap"):
        Settings(kafka_heap=heap)


def test_other_processes_get_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = Settings(data=tmp_path, kafka="elsewhere:9092", cassandra_port=19042)
    for name, value in given.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == given
