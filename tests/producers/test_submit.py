"""`dueline submit`: from options and lines to jobs."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dueline.job import Job, Priority
from dueline.policies import Retry
from dueline.triggers import Cron, Every, Once
from producers.cli import main
from tests.producers.fake_client import FakeClient


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> type[FakeClient]:
    monkeypatch.setattr("producers.cli.submit.Client", FakeClient)
    monkeypatch.setattr(FakeClient, "jobs", [])
    monkeypatch.setattr(FakeClient, "accepts", None)
    return FakeClient


def run(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(main, ["submit", *arguments], input=typed)


def submitted(*arguments: str) -> Job:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return FakeClient.jobs[-1]


def test_a_program_after_the_options_is_a_command_due_at_once() -> None:
    assert submitted("--", "/bin/date", "-u") == Job(
        executor_class="command", params={"argv": ["/bin/date", "-u"]}
    )


def test_all_fields_have_an_option() -> None:
    job = submitted(
        *("--class", "http", "--params", '{"url": "https://example.org/", "method": "GET"}'),
        *("--param", "method=POST", "--param", 'body={"n": 1}', "--param", "headers={}"),
        *("--id", "nightly", "--name", "the nightly one", "--priority", "high"),
        *("--cron", "0 2 * * *", "--time-zone", "Europe/Berlin", "--end", "2100-01-01T00:00Z"),
        *("--jitter", "5m"),
        *("--retries", "2", "--backoff", "500ms", "--timeout", "1m30s"),
    )
    assert job == Job(
        executor_class="http",
        params={"url": "https://example.org/", "method": "POST", "body": {"n": 1}, "headers": {}},
        id="nightly",
        name="the nightly one",
        priority=Priority.HIGH,
        triggers=(
            Cron(
                "0 2 * * *",
                "Europe/Berlin",
                end=datetime(2100, 1, 1, tzinfo=UTC),
                jitter=timedelta(minutes=5),
            ),
        ),
        retry=Retry(max_attempts=3, backoff_s=0.5),
        timeout_s=90.0,
    )


def test_several_times_make_several_triggers() -> None:
    before = datetime.now(UTC)
    job = submitted("--at", "2100-01-01T00:00+01:00", "--in", "10s", "--every", "30s", "--", "true")
    at, soon, every = job.triggers
    assert at == Once(datetime(2099, 12, 31, 23, tzinfo=UTC))
    assert isinstance(soon, Once)
    assert timedelta(seconds=9.9) < soon.at - before < timedelta(seconds=15)
    assert every == Every(timedelta(seconds=30))


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], "what is to run?"),
        (["--class", "http", "--", "true"], "not http"),
        (["--param", "argv=[]", "--", "true"], "given twice"),
        (["--retries", "1", "--max-attempts", "2", "--", "true"], "not both"),
        (["--backoff", "1s", "--", "true"], "--retries"),
        (["--pause", "1s", "--pause", "5s", "--", "true"], "--retries"),
        (["--give-up-on", "ValueError", "--", "true"], "--retries"),
        (["--start", "2100-01-01T00:00Z", "--", "true"], "--every or --cron"),
        (["--jitter", "5m", "--", "true"], "--every or --cron"),
        (["--time-zone", "Europe/Berlin", "--", "true"], "that of --cron"),
        (["--at", "2100-01-01T00:00", "--", "true"], "no offset from UTC"),
        (["--at", "tomorrow", "--", "true"], "no ISO 8601 time"),
        (["--in", "soon", "--", "true"], "no duration"),
        (["--in", "999999999d", "--", "true"], "beyond the calendar's end"),
        (["--param", "novalue", "--", "true"], "name=value"),
        (["--params", "[]", "--", "true"], "JSON object"),
        (["--file", "-", "--", "true"], "stands alone"),
        (["--priority", "urgent", "--", "true"], "'high', 'normal', 'low'"),
    ],
)
def test_wrong_options_are_usage_errors(arguments: list[str], hint: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert hint in result.stderr
    assert not FakeClient.jobs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cron", "61", "--", "true"], "trigger.cron"),
        (["--id", "a b", "--", "true"], "id: 'a b'"),
        (["--max-attempts", "0", "--", "true"], "retry.max_attempts"),
        (["--every", "1ms", "--", "true"], "trigger.every_s"),
        (["--timeout", "1h", "--", "true"], "timeout_s"),
    ],
)
def test_wrong_values_are_one_line_that_names_the_field(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"dueline: {message}")
    assert result.stderr.count("\n") == 1


def test_a_kafka_that_does_not_answer_is_one_line(client: type[FakeClient]) -> None:
    client.accepts = 0
    result = run("--", "true")
    assert result.exit_code == 1
    assert result.stderr.startswith("dueline: job some-id was not acknowledged")
    assert result.stdout == ""


LINE: dict[str, Any] = {"executor_class": "command", "params": {"argv": ["true"]}}


def lines(*jobs: object) -> str:
    return "".join(f"{job if isinstance(job, str) else json.dumps(job)}\n" for job in jobs)


def test_wrong_lines_are_reported_by_number_and_all_others_submitted(tmp_path: Path) -> None:
    file = tmp_path / "jobs.jsonl"
    past = {"cron": "* * * * *", "end": "2020-01-01T00:00Z"}
    large = LINE | {"params": {"text": "x" * 256_000}}
    file.write_text(lines(LINE | {"id": "a"}, "", "nonsense", LINE | {"trigger": past}, large, LINE))
    result = run("--file", str(file))
    assert result.exit_code == 1
    assert result.stdout == "a\nid-2\n"
    starts = [f"{file}:3: submission", f"{file}:4: trigger", f"{file}:5: params"]
    assert [line.startswith(start) for line, start in zip(result.stderr.splitlines(), starts, strict=True)]


def test_lines_come_from_stdin_too_in_any_number() -> None:
    result = run("--file", "-", typed=lines(*[LINE] * 2500))
    assert result.exit_code == 0
    assert result.stdout.split() == [f"id-{number}" for number in range(1, 2501)]


def test_lines_that_were_not_acknowledged_are_named(client: type[FakeClient]) -> None:
    client.accepts = 1
    result = run("--file", "-", typed=lines(LINE, "", LINE, LINE))
    assert result.exit_code == 1
    assert result.stdout == "id-1\n"
    not_acknowledged, not_sent, summary = result.stderr.splitlines()
    assert not_acknowledged.startswith("stdin:3: job id-2 was not acknowledged")
    assert not_sent == "stdin:4: this line and all below it were not submitted"
    assert summary.startswith("dueline: of 2 jobs sent 1 were acknowledged")
