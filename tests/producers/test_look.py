"""The commands that show, with views that are made up; and their errors."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer

from dueline.address import REJECTED
from dueline.errors import NotFound
from dueline.job import Job
from dueline.runs import Heartbeat, Output
from dueline.states import AttemptState, JobState, RunState
from infra.rejects import CUT, PLACE, REASON
from infra.settings import Settings
from infra.view_values import AttemptView, JobPage, JobView, LastRun, RunView
from producers.cli import main
from tests.conftest import Servers

DUE_MS = 1_900_000_000_000
FAILED = AttemptView(
    attempt=1,
    state=AttemptState.FAILED,
    executor_class="command",
    executor="executor-1",
    started_ms=DUE_MS + 7,
    ended_ms=DUE_MS + 20,
    retry_ms=DUE_MS + 1000,
    reason="exit status 3",
    exit_status=3,
    output="first",
)
SUCCEEDED = replace(
    FAILED, attempt=2, state=AttemptState.SUCCEEDED, retry_ms=None, reason="", exit_status=0, output="second"
)
RUN = RunView(job_id="a", due_ms=DUE_MS, state=RunState.SUCCEEDED, attempts=(FAILED, SUCCEEDED))
JOB = JobView(
    job_id="a",
    state=JobState.COMPLETED,
    job=Job(id="a", executor_class="command", name="the [bold] one", params={"argv": ["true"]}),
    version=3,
    accepted_ms=DUE_MS,
    last_run=LastRun(
        run_id=RUN.run_id,
        due_ms=DUE_MS,
        state=RunState.SUCCEEDED,
        attempts=2,
        started_ms=DUE_MS + 7,
        ended_ms=DUE_MS + 20,
        executor="executor-1",
        lateness_ms=None,
    ),
)
GOES_ON = RunView(
    job_id="goes-on",
    due_ms=DUE_MS,
    state=RunState.RUNNING,
    attempts=(
        AttemptView(
            attempt=1,
            state=AttemptState.RUNNING,
            executor_class="a",
            executor="executor-1",
            started_ms=DUE_MS + 7,
            ended_ms=None,
            progress='{"page":7}',
            heard_ms=DUE_MS + 5000,
        ),
    ),
)
REFUSED = JobView(job_id="b", state=JobState.REJECTED, reason="trigger.cron: six fields")
BEAT = Heartbeat(executor="executor-1", host="h", pid=7, started_ms=1, at_ms=2, slots=2, classes=("command",))


class FakeViews:
    async def jobs(self, limit: int, *, before: str | None, state: JobState | None) -> JobPage:
        return JobPage(jobs=(JOB, REFUSED)[:limit], before="a" if limit == 1 else None)

    async def job(self, job_id: str) -> JobView:
        if job_id == GOES_ON.job_id:
            assert JOB.last_run is not None
            return replace(JOB, job_id=job_id, last_run=replace(JOB.last_run, run_id=GOES_ON.run_id))
        return {"a": JOB, "b": REFUSED}[job_id]

    async def runs(self, job_id: str, limit: int, *, before_ms: int = RUN.due_ms + 1) -> tuple[RunView, ...]:
        return (RUN,) if RUN.due_ms < before_ms else ()

    async def run(self, run: str) -> RunView:
        if run in ("a", RUN.run_id):
            return RUN
        if run == GOES_ON.run_id:
            return GOES_ON
        if run == "waits":
            return RunView(job_id="waits", due_ms=DUE_MS, state=RunState.SCHEDULED)
        raise NotFound(f"there is no run {run}")

    async def executors(self) -> tuple[Heartbeat, ...]:
        return (BEAT,)


def outputs(root: Path, address: str) -> Output:
    return Output(
        run_id=RUN.run_id,
        attempt=1 if address == "first" else 2,
        state=AttemptState.SUCCEEDED,
        started_ms=DUE_MS + 7,
        ended_ms=DUE_MS + 20,
        exit_status=0,
        result='{"n": 1}',
        stdout=f"{address} \xff".encode("latin-1"),
        stderr=b"oops\n",
    )


@pytest.fixture(autouse=True)
def views(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def open_views(settings: Settings) -> AsyncIterator[FakeViews]:
        yield FakeViews()

    monkeypatch.setattr("infra.views.open_views", open_views)
    monkeypatch.setattr("producers.cli.look.read_output", outputs)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def shown(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def read(*arguments: str) -> list[Any]:
    return [json.loads(line) for line in shown(*arguments, "--json").splitlines()]


def test_jobs_are_a_table_for_people() -> None:
    header, first, second = shown("jobs").splitlines()
    assert header.split()[:2] == ["job", "class"]
    assert first.startswith("a (the [bold] one)")
    assert {"COMPLETED", "SUCCEEDED", "executor-1"} <= set(first.split())
    assert second.split() == ["b", "REJECTED"]


def test_jobs_are_lines_for_programs() -> None:
    first, second = read("jobs")
    assert first["id"] == "a"
    assert first["last_run"]["started"] == "2030-03-17T17:46:40.007Z"
    assert (second["state"], second["reason"], second["last_run"]) == ("REJECTED", REFUSED.reason, None)


def test_a_listing_that_goes_on_says_how_without_disturbing_programs() -> None:
    result = run("jobs", "--limit", "1", "--json")
    assert len(result.stdout.splitlines()) == 1
    assert "--before a" in result.stderr


def test_a_job_is_shown_with_its_definition_and_the_attempts_of_its_last_run() -> None:
    text = shown("job", "a")
    for part in ("the [bold] one", '{"argv": ["true"]}', "exit status 3", "7 ms"):
        assert part in text
    (form,) = read("job", "a")
    assert [attempt["state"] for attempt in form["last_run"]["attempts"]] == ["FAILED", "SUCCEEDED"]


def test_of_a_run_that_goes_on_its_progress_is_shown() -> None:
    text = shown("job", "goes-on")
    assert 'progress     {"page":7}\nlast heard   2030-03-17 17:46:45\n' in text
    (form,) = read("job", "goes-on")
    (attempt,) = form["last_run"]["attempts"]
    assert (attempt["progress"], attempt["last_heard"]) == ({"page": 7}, "2030-03-17T17:46:45.000Z")
    assert {attempt["progress"] for attempt in read("runs", "a")[0]["attempts"]} == {None}


def test_a_rejected_job_is_shown_with_its_reason() -> None:
    assert "trigger.cron: six fields" in shown("job", "b")


def test_runs_have_a_line_for_each_of_several_attempts() -> None:
    assert len(shown("runs", "a").splitlines()) == 4
    (form,) = read("runs", "a")
    assert (form["run_id"], form["lateness_ms"]) == (RUN.run_id, 7)


def test_the_output_is_that_of_the_latest_attempt_or_of_the_one_asked_for() -> None:
    text = shown("output", "a")
    assert "attempt 2: SUCCEEDED after 13 ms, lateness 7 ms" in text
    assert 'result {"n": 1}' in text
    assert "--- stderr\noops\n" in text
    (form,) = read("output", RUN.run_id, "--attempt", "1")
    assert form["stdout"] == "first \\xff"


def test_the_standard_output_alone_is_byte_for_byte() -> None:
    assert run("output", "a", "--stdout-only").stdout_bytes == b"second \xff"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["output", "nix"], "there is no run nix"),
        (["output", "waits"], "is SCHEDULED and has written nothing yet"),
        (["output", "a", "--attempt", "3"], "has no attempt 3; it has 1, 2"),
    ],
)
def test_what_is_missing_is_one_line_on_stderr(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("dueline: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_runs_are_listed_page_by_page() -> None:
    first = run("runs", "a", "--limit", "1")
    assert first.stderr == f"more may follow: --before {RUN.run_id}\n"
    assert run("runs", "a", "--limit", "1", "--before", RUN.run_id, "--json").stdout == ""
    assert "--before: 'nix' is not a run id" in run("runs", "a", "--before", "nix").stderr


def test_executors_are_shown_with_what_they_have() -> None:
    assert "silent" in shown("executors")  # its heartbeat is from 1970
    assert read("executors")[0]["classes"] == ["command"]


def test_a_wrong_setting_is_one_line() -> None:
    result = run("--kafka", "nowhere", "rejected")
    assert result.exit_code == 1
    assert result.stderr.startswith("dueline: DUELINE_KAFKA: 'nowhere' is no address")


def test_a_kafka_that_is_down_is_one_line() -> None:
    result = run("--kafka", "127.0.0.1:1", "rejected")
    assert result.exit_code == 1
    assert "Kafka does not answer at 127.0.0.1:1" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.servers
def test_rejected_submissions_are_read_from_their_topic(servers: Servers) -> None:
    producer = Producer({"bootstrap.servers": servers.settings.kafka})
    marks = {REASON: b"neither JSON nor Avro: [/data/x]", PLACE: b"jobs.submissions/3/9", CUT: b"5 bytes"}
    producer.produce(REJECTED, b"\xffbytes", b"key", headers=dict(marks), partition=3)
    assert producer.flush(10) == 0
    arguments = ["--kafka", servers.settings.kafka, "rejected"]
    assert "neither JSON nor Avro: [/data/x]" in shown(*arguments)
    ours = [form for form in read(*arguments) if form["key"] == "key"]
    assert ours[0]["place"] == "jobs.submissions/3/9"
    assert ours[0]["value"] == "\\xffbytes"
    assert ours[0]["cut"] == "5 bytes"
