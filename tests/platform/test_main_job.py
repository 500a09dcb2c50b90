"""The main job, end to end, on real servers: every accepted job runs, whatever is killed or down in the midst of it."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from dueline import Client, Job, Priority, Retry
from dueline.address import READY, minute_of, shard_of
from dueline.codec import decode_ready_run, decode_run_event
from dueline.ids import generated_at_ms, run_id
from dueline.outputs import read_output
from infra.log_reader import beginning, read_to_end
from tests.platform.conftest import Platform, lines_of, wait_for

JOBS = 1_000
RECORDED = "SELECT run_id, attempt, state, event FROM runs WHERE minute = %s AND shard = %s"

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]


@dataclass(frozen=True)
class Recorded:
    """A row of the ledger."""

    attempt: int
    state: str
    output: str


def test_a_thousand_jobs_each_run_once(platform: Platform, history: Path) -> None:
    ids = submit(platform, history)
    records = await_all_recorded(platform, ids)
    judge(platform, history, ids, records)
    assert set(executions(history, "start").values()) == {1}
    assert ready_counts(platform, ids) == {1: JOBS}


@pytest.mark.parametrize("name", ["scheduler", "ledger", "executor"])
def test_a_killed_process_loses_nothing(platform: Platform, history: Path, name: str) -> None:
    ids = submit(platform, history, seconds=0.005)
    wait_for(lambda: len(executions(history, "end")) > JOBS // 10, "the first tenth of the runs", 60)
    platform.kill(name)
    records = await_all_recorded(platform, ids)
    judge(platform, history, ids, records)
    if name != "executor":  # only an executor's runs can have been in the midst of anything
        assert set(executions(history, "start").values()) == {1}


@pytest.mark.parametrize("name", ["kafka", "cassandra"])
def test_a_server_that_goes_and_comes_loses_nothing(platform: Platform, history: Path, name: str) -> None:
    ids = submit(platform, history, seconds=0.005)
    wait_for(lambda: len(executions(history, "end")) > JOBS // 10, "the first tenth of the runs", 60)
    server = platform.servers.kafka if name == "kafka" else platform.servers.cassandra
    server.stop()
    server.start()
    server.wait_until_up()
    records = await_all_recorded(platform, ids)
    judge(platform, history, ids, records)


def submit(platform: Platform, history: Path, seconds: float = 0) -> list[str]:
    """A thousand jobs, due now, in mixed priorities."""
    priorities = list(Priority)
    with Client(platform.settings.kafka) as client:
        return client.submit_many(
            Job(
                executor_class="record",
                params={"history": str(history), "number": number, "seconds": seconds},
                priority=priorities[number % len(priorities)],
                retry=Retry(max_attempts=1),
                timeout_s=30,
            )
            for number in range(JOBS)
        )


def judge(platform: Platform, history: Path, ids: list[str], records: dict[str, Recorded]) -> None:
    """Kafka, Cassandra, the output store and what the jobs wrote themselves agree."""
    runs = {run_id(job_id, generated_at_ms(job_id)) for job_id in ids}
    assert executions(history, "end").keys() == runs
    assert records.keys() == runs
    assert Counter(record.state for record in records.values()) == {"SUCCEEDED": JOBS}
    assert sum(ready_counts(platform, ids).values()) == JOBS
    outputs = platform.settings.data / "outputs"
    for run, record in records.items():
        output = read_output(outputs, record.output)
        assert (output.run_id, output.attempt, output.stdout) == (
            run,
            record.attempt,
            f"ran {run}\n".encode(),
        )


def executions(history: Path, what: str) -> Counter[str]:
    """How often each run has started or ended, by its own words."""
    return Counter(line.split()[1] for line in lines_of(history) if line.startswith(f"{what} "))


def ready_counts(platform: Platform, ids: list[str]) -> Counter[int]:
    """How many runs lie on the ready topics how often."""
    wanted, found = set(ids), Counter[str]()
    for topic in READY.values():
        for message in read_to_end(platform.settings, beginning(topic, platform.settings.partitions)):
            run = decode_ready_run(message.value() or b"")
            if run.job_id in wanted:
                found[run.run_id] += 1
    return Counter(found.values())


def await_all_recorded(platform: Platform, ids: list[str]) -> dict[str, Recorded]:
    """The ledger's rows of all jobs, when each has one that has ended."""
    records: dict[str, Recorded] = {}
    homes = {(minute_of(generated_at_ms(i)), shard_of(i, platform.settings.partitions)) for i in ids}
    wanted = {run_id(job_id, generated_at_ms(job_id)) for job_id in ids}

    def complete() -> bool:
        with platform.cassandra() as session:
            for home in homes:
                for row in session.execute(RECORDED, home):
                    if row.run_id in wanted:
                        records[row.run_id] = Recorded(
                            row.attempt, row.state, decode_run_event(row.event).output
                        )
        return len(records) == len(ids) and all(record.state != "RUNNING" for record in records.values())

    wait_for(complete, f"{len(ids)} recorded runs", 180)
    return records
