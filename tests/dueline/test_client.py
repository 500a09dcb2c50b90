"""The client against a real Kafka, and against the lack of one: what it reports as accepted is in the log."""

import asyncio
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from dueline import delivery
from dueline.address import SUBMISSIONS, shard_of
from dueline.client import BATCH_JOBS_MAX, BATCHES_UNDER_WAY_MAX, AsyncClient, Client
from dueline.clock import ManualClock, to_ms
from dueline.codec import decode_submission
from dueline.commands import Action, BulkCommand, ControlCommand, JobFilter
from dueline.errors import InvalidJob, NotAccepted, SomeNotAccepted, Unavailable
from dueline.ids import generated_at_ms, is_generated
from dueline.job import Job, Priority
from dueline.policies import Retry
from dueline.triggers import Cron, Every, Once
from tests.conftest import Servers

pytestmark = pytest.mark.servers
NOWHERE = "127.0.0.1:1"  # a port at which nothing ever listens


@pytest.fixture
def address(servers: Servers) -> str:
    return servers.settings.kafka


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client


def submissions(address: str, ids: Iterable[str]) -> dict[str, list[tuple[int, Any]]]:
    """What the log holds for each of these ids: the partitions and the submissions, in order."""
    found: dict[str, list[tuple[int, Any]]] = {job_id: [] for job_id in ids}
    consumer = Consumer({"bootstrap.servers": address, "group.id": "reader", "enable.auto.commit": False})
    try:
        partitions = consumer.list_topics(SUBMISSIONS).topics[SUBMISSIONS].partitions
        places = [TopicPartition(SUBMISSIONS, partition) for partition in partitions]
        bounds = [consumer.get_watermark_offsets(place) for place in places]
        left = sum(high - low for low, high in bounds)
        # Not from 0: other tests may have had the beginning deleted.
        starts = zip(partitions, bounds, strict=True)
        consumer.assign([TopicPartition(SUBMISSIONS, partition, low) for partition, (low, _) in starts])
        while left > 0:
            for record in consumer.consume(1000, 1):
                left -= 1
                key = (record.key() or b"").decode()
                if key in found:
                    found[key].append((record.partition() or 0, decode_submission(record.value() or b"")))
    finally:
        consumer.close()
    return found


def plain(count: int, **fields: Any) -> Iterator[Job]:
    return (Job(**{"executor_class": "command", "params": {"n": n}} | fields) for n in range(count))


def test_a_submission_is_in_the_log_when_the_call_returns(
    client: Client, address: str, servers: Servers
) -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    job_id = client.submit(
        "command",
        {"argv": ["/bin/date"]},
        id="nightly-report",
        name="Nightly report",
        priority="high",
        triggers=(Once(at), Cron("0 2 * * *", "Europe/Berlin")),
        retry=Retry(max_attempts=3),
        timeout_s=60,
    )
    assert job_id == "nightly-report"
    assert submissions(address, [job_id])[job_id] == [
        (
            shard_of(job_id, servers.settings.partitions),
            Job(
                executor_class="command",
                params={"argv": ["/bin/date"]},
                id="nightly-report",
                name="Nightly report",
                priority=Priority.HIGH,
                triggers=(Once(at), Cron("0 2 * * *", "Europe/Berlin")),
                retry=Retry(max_attempts=3),
                timeout_s=60,
            ),
        )
    ]


def test_a_datetime_is_a_trigger(client: Client, address: str) -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    job_id = client.submit("command", trigger=at)
    ((_, job),) = submissions(address, [job_id])[job_id]
    assert job.triggers == (Once(at),)


def test_a_generated_id_holds_the_time(address: str) -> None:
    with Client(address, clock=ManualClock(1_800_000_000_123)) as client:
        job_id = client.submit("command")
    assert is_generated(job_id)
    assert generated_at_ms(job_id) == 1_800_000_000_123


def test_the_brokers_partition_is_the_shard(client: Client, address: str) -> None:
    """librdkafka's partitioner and ours agree, on names and on generated ids."""
    ids = client.submit_many(
        [*plain(200), *(replace(job, id=f"named-{n}") for n, job in enumerate(plain(200)))]
    )
    shards = len(
        AdminClient({"bootstrap.servers": address}).list_topics(SUBMISSIONS).topics[SUBMISSIONS].partitions
    )
    found = submissions(address, ids)
    assert {job_id: found[job_id][0][0] for job_id in ids} == {
        job_id: shard_of(job_id, shards) for job_id in ids
    }


def test_many_are_all_in_the_log_in_order(client: Client, address: str) -> None:
    count = BATCH_JOBS_MAX * BATCHES_UNDER_WAY_MAX + 123
    ids = client.submit_many(plain(count))
    assert ids == sorted(set(ids))
    found = submissions(address, ids)
    assert [found[job_id][0][1].params["n"] for job_id in ids] == list(range(count))
    assert all(len(records) == 1 for records in found.values())


def test_the_order_of_one_job_is_kept(client: Client, address: str) -> None:
    assert client.submit_many(plain(2_000, id="same")) == ["same"] * 2_000
    assert [job.params["n"] for _, job in submissions(address, ["same"])["same"]] == list(range(2_000))


def test_none_are_soon_submitted(client: Client) -> None:
    assert client.submit_many([]) == []


def test_large_jobs_share_the_memory_there_is(client: Client) -> None:
    """Four times what the producer's queue holds: the callers wait for room."""
    params = {"text": "x" * 250_000}
    assert len(client.submit_many(plain(1_000, params=params), timeout=60)) == 1_000


def test_threads_share_a_client(client: Client, address: str) -> None:
    with ThreadPoolExecutor(16) as pool:
        ids = list(pool.map(lambda _: client.submit("command"), range(400)))
    assert len(set(ids)) == 400
    assert all(submissions(address, ids).values())


async def test_tasks_share_a_client(address: str) -> None:
    async with AsyncClient(address) as client:
        ids = await asyncio.gather(*(client.submit("command") for _ in range(400)))
        ids += await client.submit_many(plain(1_200))
    assert len(set(ids)) == 1_600
    assert all(submissions(address, ids).values())


async def test_a_cancelled_call_leaves_the_client_usable(address: str) -> None:
    async with AsyncClient(address) as client:
        call = asyncio.ensure_future(client.submit("command"))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await client.submit("command", id="after-a-cancel") == "after-a-cancel"


def test_one_async_client_serves_one_loop_after_another(address: str) -> None:
    client = AsyncClient(address)

    async def submit() -> str:
        return await client.submit("command")

    assert asyncio.run(submit()) != asyncio.run(submit())
    asyncio.run(_closed(client))


async def _closed(client: AsyncClient) -> None:
    await client.close()


def test_a_forked_child_submits_on_its_own(client: Client, address: str) -> None:
    client.submit("command")
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(write, client.submit("command", timeout=20).encode())
            client.close()
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        job_id = answer.read()
    assert os.waitpid(child, 0)[1] == 0
    assert is_generated(job_id)
    ids = [job_id, client.submit("command")]
    assert all(submissions(address, ids).values())


def test_an_invalid_job_of_a_short_list_sends_nothing(client: Client, address: str) -> None:
    jobs = [replace(job, id=f"unsent-{n}") for n, job in enumerate(plain(10))]
    jobs[7] = replace(jobs[7], params={"x": object()})
    with pytest.raises(InvalidJob, match="params") as refusal:
        client.submit_many(jobs)
    assert refusal.value.__notes__ == ["It is number 8 of the jobs given."]
    assert not any(submissions(address, [f"unsent-{n}" for n in range(10)]).values())


def test_an_iterable_that_fails_late_leaves_an_account(client: Client, address: str) -> None:
    def jobs() -> Iterator[Job]:
        yield from plain(2 * BATCH_JOBS_MAX + 7)
        raise OSError("the file ends here")

    with pytest.raises(
        SomeNotAccepted, match=r"1000 jobs sent 1000 were acknowledged.*the file ends here"
    ) as error:
        client.submit_many(jobs())
    assert isinstance(error.value.__cause__, OSError)
    assert len(error.value.sent) == 2 * BATCH_JOBS_MAX
    assert error.value.accepted == error.value.sent
    assert error.value.unacknowledged == ()
    assert all(submissions(address, error.value.sent).values())


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"trigger": "soon"}, "trigger"),
        ({"trigger": timedelta(minutes=5)}, "trigger"),
        ({"trigger": datetime(2030, 1, 1)}, "trigger.at"),  # noqa: DTZ001 (what is refused)
        ({"trigger": datetime(2030, 1, 1, tzinfo=UTC), "triggers": (Cron("@daily"),)}, "trigger"),
        ({"trigger": Cron("0 0 31 2 *")}, "trigger.cron"),
        ({"trigger": Every(timedelta(days=1), end=datetime(2001, 1, 1, tzinfo=UTC))}, "trigger.end"),
        ({"trigger": Once(datetime(2099, 1, 1, tzinfo=UTC))}, "trigger"),
        ({"priority": "urgent"}, "priority"),
        ({"retry": 3}, "retry"),
        ({"params": {"x": {1, 2}}}, "params"),
        ({"params": {"x": "y" * 256_000}}, "params"),
        ({"id": "two words"}, "id"),
        ({"timeout_s": 301}, "timeout_s"),
    ],
)
def test_what_is_invalid_is_never_sent(fields: dict[str, Any], field: str) -> None:
    with Client(NOWHERE) as client, pytest.raises(InvalidJob) as refusal:
        client.submit("command", **fields)
    assert refusal.value.field == field


@pytest.mark.parametrize("timeout", [0, -1, 61, float("nan")])
def test_a_timeout_that_cannot_be_kept_is_refused(timeout: float) -> None:
    with Client(NOWHERE) as client, pytest.raises(ValueError, match=r"timeout: .* at most 60 seconds"):
        client.submit("command", timeout=timeout)


def test_a_kafka_that_is_not_there_is_reported_in_time() -> None:
    before = monotonic()
    with Client(NOWHERE) as client, pytest.raises(Unavailable) as error:
        client.submit("command", timeout=1)
    assert 0.9 < monotonic() - before < 2
    assert "Kafka at 127.0.0.1:1 did not answer in time, and nothing was sent" in str(error.value)
    assert "Connection refused" in str(error.value)
    assert "DUELINE_KAFKA" in str(error.value)


async def test_a_kafka_that_is_not_there_is_reported_to_coroutines_too() -> None:
    async with AsyncClient(NOWHERE) as client:
        with pytest.raises(Unavailable, match="did not answer in time"):
            await client.submit("command", timeout=0.3)
        with pytest.raises(Unavailable, match="did not answer in time"):
            await client.submit_many(plain(3), timeout=0.3)


def test_an_address_that_is_none_is_reported() -> None:
    with Client("nowhere.invalid:9092") as client, pytest.raises(Unavailable, match=r"nowhere\.invalid:9092"):
        client.submit("command", timeout=0.3)


def test_the_address_comes_from_the_environment(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUELINE_KAFKA", address)
    with Client() as client:
        assert client.submit("command", id="by-environment") == "by-environment"


def test_a_missing_topic_is_reported_and_found_once_it_is_there(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "SUBMISSIONS", "jobs.elsewhere")
    with Client(address) as client:
        with pytest.raises(Unavailable, match=r"has no topic jobs\.elsewhere; the platform creates it"):
            client.submit("command")
        monkeypatch.undo()
        assert client.submit("command", id="found-later") == "found-later"


def test_a_closed_client_says_so(address: str) -> None:
    client = Client(address)
    client.submit("command")
    client.close()
    client.close()
    with pytest.raises(Unavailable, match="this client is closed"):
        client.submit("command")


def test_nothing_is_reported_accepted_while_kafka_is_stopped(servers: Servers, address: str) -> None:
    """Kafka goes away under a connected client: its calls fail in time, as unknown; and it recovers by itself."""
    with Client(address) as client:
        client.submit("command")
        servers.kafka.stop()
        try:
            before = monotonic()
            with pytest.raises(NotAccepted, match=r"job lost was not acknowledged: .*same id") as error:
                client.submit("command", id="lost", timeout=1)
            assert monotonic() - before < 2
            assert error.value.job_id == "lost"
            with pytest.raises(SomeNotAccepted) as some:
                client.submit_many(plain(1_500), timeout=1)
            assert some.value.accepted == ()
            assert some.value.unacknowledged == some.value.sent
        finally:
            servers.kafka.start()
            servers.kafka.wait_until_up()
        again = client.submit("command", id="lost", timeout=30)
    assert len(submissions(address, [again])[again]) in (1, 2)  # the first may have arrived after all


def test_what_was_acknowledged_before_a_stop_is_told_from_the_rest(servers: Servers, address: str) -> None:
    count = 20_000

    def jobs() -> Iterator[Job]:
        for n, job in enumerate(plain(count)):
            if n == count // 2:
                servers.kafka.stop()
            yield job

    with Client(address) as client:
        try:
            with pytest.raises(SomeNotAccepted) as error:
                client.submit_many(jobs(), timeout=1)
        finally:
            servers.kafka.start()
            servers.kafka.wait_until_up()
    told = error.value
    assert len(told.accepted) > 0
    assert len(told.unacknowledged) > 0
    assert len(told.sent) < count
    assert {*told.accepted} | {*told.unacknowledged} == {*told.sent}
    assert len(told.accepted) + len(told.unacknowledged) == len(told.sent)
    assert all(submissions(address, told.accepted).values())


def test_commands_are_in_the_log_when_their_calls_return(address: str, client: Client) -> None:
    job_id = client.submit("command")
    start, end = datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 2, tzinfo=UTC)
    client.cancel(job_id, "why")
    client.pause(job_id)
    client.resume(job_id)
    client.run_now(job_id)
    client.change(job_id, {"priority": "low"})
    client.backfill(job_id, start, end)
    _, *commands = (submission for _, submission in submissions(address, [job_id])[job_id])
    assert commands == [
        ControlCommand(job_id=job_id, action=Action.CANCEL, note="why"),
        ControlCommand(job_id=job_id, action=Action.PAUSE),
        ControlCommand(job_id=job_id, action=Action.RESUME),
        ControlCommand(job_id=job_id, action=Action.RUN),
        ControlCommand(job_id=job_id, action=Action.CHANGE, fields={"priority": "low"}),
        ControlCommand(job_id=job_id, action=Action.BACKFILL, start_ms=to_ms(start), end_ms=to_ms(end)),
    ]


def test_a_command_for_many_is_one_record(address: str, client: Client) -> None:
    matching = JobFilter(executor_class="http", prefix=str(uuid4()))
    client.control_all("change", matching, "why", fields={"priority": "low"})
    command = BulkCommand(matching=matching, action=Action.CHANGE, note="why", fields={"priority": "low"})
    assert submissions(address, ["*"])["*"][-1][1] == command


async def test_commands_of_coroutines_are_awaited(address: str) -> None:
    async with AsyncClient(address) as client:
        job_id = await client.submit("command")
        await client.cancel(job_id)
    assert len(submissions(address, [job_id])[job_id]) == 2


def test_what_no_job_can_have_is_refused_before_it_is_sent(client: Client) -> None:
    with pytest.raises(InvalidJob, match="did you mean priority"):
        client.change("job", {"priorty": "low"})
    with pytest.raises(InvalidJob, match="end is before the start"):
        client.backfill("job", datetime(2030, 1, 2, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))
    with pytest.raises(InvalidJob, match="no job's id"):
        client.cancel("no id")
    with pytest.raises(InvalidJob, match="did you mean priority"):
        client.control_all("change", JobFilter(prefix=""), fields={"priorty": "low"})
    with pytest.raises(InvalidJob, match="is not one of cancel"):
        client.control_all("stop", JobFilter(prefix=""))
