"""The examples of the README that need no platform do what they say."""

import asyncio
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dueline import Every, JobFilter, JobState, registry
from dueline.codec import decode_submission
from dueline.commands import BulkCommand, ControlCommand
from dueline.registry import Run, find
from dueline.testing import TestPlatform

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_example_of_a_trigger(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = re.findall(r"```python\n(from datetime [^`]*next_due[^`]*)```\n\n    (.*)\n", README)[0]
    exec(code, {})
    assert capsys.readouterr().out.strip() == printed


def test_the_example_of_a_run_that_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    exec(example("last_progress"), {})
    reports: list[str | None] = []
    run = Run(
        run_id="job@0",
        job_id="job",
        executor_class="import-pages",
        attempt=2,
        due=datetime.now(UTC),
        params={"pages": 3},
        timeout=timedelta(seconds=1),
        deadline=datetime.now(UTC),
        last_progress=1,
        tell=reports.append,
    )
    asyncio.run(find(run.executor_class)(run))
    assert reports == ["2", "3"]
    assert [line.split("Z ")[1] for line in capsys.readouterr().err.splitlines()] == [
        "fetched page=1",
        "fetched page=2",
    ]


def test_the_example_of_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_functions", dict(registry._functions))
    my_jobs = ModuleType("my_jobs")
    exec(example('@executor_class("greet")'), my_jobs.__dict__)
    monkeypatch.setitem(sys.modules, "my_jobs", my_jobs)
    names: dict[str, Any] = {}
    exec(example("def test_"), names)
    (test,) = (value for name, value in names.items() if name.startswith("test_"))
    test()


def test_the_example_of_policies() -> None:
    names: dict[str, Any] = {}
    exec(example("watch = Job("), names)
    assert names["watch"].retry.pause_ms(3, 0.0) == 30_000
    assert names["watch"].overlap_policy == "skip"


@pytest.mark.parametrize("line", re.findall(r"`(\{\"action\".*?\})` \|", README))
def test_the_records_of_commands_can_be_read(line: str) -> None:
    moment = "2030-01-01T00:00Z"
    assert isinstance(decode_submission(line.replace("…", moment).encode()), ControlCommand | BulkCommand)


@pytest.mark.parametrize("call", re.findall(r"`(client\.\w+\(\".*?\))` \|", README))
def test_the_calls_of_commands_can_be_made(call: str) -> None:
    platform = TestPlatform()
    platform.client.submit("command", {"argv": ["/bin/true"]}, id="tick", trigger=Every(timedelta(days=1)))
    now = platform.clock.now()
    names = {"client": platform.client, "JobFilter": JobFilter, "JobState": JobState}
    eval(call, names | {"start": now - timedelta(days=2), "end": now})
    # The run of the example is none of this platform's.
    assert all("nothing is recorded of it" in rejected.reason for rejected in platform.rejected)


def example(what: str) -> str:
    """The one example that has this in it."""
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if what in code)
    return str(code)
