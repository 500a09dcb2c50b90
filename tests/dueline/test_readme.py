"""The examples of the README that need no platform do what it says."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dueline.registry import Run, find

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_example_of_a_trigger(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = re.findall(r"```python\n(from datetime [^`]*next_due[^`]*)```\n\n    (.*)\n", README)[0]
    exec(code, {})
    assert capsys.readouterr().out.strip() == printed


def test_the_example_of_a_run_that_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n([^`]*last_progress[^`]*)```", README)
    exec(code, {})
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
