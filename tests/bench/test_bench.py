"""The quick form of the benchmarks: that they work, and clean up. Never how fast anything was."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.own_servers import FAST_START

ROOT = Path(__file__).parents[2]
SMALL = {
    "DUELINE_KAFKA_HEAP": "320m",
    "DUELINE_CASSANDRA_HEAP": "640m",
    "JDK_JAVA_OPTIONS": FAST_START,
}
#: Servers and platform start anew, on a machine that may have other things to do.
LIMIT_S = 540.0


@pytest.mark.servers
@pytest.mark.timeout(LIMIT_S + 60)
def test_drain_and_sustain_tell_what_they_saw(tmp_path: Path) -> None:
    lines = bench(tmp_path, "drain", "--jobs", "100", "sustain")

    machine, *measured = lines
    assert machine["bench"] == "machine"
    assert machine["quick"]
    assert machine["cores"] == os.cpu_count()
    assert machine["kafka"]["version"]
    assert "group" in machine["cassandra"]["durability"]
    summaries = [line for line in measured if "spread" in line]
    assert [(line["bench"], line.get("way")) for line in summaries] == [
        ("drain", "bulk"),
        ("drain", "one caller"),
        ("drain", "eight callers"),
        ("sustain", None),
    ]
    parts = {"kafka", "cassandra", "scheduler", "ledger", "executor", "guard", "slots", "submitter"}
    for line in summaries:
        assert line["cpu_us_per_job"].keys() == parts
        assert line["cpu_us_per_job_total"] > 0
        assert line["lateness_ms"]["min"] >= 0
        assert line["repeated"] == 0
    for line in summaries[:3]:
        assert line["jobs"] == 100
        assert line["jobs_per_s"] > 0
        assert line["spread"]["jobs_per_s"] == [line["jobs_per_s"]] * 2
    assert summaries[3]["refused"] == 0
    assert summaries[3]["jobs"] > 0
    assert summaries[3]["ack_ms"]["p99"] > 0

    assert [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()] == lines
    page = (tmp_path / "index.html").read_text()
    assert page.count("<svg") >= 4
    assert "eight callers" in page


def bench(out: Path, *arguments: str) -> list[Mapping[str, Any]]:
    """The lines of a quick round of each, of which no process is left."""
    command = [sys.executable, "-m", "tests.bench", "--quick", "--rounds", "1", "--out", str(out), *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | SMALL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            told, said = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            process.terminate()  # it stops what it has started
            raise
    assert process.returncode == 0, said
    folder = said.partition("in the folder ")[2].split()[0]
    assert not Path(folder).exists()
    assert not [pid for pid in Path("/proc").glob("[0-9]*") if folder in _command_line(pid)]
    return [json.loads(line) for line in told.splitlines()]


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""
