"""Runs that do harm: those whose own process dies, and those with which their executor goes down."""

import time
from pathlib import Path

import pytest

from consumers.findings import LOST_ALONE_MAX, LOST_BESIDE_OTHERS_MAX
from dueline import Client, Job, Retry
from dueline.runs import RunEvent
from dueline.states import AttemptState
from tests.platform.conftest import Platform, wait_for
from tests.platform.test_kinds import await_ends
from tests.platform.test_lease import Execution, executions, names_in, records

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

SHARD = 7
STARTS = LOST_BESIDE_OTHERS_MAX + LOST_ALONE_MAX


def test_the_third_crash_ends_a_run(platform: Platform) -> None:
    job_id = f"crash-{time.time_ns()}"
    with Client(platform.settings.kafka) as client:
        client.submit("crash", {}, id=job_id, retry=Retry(backoff_s=0.1))
    ends = await_ends(platform, job_id, 3)
    assert [(end.attempt, end.state) for end in ends] == [(n, AttemptState.CRASHED) for n in (1, 2, 3)]
    assert [end.retry_ms is None for end in ends] == [False, False, True]


def test_a_run_with_which_its_executors_go_down_ends_and_holds_up_nobody(
    platform: Platform, history: Path
) -> None:
    """The harm that it does is stood in for by a SIGKILL of the executor, whenever it has begun."""
    (heavy,) = names_in(platform, SHARD, 1)
    with Client(platform.settings.kafka) as client:
        client.submit("pulse", {"history": str(history), "seconds": 120}, id=heavy)
        for start in range(1, STARTS + 1):
            wait_for(lambda start=start: starts_of(platform, heavy) == start, f"its start {start}", 60)  # type: ignore[misc]
            client.submit_many(companion(history) for _ in range(10))
            if start <= LOST_BESIDE_OTHERS_MAX:
                wait_for(lambda start=start: ended(history) == 10 * start, "the runs beside it", 60)  # type: ignore[misc]
            platform.kill("executor")
    *interrupted, last = await_ends(platform, heavy, STARTS)
    assert [(event.attempt, event.state) for event in interrupted] == [
        (attempt, AttemptState.INTERRUPTED) for attempt in range(1, STARTS)
    ]
    assert (last.attempt, last.state, last.retry_ms) == (STARTS, AttemptState.CRASHED, None)
    assert "executors were lost" in last.reason
    wait_for(lambda: ended(history) == 10 * STARTS, "the runs that waited for it", 60)
    found = executions(history)
    heavy_ones = [execution for execution in found if execution.run.startswith(heavy)]
    assert [execution.attempt for execution in heavy_ones] == list(range(1, STARTS + 1))
    others = [execution for execution in found if execution not in heavy_ones]
    for lonely in heavy_ones[LOST_BESIDE_OTHERS_MAX:]:
        assert not [other for other in others if overlap(lonely, other)]


def companion(history: Path) -> Job:
    params = {"history": str(history), "seconds": 0.02}
    return Job(executor_class="pulse", params=params, timeout_s=30)


def starts_of(platform: Platform, job_id: str) -> int:
    """How many starts of it the log holds."""
    events = [record for _, record in records(platform) if isinstance(record, RunEvent)]
    return len([e for e in events if e.job_id == job_id and e.state is AttemptState.RUNNING])


def ended(history: Path) -> int:
    return len({execution.run for execution in executions(history) if execution.ended})


def overlap(one: Execution, other: Execution) -> bool:
    return one.start_ns <= other.last_ns and other.start_ns <= one.last_ns
