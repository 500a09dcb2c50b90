"""The ledger passes over what an executor says whose shard has passed on, also when it has started anew since."""

import time

import pytest
from confluent_kafka import Producer

from dueline.address import RUNS, minute_of
from dueline.codec import encode_owner_started, encode_run_event
from dueline.job import Priority
from dueline.runs import OwnerStarted, RunEvent
from dueline.states import AttemptState
from tests.platform.conftest import Platform, wait_for
from tests.platform.test_lease import epochs_of

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]

SHARD = 5


def test_the_ledger_ignores_a_woken_executor(platform: Platform) -> None:
    wait_for(lambda: SHARD in epochs_of(platform), "an owner", 60)
    former = epochs_of(platform)[SHARD]  # of the platform's own executor, which a made-up one succeeds
    before, late, later = (event(name, former) for name in ("before", "late", "later"))
    first, second = (event(name, former + 1) for name in ("first", "second"))
    produce(
        platform,
        encode_run_event(before),
        encode_owner_started(OwnerStarted(shard=SHARD, epoch=former + 1, executor="new", at_ms=0)),
        encode_run_event(late),
        encode_run_event(first),
    )
    await_recorded(platform, first)
    assert recorded(platform, before)
    assert not recorded(platform, late)
    platform.kill("ledger")
    produce(platform, encode_run_event(later), encode_run_event(second))
    await_recorded(platform, second)
    assert not recorded(platform, later)


def event(name: str, epoch: int) -> RunEvent:
    now_ms = time.time_ns() // 1_000_000
    return RunEvent(
        job_id=f"{name}-{now_ms}",
        due_ms=now_ms,
        attempt=1,
        version=0,
        state=AttemptState.SUCCEEDED,
        at_ms=now_ms,
        executor_class="noop",
        priority=Priority.NORMAL,
        recurring=False,
        executor="somebody",
        epoch=epoch,
    )


def produce(platform: Platform, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": platform.settings.kafka})
    for value in values:
        producer.produce(RUNS, value, partition=SHARD)
    assert producer.flush(10) == 0


def recorded(platform: Platform, one: RunEvent) -> bool:
    query = "SELECT state FROM runs WHERE minute = %s AND shard = %s AND run_id = %s"
    with platform.cassandra() as session:
        return bool(list(session.execute(query, (minute_of(one.due_ms), SHARD, one.run_id))))


def await_recorded(platform: Platform, one: RunEvent) -> None:
    wait_for(lambda: recorded(platform, one), f"the row of {one.run_id}", 60)
