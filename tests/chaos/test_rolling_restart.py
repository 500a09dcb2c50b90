"""A rolling restart under load: every process gets SIGTERM, one after the other, and nothing is lost or repeated for it."""

import asyncio
import os
import select
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from consumers.executor import DRAIN_ON_REVOKE_S
from tests.chaos.checker import judge
from tests.chaos.checker.figures import cut
from tests.chaos.checker.past import Execution, Past, read
from tests.chaos.claims import collect, settle
from tests.chaos.faults import Fault
from tests.chaos.field import ROLES, Field, field_on
from tests.conftest import Servers
from tests.platform.conftest import drop_submissions, wait_for

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

RATE = 8.0
SETTLE_LIMIT_S = 120.0


def test_a_rolling_restart_repeats_nothing_that_could_have_finished(servers: Servers, tmp_path: Path) -> None:
    drop_submissions(servers.settings)
    with field_on(servers.settings, servers.kafka, servers.cassandra, tmp_path) as field:
        with field.load(seed=1, rate=RATE):
            wait_for(lambda: len(ended(field)) >= 40, "the first runs", 60)
            for role in ROLES:
                for number in (1, 2):
                    restart(field, f"{role}-{number}")
        assert asyncio.run(settle(servers.settings, tmp_path, SETTLE_LIMIT_S))
        asyncio.run(collect(servers.settings, tmp_path))
        past = read(tmp_path)
    assert field.did_not_end == []
    assert judge(tmp_path).anomalies == ()
    assert [run for run, executions in past.executions.items() if repeated(executions)] == []
    assert list(cut_too_soon(past)) == []


def restart(field: Field, name: str) -> None:
    """SIGTERM a process; returns when it has ended, another one serves, and jobs go on."""
    worker = field.worker(name)
    assert worker is not None
    handle = os.pidfd_open(worker)
    try:
        assert Fault(kind="sigterm", target=name).perform(field) == ""
        select.select([handle], [], [])
    finally:
        os.close(handle)
    field.processes[name].wait_until_up()
    before = len(ended(field))
    wait_for(lambda: len(ended(field)) >= before + 20, f"runs after the restart of {name}", 60)


def ended(field: Field) -> Sequence[str]:
    return [line["run"] for line in field.history.read("executions") if line["what"] == "end"]


def repeated(executions: Sequence[Execution]) -> bool:
    """Whether a run was executed again after one that had ended well."""
    return any(one.outcome == "success" for one, _ in pairwise(executions))


def cut_too_soon(past: Past) -> Iterator[str]:
    """Runs that were cut, and needed less than the shortest drain time when they were repeated."""
    for one, _ in cut(past):
        whole = [each for each in past.executions[one.run] if each.outcome == "success"]
        if any(each.last_ns - each.start_ns < DRAIN_ON_REVOKE_S * 1e9 for each in whole):
            yield one.run
