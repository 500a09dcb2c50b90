"""What is told of a record at a glance."""

import json

import pytest

from dueline.codec import encode_control_command, encode_job
from dueline.commands import Action, ControlCommand
from dueline.ids import IdGenerator
from dueline.job import Job
from stream_processors.scheduler.received import changed_id

GENERATED = IdGenerator().next(1_790_000_000_000)
JOB = encode_job(Job(id=GENERATED, executor_class="noop"))
NAMED = encode_job(Job(id="nightly", executor_class="noop"))
CANCEL = encode_control_command(ControlCommand(job_id=GENERATED, action=Action.CANCEL))


@pytest.mark.parametrize(
    ("key", "value", "changed"),
    [
        (GENERATED.encode(), JOB, None),
        (b"f" + GENERATED[1:].encode(), JOB, "f" + GENERATED[1:]),  # no time that ever comes: a name
        (None, JOB, None),
        (b"nightly", NAMED, "nightly"),
        (GENERATED.encode(), CANCEL, GENERATED),
        (None, CANCEL, GENERATED),
        (b"any", json.dumps({"id": "nightly", "executor_class": "noop"}).encode(), "nightly"),
        (b"any", json.dumps({"executor_class": "noop"}).encode(), None),
        (b"two words", b"\xc3\x01", None),
        (b"any", b"{", None),
    ],
)
def test_which_job_a_record_may_change(key: bytes | None, value: bytes, changed: str | None) -> None:
    assert changed_id(key, value) == changed
