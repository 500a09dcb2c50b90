"""`dueline scheduler | ledger | executor`: what this process becomes."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from producers.cli import main


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    calls: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr("os.execve", lambda path, command, environment: calls.append((command, environment)))
    return calls


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["scheduler"], ["stream_processors.scheduler"]),
        (["ledger"], ["stream_processors.ledger"]),
        (["executor"], ["consumers"]),
        (
            ["executor", "--slots", "3", "--import", "mine", "--import", "yours"],
            ["consumers", "--slots", "3", "--import", "mine", "--import", "yours"],
        ),
    ],
)
def test_a_stage_is_started_as_a_process_of_its_own(
    became: list[tuple[list[str], dict[str, str]]], arguments: list[str], command: list[str]
) -> None:
    result = CliRunner().invoke(main, ["--kafka", "kafka.example:9092", *arguments])
    assert result.exit_code == 0, result.output
    ((started, environment),) = became
    assert started == [sys.executable, "-m", *command]
    assert environment["DUELINE_KAFKA"] == "kafka.example:9092"
    assert Path(environment["DUELINE_DATA"]).is_absolute()


def test_without_the_extra_the_remedy_is_named(
    became: list[tuple[list[str], dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.cli.start.find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "faust", raising=False)
    result = CliRunner().invoke(main, ["scheduler"])
    assert result.exit_code == 1
    assert "pip install 'dueline[platform]'" in result.stderr
    assert not became
