"""Each kind of job and of submission, once through the whole platform."""

import json
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.producer import message_accumulator, producer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from confluent_kafka import Producer

from dueline import Client, Every, Once, Retry
from dueline.address import REJECTED, RUNS, SUBMISSIONS, bucket_of, shard_of
from dueline.clock import to_ms
from dueline.codec import SUBMISSION_LENGTH_MAX, decode_run_record
from dueline.outputs import read_output
from dueline.runs import Output, RunEvent
from dueline.states import AttemptState
from infra.log_reader import beginning, read_to_end
from tests.platform.conftest import Platform, wait_for
from tests.platform.test_lease import names_in
from tests.platform.test_main_job import executions
from tests.stream_processors.test_fetched import LatinName

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@pytest.fixture
def client(platform: Platform) -> Any:
    with Client(platform.settings.kafka) as client:
        yield client


def test_a_job_for_later_starts_then(platform: Platform, client: Client, history: Path) -> None:
    due = datetime.now(UTC) + timedelta(seconds=2)
    job_id = client.submit("record", {"history": str(history), "number": 0}, trigger=Once(due))
    (end,) = await_ends(platform, job_id, 1)
    assert end.due_ms == to_ms(due)
    assert end.started_ms is not None
    assert end.started_ms >= end.due_ms
    assert output_of(platform, end).result == json.dumps({"number": 0})


def test_a_failing_job_is_retried_through_the_schedule(platform: Platform, client: Client) -> None:
    retry = Retry(max_attempts=3, backoff_s=0.2, factor=1)
    job_id = client.submit("command", {"argv": ["/bin/sh", "-c", "echo no >&2; exit 3"]}, retry=retry)
    ends = await_ends(platform, job_id, 3)
    assert [(end.attempt, end.state, end.exit_status) for end in ends] == [
        (1, AttemptState.FAILED, 3),
        (2, AttemptState.FAILED, 3),
        (3, AttemptState.FAILED, 3),
    ]
    for end, following in pairwise(ends):
        assert end.retry_ms is not None
        assert following.started_ms is not None
        assert following.started_ms >= end.retry_ms
    assert ends[-1].retry_ms is None
    assert output_of(platform, ends[0]).stderr == b"no\n"


def test_a_failure_may_say_when_to_try_again_and_when_not(platform: Platform, client: Client) -> None:
    retry_ms = to_ms(datetime.now(UTC) + timedelta(seconds=3))
    retry = Retry(max_attempts=5, backoff_s=600)
    job_id = client.submit("wish", {"retry_at_ms": retry_ms}, retry=retry)
    first, second = await_ends(platform, job_id, 2)
    assert (first.state, first.reason, first.retry_ms) == (AttemptState.FAILED, "later", retry_ms)
    assert second.started_ms is not None
    assert second.started_ms >= retry_ms
    assert (second.state, second.reason, second.retry_ms) == (AttemptState.FAILED, "never again", None)


def test_a_job_that_overruns_is_ended_with_its_children(
    platform: Platform, client: Client, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    script = f"setsid sh -c 'echo $$ >> {pids}; trap \"\" TERM; sleep 60' & echo begun; sleep 60"
    job_id = client.submit("command", {"argv": ["/bin/sh", "-c", script]}, timeout_s=1)
    (end,) = await_ends(platform, job_id, 1)
    assert end.state is AttemptState.TIMED_OUT
    assert output_of(platform, end).stdout == b"begun\n"
    assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(pids) in _text(p)]


def test_a_recurring_job_runs_for_each_due_time(platform: Platform, client: Client, history: Path) -> None:
    start = datetime.now(UTC) + timedelta(seconds=1)
    trigger = Every(timedelta(seconds=1), start=start, end=start + timedelta(seconds=3.5))
    job_id = client.submit(
        "record", {"history": str(history), "number": 0}, id=f"tick-{to_ms(start)}", trigger=trigger
    )
    ends = await_ends(platform, job_id, 4)
    assert [end.due_ms - to_ms(start) for end in ends] == [0, 1000, 2000, 3000]
    assert set(executions(history, "start").values()) == {1}


def test_json_without_id_or_key_runs_wherever_it_lands(platform: Platform, history: Path) -> None:
    submissions = [
        {"executor_class": "record", "params": {"history": str(history), "number": n}} for n in range(20)
    ]
    produce(platform, [(None, json.dumps(submission).encode()) for submission in submissions])
    wait_for(lambda: len(executions(history, "end")) == len(submissions), "the runs of 20 lines of JSON", 30)
    assert set(executions(history, "start").values()) == {1}


def test_the_same_submission_twice_is_one_job(platform: Platform, client: Client, history: Path) -> None:
    value = json.dumps(
        {
            "id": f"once-{time.time_ns()}",
            "executor_class": "record",
            "params": {"history": str(history), "number": 0},
        }
    )
    produce(platform, [(None, value.encode())] * 3)
    wait_for(lambda: bool(executions(history, "end")), "a run", 30)
    later = client.submit(
        "record", {"history": str(history), "number": 1}, id=json.loads(value)["id"] + "-later"
    )
    await_ends(platform, later, 1)
    assert set(executions(history, "start").values()) == {1}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"no json", "neither JSON"),
        (b"\xc3\x01\x00\x00", "no schema has the fingerprint"),
        (b'{"executor_class": "record", "priorty": "high"}', "did you mean priority?"),
        (b'{"executor_class": "record", "name": "' + b"x" * SUBMISSION_LENGTH_MAX + b'"}', "bytes; at most"),
    ],
    ids=["no-json", "unknown-schema", "unknown-field", "too-long"],
)
def test_what_cannot_be_accepted_is_kept_whole_with_its_reason(
    platform: Platform, value: bytes, reason: str
) -> None:
    key = f"bad-{time.time_ns()}"
    produce(platform, [(key, value)])

    def rejected() -> list[tuple[bytes | None, dict[str, Any]]]:
        topic = beginning(REJECTED, platform.settings.partitions)
        messages = [m for m in read_to_end(platform.settings, topic) if m.key() == key.encode()]
        return [(m.value(), dict(cast(Any, m.headers()))) for m in messages]

    wait_for(lambda: bool(rejected()), "the rejected record", 30)
    ((kept, headers),) = rejected()
    assert kept == value
    assert reason in headers["dueline-reason"].decode()
    assert headers["dueline-place"].decode().startswith(f"{SUBMISSIONS}/")
    with platform.cassandra() as session:
        home = (bucket_of(key), shard_of(key, platform.settings.partitions), key)
        query = "SELECT state, reason FROM jobs WHERE bucket = %s AND shard = %s AND job_id = %s"
        row = session.execute(query, home).one()
    assert row.state == "REJECTED"
    assert reason in row.reason


async def test_headers_may_be_called_anything(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, history: Path
) -> None:
    for module in (message_accumulator, producer):
        monkeypatch.setattr(module, "DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)
    key = f"latin-{time.time_ns()}"
    good = {"executor_class": "record", "params": {"history": str(history), "number": 0}}
    async with AIOKafkaProducer(bootstrap_servers=platform.settings.kafka) as foreign:
        for value in (b"no json", json.dumps(good).encode()):
            headers = [(LatinName("caf\xe9"), b"au lait")]
            await foreign.send_and_wait(SUBMISSIONS, value, key.encode(), partition=3, headers=headers)
    wait_for(lambda: bool(executions(history, "end")), "the run of what lies behind", 30)
    topic = beginning(REJECTED, platform.settings.partitions)
    (rejected,) = [m for m in read_to_end(platform.settings, topic) if m.key() == key.encode()]
    assert dict(cast(Any, rejected.headers()))["caf\\xe9"] == b"au lait"


def test_the_largest_jobs_of_one_moment_are_accepted(
    platform: Platform, client: Client, history: Path
) -> None:
    filler = "x" * (SUBMISSION_LENGTH_MAX - 2_000)
    params = {"history": str(history), "filler": filler}
    for number in range(40):
        client.submit("record", params | {"number": number})
    wait_for(lambda: len(executions(history, "end")) == 40, "40 large jobs", 60)


def test_submissions_count_when_their_transaction_is_committed_and_never_when_it_is_given_up(
    platform: Platform, client: Client
) -> None:
    given_up, first, second, given_up_last, last = names_in(platform, 3, 5)
    producer = Producer({"bootstrap.servers": platform.settings.kafka, "transactional.id": str(uuid4())})

    def submit_in_transaction(job_id: str) -> None:
        producer.begin_transaction()
        value = {"id": job_id, "executor_class": "command", "params": {"argv": ["/bin/true"]}}
        producer.produce(SUBMISSIONS, json.dumps(value), partition=3)
        producer.flush()

    producer.init_transactions()
    submit_in_transaction(given_up)
    producer.abort_transaction()
    submit_in_transaction(first)
    producer.commit_transaction()
    submit_in_transaction(second)
    await_ends(platform, first, 1)
    await_ends(platform, second, 0)
    producer.commit_transaction()
    submit_in_transaction(given_up_last)
    producer.abort_transaction()
    await_ends(platform, second, 1)
    client.submit("command", {"argv": ["/bin/true"]}, id=last)
    await_ends(platform, last, 1)
    for job_id in (given_up, given_up_last):
        await_ends(platform, job_id, 0)
    log = platform.processes["scheduler"].supervisor.log_file
    assert b"was skipped by the consumer" not in log.read_bytes()


def await_ends(platform: Platform, job_id: str, count: int, *, told_twice: bool = False) -> list[RunEvent]:
    """The events with which attempts of a job ended, when there are so many.

    `told_twice`: a scheduler was killed that may have told already what its successor tells too; that counts as one.
    """
    found: list[RunEvent] = []

    def complete() -> bool:
        shard = shard_of(job_id, platform.settings.partitions)
        records = [
            decode_run_record(m.value() or b"") for m in read_to_end(platform.settings, {(RUNS, shard): 0})
        ]
        events = [record for record in records if isinstance(record, RunEvent)]
        ends = [e for e in events if e.job_id == job_id and e.state is not AttemptState.RUNNING]
        if told_twice:
            ends = list({(e.key, e.state, e.started_ms): e for e in ends}.values())
        found[:] = ends
        return len(found) >= count

    wait_for(complete, f"{count} ends of {job_id}", 60)
    assert len(found) == count
    return sorted(found, key=lambda event: (event.due_ms, event.attempt))


def output_of(platform: Platform, event: RunEvent) -> Output:
    return read_output(platform.settings.data / "outputs", event.output)


def produce(platform: Platform, records: list[tuple[str | None, bytes]]) -> None:
    """As a foreign client would, with its own partitioner."""
    producer = Producer({"bootstrap.servers": platform.settings.kafka, "message.max.bytes": 2_000_000})
    for key, value in records:
        producer.produce(SUBMISSIONS, value, key)
    assert producer.flush(10) == 0


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
