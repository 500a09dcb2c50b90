"""`dueline calendar`."""

from datetime import date
from typing import Any, Self

import pytest
from click.testing import CliRunner, Result

from dueline.calendars import Calendar
from producers.cli import main


class Recorder:
    """A client that writes down which calendars it is to submit."""

    kept: list[Calendar]

    def __init__(self, bootstrap: str) -> None:
        pass

    def submit_calendar(self, calendar: Calendar, *, timeout: float) -> None:
        self.kept.append(calendar)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Calendar]:
    monkeypatch.setattr("producers.cli.calendar.Client", Recorder)
    monkeypatch.setattr(Recorder, "kept", [], raising=False)
    return Recorder.kept


def run(*arguments: str, **more: Any) -> Result:
    return CliRunner().invoke(main, ["calendar", *arguments], **more)


def test_dates_come_from_the_line_and_from_a_file(kept: list[Calendar]) -> None:
    listed = "2030-12-26  # Boxing Day\n\n# 2030-12-31\n"
    result = run("days", "2030-12-25", "--file", "-", "--time-zone", "Europe/Berlin", input=listed)
    assert (result.exit_code, result.output) == (0, "days: 2 dates\n")
    assert kept == [Calendar("days", [date(2030, 12, 25), date(2030, 12, 26)], "Europe/Berlin")]


@pytest.mark.parametrize("arguments", [(), ("--file", "-"), ("--clear", "2030-12-25")])
def test_a_calendar_is_cleared_on_demand_alone(kept: list[Calendar], arguments: tuple[str, ...]) -> None:
    result = run("days", *arguments, input="")
    assert (result.exit_code, "--clear" in result.stderr, kept) == (2, True, [])
    result = run("days", "--clear")
    assert (result.exit_code, result.output) == (0, "days: 0 dates\n")
    assert kept == [Calendar("days", [])]
