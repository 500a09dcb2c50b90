"""The commands that ask something of jobs that there are: from options to calls of the client."""

from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dueline.commands import Action, JobFilter
from dueline.errors import InvalidJob
from dueline.states import JobState
from producers.cli import main
from tests.producers.fake_client import Recorder


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    monkeypatch.setattr("producers.cli.control.Client", Recorder)
    monkeypatch.setattr(Recorder, "calls", [])
    return Recorder.calls


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize(
    ("command", "method"),
    [("cancel", "cancel"), ("pause", "pause"), ("resume", "resume"), ("run-now", "run_now")],
)
def test_several_jobs_may_be_named(calls: list[tuple[Any, ...]], command: str, method: str) -> None:
    result = run(command, "a", "b", "--note", "why")
    assert result.exit_code == 0, result.output
    assert calls == [(method, "a", "why"), (method, "b", "why")]
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["a", "b"]


def test_a_dry_run_does_nothing(calls: list[tuple[Any, ...]]) -> None:
    assert run("cancel", "a", "--dry-run").output == "a\n"
    assert not calls


def test_jobs_that_are_described_are_left_to_the_schedulers_to_find(calls: list[tuple[Any, ...]]) -> None:
    result = run("pause", "--class", "http", "--state", "active", "--note", "why")
    assert result.exit_code == 0, result.output
    matching = JobFilter(executor_class="http", state=JobState.ACTIVE)
    assert calls == [("control_all", Action.PAUSE, matching, "why")]
    assert "class http, state ACTIVE" in result.stdout


@pytest.mark.parametrize("arguments", [(), ("a", "--class", "http")])
def test_either_ids_or_a_description(calls: list[tuple[Any, ...]], arguments: tuple[str, ...]) -> None:
    result = run("cancel", *arguments)
    assert result.exit_code == 2
    assert "which jobs?" in result.output
    assert not calls


def test_a_change_names_what_is_new_and_nothing_else(calls: list[tuple[Any, ...]]) -> None:
    options = (
        "--priority",
        "low",
        "--timeout",
        "2m",
        "--every",
        "30s",
        "--retries",
        "2",
        "--overlap",
        "skip",
    )
    result = run("change", "job", *options, "--", "/opt/report", "--brief")
    assert result.exit_code == 0, result.output
    ((method, job_id, fields, note),) = calls
    assert (method, job_id, note) == ("change", "job", "")
    assert fields == {
        "executor_class": "command",
        "params": {"argv": ["/opt/report", "--brief"]},
        "priority": "low",
        "timeout_s": 120.0,
        "triggers": [{"every_s": 30.0}],
        "overlap": "skip",
        "retry": {"max_attempts": 3},
    }


def test_a_change_of_one_parameter_does_not_silently_drop_the_others(calls: list[tuple[Any, ...]]) -> None:
    result = run("change", "job", "--param", "method=PUT")
    assert (result.exit_code, "give all of them, with --params" in result.output) == (2, True)
    result = run("change", "job", "--params", '{"url": "http://a"}', "--param", "method=PUT")
    assert result.exit_code == 0, result.output
    assert calls[0][2] == {"params": {"url": "http://a", "method": "PUT"}}


def test_a_change_of_an_expression_does_not_silently_drop_its_zone(calls: list[tuple[Any, ...]]) -> None:
    result = run("change", "job", "--cron", "0 3 * * *")
    assert (result.exit_code, "say --time-zone, too" in result.output, calls) == (2, True, [])
    result = run("change", "job", "--cron", "0 3 * * *", "--time-zone", "UTC")
    assert result.exit_code == 0, result.output
    assert [trigger["time_zone"] for trigger in calls[0][2]["triggers"]] == ["UTC"]


def test_a_change_of_nothing_is_refused(calls: list[tuple[Any, ...]]) -> None:
    result = run("change", "job")
    assert (result.exit_code, "what is to change?" in result.output) == (2, True)


def test_a_backfill_has_a_span(calls: list[tuple[Any, ...]]) -> None:
    span = ("--start", "2030-01-01T00:00Z", "--end", "2030-01-02T00:00Z")
    result = run("backfill", "job", *span)
    assert result.exit_code == 0, result.output
    start, end = datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 2, tzinfo=UTC)
    assert calls == [("backfill", "job", start, end, "")]


def test_what_the_client_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, timeout: float) -> None:
        raise InvalidJob("fields.priorty", "is not known; did you mean priority?")

    monkeypatch.setattr(Recorder, "change", refuse, raising=False)
    result = run("change", "job", "--priority", "low")
    assert (result.exit_code, result.output) == (
        1,
        "dueline: fields.priorty: is not known; did you mean priority?\n",
    )


def test_runs_are_retried_by_their_ids(calls: list[tuple[Any, ...]]) -> None:
    result = run("retry", "job@1", "job@2", "--note", "mended")
    assert result.exit_code == 0, result.output
    assert calls == [("retry", "job@1", "mended"), ("retry", "job@2", "mended")]
