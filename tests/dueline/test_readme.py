"""The examples of the README that need no platform do what they say."""

import asyncio
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dueline import registry
from dueline.registry import Run, find

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


def example(what: str) -> str:
    """The one example that has this in it."""
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if what in code)
    return str(code)
