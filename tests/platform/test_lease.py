"""One owner: two executors, one of which is killed, stopped, woken up or ended; the jobs themselves write down what happens."""

import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count, islice, pairwise
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from dueline import Client, Job, Once, Retry
from dueline.address import READY, RUNS, shard_of
from dueline.clock import to_ms
from dueline.codec import decode_run_record, encode_run_event
from dueline.ids import generated_at_ms, run_id
from dueline.job import Priority
from dueline.processes import descendants
from dueline.runs import OwnerStarted, RunEvent, Succession
from dueline.states import AttemptState
from infra.kafka import Group
from infra.local.platform import PlatformProcess
from infra.log_reader import beginning, read_to_end
from infra.ownership import Ownership
from tests.platform.conftest import RECORDING, Platform, lines_of, wait_for

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]


@dataclass(slots=True)
class Execution:
    """One time that the code of a run ran, by what it wrote itself."""

    run: str
    attempt: int
    start_ns: int
    last_ns: int
    ended: bool = False


@pytest.fixture
def second(platform: Platform) -> Iterator[PlatformProcess]:
    """Another executor, which holds its share of the shards."""
    process = PlatformProcess(
        platform.settings, "executor-2", ["consumers", "--slots", "2", "--import", RECORDING]
    )
    try:
        process.start()
        process.wait_until_up()
        await_two_owners(platform)
        yield process
    finally:
        process.stop()


@pytest.mark.parametrize("stopped", ["executor and guard", "all of it"])
def test_a_stopped_executor_never_overlaps_with_its_successor(
    platform: Platform, second: PlatformProcess, history: Path, stopped: str
) -> None:
    executor = second.worker_pid()
    assert executor is not None
    guard, *below = sorted(descendants(executor))
    # Two runs in its two slots, which by themselves would go on until well after their shards have moved.
    runs = submit_at(platform, shards_of(platform, executor)[:2], history, seconds=12)
    wait_for(lambda: len(executions(history)) == 2, "both runs", 60)
    for pid in [executor, guard, *(below if stopped == "all of it" else ())]:
        os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: len(executions(history)) == 4, "both runs at the successor", 60)
    os.kill(executor, signal.SIGCONT)
    await_all(history, runs)
    judge(platform, history, runs)


def test_what_a_killed_executor_had_is_performed_by_the_other(
    platform: Platform, second: PlatformProcess, history: Path
) -> None:
    runs = submit(platform, history, jobs=400, seconds=0.02)
    wait_for(lambda: ended(history) >= 40, "the first runs", 60)
    second.kill()
    await_all(history, runs)
    judge(platform, history, runs)


def test_a_clean_stop_hands_over_and_repeats_nothing(
    platform: Platform, second: PlatformProcess, history: Path
) -> None:
    runs = submit(platform, history, jobs=200, seconds=0.1)
    wait_for(lambda: ended(history) >= 20, "the first runs", 60)
    second.stop()
    await_all(history, runs)
    judge(platform, history, runs)
    assert set(Counter(execution.run for execution in executions(history)).values()) == {1}


def test_shards_are_released_when_the_last_executor_stops(platform: Platform, history: Path) -> None:
    runs = submit(platform, history, jobs=20, seconds=0)
    await_all(history, runs)
    executor = platform.processes["executor"]
    executor.stop()
    try:
        found = ownerships(platform)
        assert all(ownership.known and ownership.released for ownership in found.values())
        assert {shard: ownership.epoch for shard, ownership in found.items()} == epochs_of(platform)
    finally:
        executor.start()
        executor.wait_until_up()


def test_what_had_ended_is_not_performed_again(platform: Platform, history: Path) -> None:
    """An owner that ended between its events and its commit: stood in for by events of its epoch."""
    executor, shard = platform.processes["executor"], 3
    wait_for(lambda: shard in epochs_of(platform), "an owner", 60)
    executor.stop()
    done, failed, other = names_in(platform, shard, 3)
    due = datetime.now(UTC)
    params = {"history": str(history), "seconds": 0}
    with Client(platform.settings.kafka) as client:
        for job_id in (done, failed, other):
            retry = Retry(max_attempts=2)
            client.submit("pulse", params, id=job_id, trigger=Once(due), retry=retry)
    former = RunEvent(
        job_id=done,
        due_ms=to_ms(due),
        attempt=1,
        version=0,
        state=AttemptState.SUCCEEDED,
        at_ms=to_ms(due),
        executor_class="pulse",
        priority=Priority.NORMAL,
        recurring=False,
        executor="former",
        epoch=epochs_of(platform)[shard],
    )
    retry_ms = to_ms(due) + 1_000
    retried = replace(former, job_id=failed, state=AttemptState.FAILED, retry_ms=retry_ms)
    producer = Producer({"bootstrap.servers": platform.settings.kafka})
    for event in (former, retried):
        producer.produce(RUNS, encode_run_event(event), partition=shard)
    assert producer.flush(10) == 0
    executor.start()
    executor.wait_until_up()
    await_all(history, {run_id(failed, to_ms(due)), run_id(other, to_ms(due))})
    attempts = {execution.run: execution.attempt for execution in executions(history)}
    assert attempts == {run_id(failed, to_ms(due)): 2, run_id(other, to_ms(due)): 1}


def submit(platform: Platform, history: Path, jobs: int, seconds: float) -> set[str]:
    """Jobs that are due now; the ids of their runs."""
    with Client(platform.settings.kafka) as client:
        ids = client.submit_many(
            Job(
                executor_class="pulse",
                params={"history": str(history), "seconds": seconds},
                retry=Retry(max_attempts=1),
                timeout_s=30,
            )
            for _ in range(jobs)
        )
    return {run_id(job_id, generated_at_ms(job_id)) for job_id in ids}


def submit_at(platform: Platform, shards: list[int], history: Path, seconds: float) -> set[str]:
    """A job in each of the shards, due now; the ids of their runs."""
    due, runs = datetime.now(UTC), set()
    params = {"history": str(history), "seconds": seconds}
    with Client(platform.settings.kafka) as client:
        for shard in shards:
            (job_id,) = names_in(platform, shard, 1)
            client.submit("pulse", params, id=job_id, trigger=Once(due), timeout_s=60)
            runs.add(run_id(job_id, to_ms(due)))
    return runs


def names_in(platform: Platform, shard: int, number: int) -> list[str]:
    """New names for jobs of a shard."""
    names = (f"pulse-{time.time_ns()}-{index}" for index in count())
    fitting = (name for name in names if shard_of(name, platform.settings.partitions) == shard)
    return list(islice(fitting, number))


def judge(platform: Platform, history: Path, runs: set[str]) -> None:
    """Each run was performed to its end, never twice at one time; and of what was reported none was repeated."""
    by_run: defaultdict[str, list[Execution]] = defaultdict(list)
    for execution in executions(history):
        by_run[execution.run].append(execution)
    assert by_run.keys() == runs
    for of_run in by_run.values():
        for one, other in pairwise(sorted(of_run, key=lambda execution: execution.start_ns)):
            assert one.last_ns < other.start_ns, f"two executions at a time: {one} and {other}"
        assert of_run[-1].ended
    reported = Counter[str]()

    def complete() -> bool:
        reported.clear()
        reported.update(event.run_id for event in events(platform) if event.run_id in runs)
        return reported.keys() == runs

    wait_for(complete, f"the events of {len(runs)} runs", 30)
    assert set(reported.values()) == {1}


def executions(history: Path) -> list[Execution]:
    found: dict[str, Execution] = {}
    for line in lines_of(history):
        what, run, attempt, execution, at = line.split()
        one = found.setdefault(execution, Execution(run, int(attempt), int(at), int(at)))
        one.last_ns = int(at)
        one.ended = what == "end"
    return list(found.values())


def ended(history: Path) -> int:
    return history.read_text().count("end ")


def await_all(history: Path, runs: set[str]) -> None:
    wait_for(
        lambda: {execution.run for execution in executions(history) if execution.ended} == runs,
        f"the ends of {len(runs)} runs",
        120,
    )


def records(platform: Platform) -> Iterator[tuple[int, RunEvent | OwnerStarted]]:
    """What counts in jobs.runs, with its shard."""
    successions: defaultdict[int, Succession] = defaultdict(Succession)
    for message in read_to_end(platform.settings, beginning(RUNS, platform.settings.partitions)):
        record, shard = decode_run_record(message.value() or b""), message.partition() or 0
        if successions[shard].admits(record):
            yield shard, record


def events(platform: Platform) -> list[RunEvent]:
    """The ends of attempts that count."""
    going_on = {AttemptState.RUNNING, AttemptState.INTERRUPTED}
    found = [record for _, record in records(platform) if isinstance(record, RunEvent)]
    return [event for event in found if event.state not in going_on]


def epochs_of(platform: Platform) -> dict[int, int]:
    found = [(shard, each) for shard, each in records(platform) if isinstance(each, OwnerStarted)]
    return {shard: each.epoch for shard, each in found}


def owners_of(platform: Platform) -> dict[int, str]:
    found = [(shard, each) for shard, each in records(platform) if isinstance(each, OwnerStarted)]
    return {shard: each.executor for shard, each in found}


def await_two_owners(platform: Platform) -> None:
    wait_for(
        lambda: len(set(owners_of(platform).values())) == 2, "two executors with shards of their own", 60
    )


def shards_of(platform: Platform, pid: int) -> list[int]:
    """The shards of the executor that this process is, by the pid in its id."""
    return [shard for shard, owner in owners_of(platform).items() if owner.split("-")[-2] == str(pid)]


def ownerships(platform: Platform) -> dict[int, Ownership]:
    """What the committed metadata says of all shards."""
    topic, partitions = READY[Priority.HIGH], range(platform.settings.partitions)
    consumer = Consumer({"bootstrap.servers": platform.settings.kafka, "group.id": Group.EXECUTORS})
    try:
        committed = consumer.committed([TopicPartition(topic, partition) for partition in partitions], 10)
        return {each.partition: Ownership.from_text(each.metadata) for each in committed}
    finally:
        consumer.close()
