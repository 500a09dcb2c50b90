"""`dueline calendar`."""

from datetime import date
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dueline.calendars import Calendar
from producers.cli import main
from tests.producers.fake_client import Recorder


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    monkeypatch.setattr("producers.cli.calendar.Client", Recorder)
    monkeypatch.setattr(Recorder, "calls", [])
    return Recorder.calls


def run(*arguments: str, **more: Any) -> Result:
    return CliRunner().invoke(main, ["calendar", *arguments], **more)


def test_dates_come_from_the_line_and_from_a_file(calls: list[tuple[Any, ...]]) -> None:
    listed = "2030-12-26  # Boxing Day\n\n# 2030-12-31\n"
    result = run("days", "2030-12-25", "--file", "-", "--time-zone", "Europe/Berlin", input=listed)
    assert (result.exit_code, result.output) == (0, "days: 2 dates\n")
    wanted = Calendar("days", [date(2030, 12, 25), date(2030, 12, 26)], "Europe/Berlin")
    assert calls == [("submit_calendar", wanted)]


@pytest.mark.parametrize("arguments", [(), ("--file", "-"), ("--clear", "2030-12-25")])
def test_a_calendar_is_cleared_on_demand_alone(
    calls: list[tuple[Any, ...]], arguments: tuple[str, ...]
) -> None:
    result = run("days", *arguments, input="")
    assert (result.exit_code, "--clear" in result.stderr, calls) == (2, True, [])
    result = run("days", "--clear")
    assert (result.exit_code, result.output) == (0, "days: 0 dates\n")
    assert calls == [("submit_calendar", Calendar("days", []))]
