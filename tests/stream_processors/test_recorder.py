"""What the ledger takes for a record of `jobs.runs`: all that it can store, and nothing that would end it."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from dueline.codec import EPOCH_END, encode_owner_started
from dueline.runs import OwnerStarted, RunEvent
from dueline.states import AttemptState
from infra.kafka import RECORD_LENGTH_MAX
from stream_processors.ledger.recorder import _storable
from tests.consumers.run_events import event_bytes, started


def read(value: bytes | None, partition: int = 3) -> object:
    return _storable(cast(Any, SimpleNamespace(value=value, partition=partition, offset=7)))


def test_events_and_starts_of_owners_are_taken() -> None:
    assert isinstance(read(event_bytes("job", AttemptState.FAILED, ended_ms=9, retry_ms=10)), RunEvent)
    assert isinstance(read(started(1)), OwnerStarted)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"any",
        event_bytes("", AttemptState.RUNNING),
        event_bytes("two words", AttemptState.RUNNING),
        event_bytes("job", AttemptState.RUNNING, attempt=0),
        event_bytes("job", AttemptState.RUNNING, attempt=1 << 31),
        event_bytes("job", AttemptState.FAILED, ended_ms=1 << 62),
        event_bytes("job", AttemptState.FAILED, retry_ms=-1),
        event_bytes("job", AttemptState.RUNNING, epoch=EPOCH_END),
        event_bytes("job", AttemptState.FAILED, reason="x" * RECORD_LENGTH_MAX),
        encode_owner_started(OwnerStarted(shard=4, epoch=1, executor="somebody", at_ms=0)),
        encode_owner_started(OwnerStarted(shard=3, epoch=EPOCH_END, executor="somebody", at_ms=0)),
    ],
)
def test_what_could_not_be_stored_is_passed_over(
    value: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    assert read(value) is None
    assert "jobs.runs/3/7 passed over" in caplog.text
