"""Every build with a mistake in it is caught; and the sound one isn't, where a scenario stands outside what the platform is set up for."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count, islice
from pathlib import Path
from typing import Any, cast

import pytest
from cassandra.cluster import Cluster
from confluent_kafka import Consumer, TopicPartition

from dueline import AsyncClient, Job, Once
from dueline.address import SUBMISSIONS, shard_of
from dueline.clock import SystemClock, from_ms
from dueline.ids import IdGenerator
from dueline.runs import OwnerStarted
from infra.local.servers import KafkaServer
from tests.chaos.checker import Judgement, judge
from tests.chaos.claims import collect, settle
from tests.chaos.field import Field, field_on
from tests.chaos.history import EXECUTIONS
from tests.chaos.load import submit
from tests.conftest import Servers
from tests.platform.conftest import drop_submissions, wait_for
from tests.platform.test_lease import records

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

#: For what is lost to come after all; what is not settles sooner.
PATIENCE_S = 25.0
SOUND = ""
IDS = IdGenerator()


@contextmanager
def sabotaged(servers: Servers, folder: Path, role: str, mistake: str, each: int) -> Iterator[Field]:
    """A field whose processes of one role have a mistake in them, or none."""
    drop_submissions(servers.settings)
    launchers = {role: ["tests.chaos.sabotage", mistake]} if mistake else {}
    with field_on(
        servers.settings, servers.kafka, servers.cassandra, folder, each=each, launchers=launchers
    ) as field:
        yield field


def test_commit_before_output_loses_runs(servers: Servers, tmp_path: Path) -> None:
    with sabotaged(servers, tmp_path, "executor", "commit-before-output", 1) as field:
        ask(field, [job(field, seconds=2) for _ in range(24)])
        wait_for(lambda: told(field, "end") >= 8, "the first runs", 60)
        wait_for(lambda: told(field, "start") >= 16, "the runs behind them", 60)
        time.sleep(1)  # two commits later
        field.processes["executor-1"].kill()
        judgement = judged(field)
    assert caught(judgement) == {"lost", "view"}


def test_output_that_is_not_atomic_is_torn(servers: Servers, tmp_path: Path) -> None:
    with sabotaged(servers, tmp_path, "executor", "output-not-atomic", 1) as field:
        ask(field, [job(field) for _ in range(20)])
        wait_for(lambda: told(field, "end") == 20, "all runs", 60)
        asyncio.run(settle(field.settings, field.history.folder, PATIENCE_S))
        field.processes["executor-1"].kill()
        judgement = judged(field)
    assert caught(judgement) == {"output"}


def test_acknowledging_before_storing_loses_jobs(servers: Servers, tmp_path: Path) -> None:
    with sabotaged(servers, tmp_path, "scheduler", "acknowledge-before-store", 1) as field:
        for _ in range(40):  # for longer than it stores and writes behind
            ask(field, [job(field, in_s=12) for _ in range(3)])
            time.sleep(0.1)
        field.processes["scheduler-1"].kill()
        judgement = judged(field)
    assert "lost" in caught(judgement)


def test_without_a_guard_a_stopped_executor_s_runs_go_on(servers: Servers, tmp_path: Path) -> None:
    with sabotaged(servers, tmp_path, "executor", "no-guard", 2) as field:
        judgement = stop_an_executor(field)
    assert "overlap" in caught(judgement)


@pytest.mark.parametrize("mistake", ["no-lease-wait", SOUND], ids=["no-lease-wait", "sound"])
def test_the_lease_is_waited_for_however_short_the_session(
    servers: Servers, tmp_path: Path, mistake: str
) -> None:
    """A group whose session ends sooner than a lease: then only the wait keeps two executors apart."""
    with hasty_kafka(servers), sabotaged(servers, tmp_path, "executor", mistake, 2) as field:
        judgement = stop_an_executor(field)
    assert ("overlap" in caught(judgement)) is bool(mistake)
    assert (judgement.verdict == "valid") is not bool(mistake)


@pytest.mark.parametrize(
    ("mistake", "second"),
    [("cursor-without-epoch", None), ("wheel-kept", 53), (SOUND, 53)],
    ids=["cursor-without-epoch", "wheel-kept", "sound"],
)
def test_a_woken_scheduler_harms_nothing(
    servers: Servers, tmp_path: Path, mistake: str, second: int | None
) -> None:
    """One is stopped, the other takes its shards over, accepts jobs, and dies before they are due; then the first goes on."""
    with sabotaged(servers, tmp_path, "scheduler", mistake, 2) as field:
        judgement = wake_a_scheduler(field, second)
    assert ("lost" in caught(judgement)) is bool(mistake)
    assert (judgement.verdict == "invalid") is bool(mistake)


def stop_an_executor(field: Field) -> Judgement:
    """Stop an executor, not its slots, until its runs have begun elsewhere, and somewhat longer."""
    wait_for(lambda: all(executor_shards_of(field, f"executor-{n}") for n in (1, 2)), "shards at both", 60)
    shards = executor_shards_of(field, "executor-1")
    ask(field, [job(field, seconds=12, shard=shard) for shard in shards])
    wait_for(lambda: told(field, "start") == len(shards), "all runs", 60)
    worker = field.worker("executor-1")
    assert worker is not None
    os.kill(worker, signal.SIGSTOP)
    try:
        wait_for(lambda: told(field, "start") == 2 * len(shards), "its runs at the other executor", 60)
        time.sleep(1)
    finally:
        os.kill(worker, signal.SIGCONT)
    return judged(field)


def wake_a_scheduler(field: Field, second: int | None) -> Judgement:
    stopped, other = field.worker("scheduler-1"), field.worker("scheduler-2")
    assert stopped is not None
    assert other is not None
    wait_for(lambda: bool(shards_of(field, stopped)) and bool(shards_of(field, other)), "shards at both", 60)
    if second is not None:  # when the minute in which the jobs will be due has been read ahead
        wait_for(lambda: time.time() % 60 // 1 == second, "the end of a minute", 70)
    shards = shards_of(field, stopped)
    supervisor = field.processes["scheduler-2"].supervisor.pid()
    assert supervisor is not None
    os.kill(stopped, signal.SIGSTOP)
    try:
        wait_for(lambda: set(shards) <= set(shards_of(field, other)), "its shards at the other", 60)
        asked = [job(field, in_s=10, shard=shard) for shard in shards]
        ask(field, asked)
        wait_for(lambda: committed(field, shards), "their submissions to be accepted", 8)
        os.kill(supervisor, signal.SIGSTOP)  # so that it is not started again
        os.kill(other, signal.SIGKILL)
        due_ms = max(each.next_ms(0) or 0 for each in asked)
        assert time.time() * 1000 < due_ms
        wait_for(lambda: time.time() * 1000 > due_ms + 1000, "their due times to pass", 20)
    finally:
        os.kill(stopped, signal.SIGCONT)
    try:
        return judged(field)
    finally:
        os.kill(supervisor, signal.SIGCONT)


# -- asking and judging --------------------------------------------------------------------------------------------


def job(field: Field, *, seconds: float = 0.0, in_s: float = 0.0, shard: int | None = None) -> Job:
    now_ms = SystemClock().now_ms()
    params = {"history": str(field.history.folder), "seconds": seconds}
    due = from_ms(now_ms) + timedelta(seconds=in_s)
    ids = (IDS.next(now_ms) for _ in count())
    wanted = (each for each in ids if shard in (None, shard_of(each, field.settings.partitions)))
    (job_id,) = islice(wanted, 1)
    return Job(id=job_id, executor_class="act", params=params, triggers=(Once(due),), timeout_s=60)


def ask(field: Field, jobs: list[Job]) -> None:
    """Submit jobs, and write that down."""

    async def run() -> None:
        async with AsyncClient(field.settings.kafka) as client:
            await asyncio.gather(*(submit(client, field.history, "quick", each) for each in jobs))

    asyncio.run(run())


def judged(field: Field) -> Judgement:
    asyncio.run(settle(field.settings, field.history.folder, PATIENCE_S))
    asyncio.run(collect(field.settings, field.history.folder))
    return judge(field.history.folder)


def caught(judgement: Judgement) -> set[str]:
    return {anomaly.rule for anomaly in judgement.anomalies}


# -- looking on ----------------------------------------------------------------------------------------------------


def told(field: Field, what: str) -> int:
    """How many executions have said this."""
    return len([line for line in field.history.read(EXECUTIONS) if line["what"] == what])


def executor_shards_of(field: Field, name: str) -> list[int]:
    """The shards that an executor holds, by the log."""
    worker = field.worker(name)
    owners = {
        shard: each.executor for shard, each in records(cast(Any, field)) if isinstance(each, OwnerStarted)
    }
    return [shard for shard, owner in owners.items() if f"-{worker}-" in owner]


def shards_of(field: Field, scheduler: int) -> list[int]:
    with session(field) as cassandra:
        rows = cassandra.execute("SELECT shard, owner FROM shards")
        return [row.shard for row in rows if row.owner and f"-{scheduler}-" in row.owner]


def committed(field: Field, shards: list[int]) -> bool:
    """Whether the schedulers' group has committed all that its partitions of these shards hold."""
    consumer = Consumer({"bootstrap.servers": field.settings.kafka, "group.id": "dueline.scheduler"})
    try:
        places = [TopicPartition(SUBMISSIONS, shard) for shard in shards]
        ends = [consumer.get_watermark_offsets(place, 10)[1] for place in places]
        return [each.offset for each in consumer.committed(places, 10)] == ends
    finally:
        consumer.close()


@contextmanager
def session(field: Field) -> Iterator[Any]:
    host, _, port = field.settings.cassandra.partition(":")
    with Cluster([host], port=int(port), protocol_version=5) as cluster:
        yield cluster.connect(field.settings.keyspace)


class HastyKafka(KafkaServer):
    """A broker that gives the shards of an executor away after a second."""

    def write_config(self) -> None:
        super().write_config()
        settings = {
            "group.consumer.min.session.timeout.ms": 1000,
            "group.consumer.session.timeout.ms": 1000,
            "group.consumer.min.heartbeat.interval.ms": 200,
            "group.consumer.heartbeat.interval.ms": 200,
        }
        with (self.config / "server.properties").open("a") as file:
            file.write("".join(f"\n{name}={value}" for name, value in settings.items()))


@contextmanager
def hasty_kafka(servers: Servers) -> Iterator[None]:
    if type(servers.kafka) is not KafkaServer:
        pytest.skip("the broker runs in a container, whose settings stay")
    hasty = HastyKafka(servers.settings)
    servers.kafka.stop()
    try:
        hasty.start()
        hasty.wait_until_up()
        yield
    finally:
        hasty.stop()
        servers.kafka.start()
        servers.kafka.wait_until_up()
