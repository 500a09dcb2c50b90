"""Every record survives the way there and back; other bytes only ever lead to the two errors that callers expect."""

import json
import struct
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dueline import codec
from dueline.calendars import Calendar
from dueline.codec import DEFINITION_LENGTH_MAX, SUBMISSION_LENGTH_MAX, decode_submission
from dueline.commands import BulkCommand, CancelOrder, ControlCommand, RetryCommand
from dueline.contracts import all_contracts, latest
from dueline.errors import InvalidJob, UndecodableRecord
from dueline.job import Job
from dueline.json_form import calendar_to_json
from dueline.progress import PROGRESS_LENGTH_MAX, progress_text
from dueline.runs import Heartbeat, Output, OwnerStarted, ReadyRun, RunEvent
from dueline.triggers import MOMENT_MAX_MS
from tests.dueline.conftest import params as PARAMS

NOW_MS = 1_800_000_000_000
PLAIN = Job(executor_class="command", id="plain")
DECODERS = (
    decode_submission,
    codec.decode_ready_run,
    codec.decode_run_event,
    codec.decode_run_record,
    codec.decode_heartbeat,
)


def accept(data: bytes) -> None:
    """What a scheduler does with bytes from anybody: only the two errors may come of it."""
    with suppress(UndecodableRecord, InvalidJob):
        submission = decode_submission(data)
        if isinstance(submission, Job):
            submission.anchored(NOW_MS).first_ms(NOW_MS)
            codec.encode_job(submission)
        elif isinstance(submission, RetryCommand):
            codec.encode_ready_run(submission.run)


@given(st.from_type(Job))
def test_a_job_survives(job: Job) -> None:
    assert decode_submission(codec.encode_job(job)) == job


@given(st.from_type(Calendar))
def test_a_calendar_survives(calendar: Calendar) -> None:
    assert decode_submission(codec.encode_calendar(calendar)) == calendar
    assert decode_submission(json.dumps(calendar_to_json(calendar)).encode()) == calendar


@given(st.from_type(RetryCommand))
def test_a_retry_command_survives(command: RetryCommand) -> None:
    assert decode_submission(codec.encode_retry_command(command)) == command


@given(st.from_type(ControlCommand))
def test_a_control_command_survives(command: ControlCommand) -> None:
    assert decode_submission(codec.encode_control_command(command)) == command


@given(st.from_type(BulkCommand))
def test_a_command_for_many_survives_in_either_form(command: BulkCommand) -> None:
    assert decode_submission(codec.encode_bulk_command(command)) == command
    matching = {name: getattr(command.matching, name) for name in command.matching.__slots__}
    form = {"action": command.action, "matching": matching, "note": command.note}
    if command.fields:
        form["fields"] = dict(command.fields)
    assert decode_submission(json.dumps(form).encode()) == command


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"matching": {}}, "describes no jobs"),
        ({"matching": {"executor_class": None}}, "describes no jobs"),
        ({"matching": {"class": "http"}}, "matching.class: is not known"),
        ({"matching": {"prefix": 5}}, "matching.prefix: must be a text"),
        ({"matching": {"state": "paused"}}, "'paused' is not one of ACTIVE"),
        ({"matching": "http"}, "must be a JSON object"),
        ({"matching": {"prefix": ""}, "id": "job"}, "id: is not known"),
        ({"matching": {"prefix": ""}, "action": "backfill"}, "backfill is for one job"),
        ({"matching": {"prefix": ""}, "action": "change"}, "fields are for the action change"),
        ({"matching": {"prefix": ""}, "note": "\ud800"}, "half a surrogate pair"),
    ],
)
def test_a_command_for_many_that_makes_no_sense_is_refused(form: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidJob) as refusal:
        decode_submission(json.dumps({"action": "pause"} | form).encode())
    assert told in str(refusal.value)


@given(st.from_type(CancelOrder))
def test_a_cancel_order_survives(order: CancelOrder) -> None:
    assert codec.decode_cancel_order(codec.encode_cancel_order(order)) == order


@given(st.from_type(ReadyRun))
def test_a_ready_run_survives(run: ReadyRun) -> None:
    assert codec.decode_ready_run(codec.encode_ready_run(run)) == run


@given(st.from_type(ReadyRun), st.integers(0, MOMENT_MAX_MS), st.integers(0, MOMENT_MAX_MS))
@example(ReadyRun.of(PLAIN, due_ms=0, emit_ms=0, version=0), 63, 64)
def test_a_moved_ready_run_is_the_one_with_other_times(run: ReadyRun, due_ms: int, emit_ms: int) -> None:
    moved = codec.moved_ready_run(codec.encode_ready_run(run), due_ms, emit_ms)
    assert moved == codec.encode_ready_run(replace(run, due_ms=due_ms, emit_ms=emit_ms))


@given(st.from_type(ReadyRun))
@example(ReadyRun.of(PLAIN, due_ms=0, emit_ms=0, version=0))
@example(replace(ReadyRun.of(PLAIN, due_ms=0, emit_ms=0, version=0), start_by_ms=1))
@example(replace(ReadyRun.of(PLAIN, due_ms=0, emit_ms=0, version=0), end_by_ms=1))
def test_a_ready_run_without_limits_is_known_by_its_bytes(run: ReadyRun) -> None:
    assume(run.start_by_ms != 0 and run.end_by_ms != 0)  # they lie behind the due time
    limited = run.start_by_ms is not None or run.end_by_ms is not None
    assert codec.may_expire(codec.encode_ready_run(run)) == (limited or run.progress != "")


@given(st.from_type(RunEvent))
def test_a_run_event_survives(event: RunEvent) -> None:
    assert codec.decode_run_event(codec.encode_run_event(event)) == event
    assert codec.decode_run_record(codec.encode_run_event(event)) == event


@given(st.from_type(OwnerStarted))
def test_a_start_of_an_owner_survives(started: OwnerStarted) -> None:
    assert codec.decode_run_record(codec.encode_owner_started(started)) == started


@given(st.from_type(Heartbeat))
def test_a_heartbeat_survives(heartbeat: Heartbeat) -> None:
    assert codec.decode_heartbeat(codec.encode_heartbeat(heartbeat)) == heartbeat


@given(st.from_type(Output))
def test_an_output_survives(output: Output) -> None:
    record, fields = codec.decode(codec.encode("Output", codec.output_fields(output)))
    assert record == "Output"
    assert codec.output_from_fields(fields) == output


def test_a_record_of_another_kind_is_refused() -> None:
    with pytest.raises(UndecodableRecord, match="a record JobSubmission where a RunEvent was expected"):
        codec.decode_run_event(codec.encode_job(PLAIN))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "neither JSON"),
        (b"hello", "neither JSON"),
        (b"\x00\x00\x00\x00\x01", "schema registry"),
        (b"\xc3\x01", "no schema has the fingerprint"),
        (b"\xc3\x01" + bytes(8), "no schema has the fingerprint 0000000000000000"),
        (b"{", "not valid JSON"),
        (b'{"executor_class": "\xff"}', "not valid JSON"),
        (b'{"a":' * 100_000, "not valid JSON"),
        (b'{"params": {"n": ' + b"1" * 5000 + b"}}", "not valid JSON"),
        (codec.encode_job(PLAIN) + b"\x00", "1 bytes follow the body"),
    ],
)
def test_what_cannot_be_decoded_says_why(data: bytes, says: str) -> None:
    data = data[:SUBMISSION_LENGTH_MAX]
    with pytest.raises(UndecodableRecord, match=says):
        decode_submission(data)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", '"\\ud800"'])
def test_params_that_cannot_be_written_again_are_refused(value: str) -> None:
    with pytest.raises(InvalidJob, match="params"):
        decode_submission(b'{"executor_class": "a", "params": {"x": %s}}' % value.encode())
    fields = codec.job_fields(PLAIN) | {"params": f'{{"x": {value}}}'}
    with pytest.raises(InvalidJob, match="params"):
        decode_submission(codec.encode("JobSubmission", fields))


@given(PARAMS, st.sampled_from([None, 1]), st.booleans())
def test_params_are_passed_on_as_they_came(params: dict[str, Any], indent: int | None, ascii_: bool) -> None:
    text = json.dumps(params, indent=indent, ensure_ascii=ascii_)
    job = decode_submission(codec.encode("JobSubmission", codec.job_fields(PLAIN) | {"params": text}))
    assert isinstance(job, Job)
    assert job.params == params
    again = codec.decode(codec.encode_job(job))[1]["params"]
    assert json.loads(again) == params
    if "\\u" not in text:
        assert again == text


def test_a_submission_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidJob, match="at most 256000"):
        decode_submission(b" " * SUBMISSION_LENGTH_MAX + b"{")


def test_the_retry_of_a_job_that_was_just_short_enough_is_accepted_with_its_progress() -> None:
    job = Job(executor_class="command", id="long", params={"x": "y" * (DEFINITION_LENGTH_MAX - 80)})
    assert DEFINITION_LENGTH_MAX - 20 < len(codec.encode_definition(job)) <= DEFINITION_LENGTH_MAX
    run = ReadyRun(
        job_id="long",
        due_ms=NOW_MS,
        emit_ms=NOW_MS,
        attempt=2,
        version=10**9,
        executor_class=job.executor_class,
        priority=job.priority,
        params=job.params,
        timeout_ms=1,
        retry=job.retry,
        progress=progress_text("x" * (PROGRESS_LENGTH_MAX - 2)),
    )
    command = RetryCommand(follows=1, run=run)
    assert decode_submission(codec.encode_retry_command(command)) == command
    beyond = replace(command, run=replace(run, attempt=codec.ATTEMPT_MAX + 1))
    with pytest.raises(InvalidJob, match="is more than 1000000000"):
        decode_submission(codec.encode_retry_command(beyond))
    with pytest.raises(InvalidJob, match="at most 325000"):
        decode_submission(codec.encode_retry_command(command) + bytes(2000))


@given(
    st.data(),
    st.from_type(Job)
    | st.from_type(RetryCommand)
    | st.from_type(ControlCommand)
    | st.from_type(BulkCommand)
    | st.from_type(Calendar),
)
@settings(max_examples=400)
def test_damaged_bytes_are_refused(data: st.DataObject, submission: codec.Submission) -> None:
    whole = bytearray(_encode(submission))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(whole) - 1))
        match data.draw(st.sampled_from(("flip", "cut", "insert"))):
            case "flip":
                whole[place] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del whole[max(1, place) :]
            case "insert":
                whole[place:place] = data.draw(st.binary(max_size=9))
    accept(bytes(whole))


@given(st.sampled_from(sorted(all_contracts())), st.binary(max_size=200))
@settings(max_examples=400)
def test_forged_bodies_are_refused(header: bytes, body: bytes) -> None:
    accept(header + body)
    for decode in DECODERS:
        with suppress(UndecodableRecord, InvalidJob):
            decode(header + body)


ODD_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(alphabet=st.characters(), max_size=5)
    | st.sampled_from(["* * * * *", "@daily", "2030-01-01T00:00:00Z", "9999-12-31T23:59:59Z", 10**15, 1e308]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=3,
)


def _odd(fields: tuple[str, ...]) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from(fields), ODD_VALUES, max_size=4)


ODD_TRIGGERS = (
    _odd(("at", "every_s", "cron", "time_zone", "start", "end", "jitter_s", "excluding")) | ODD_VALUES
)
ODD_JOBS = st.builds(
    lambda job, extra: job | {name: value for name, value in extra.items() if value is not None},
    _odd(("id", "name", "executor_class", "priority", "params", "timeout_s")),
    st.fixed_dictionaries(
        {},
        optional={
            "executor_class": st.just("a"),
            "trigger": ODD_TRIGGERS,
            "triggers": st.lists(ODD_TRIGGERS, max_size=2),
            "retry": _odd(("max_attempts", "backoff_s", "factor", "backoff_max_s")) | ODD_VALUES,
        },
    ),
)


@given(ODD_JOBS | _odd(("calendar", "dates", "time_zone")))
@settings(max_examples=600)
@example({"calendar": "a", "dates": ["2030-01-01", 5]})
@example({"calendar": "a", "dates": [], "time_zone": []})
@example({"executor_class": "a", "trigger": {"every_s": 1, "jitter_s": 1e8}})
@example({"executor_class": "a", "trigger": {"every_s": 1, "excluding": [[]]}})
@example({"executor_class": "a", "trigger": {"cron": []}})
@example({"executor_class": "a", "trigger": {"cron": "* * * * *", "time_zone": {"a": 1}}})
@example({"executor_class": "a", "trigger": {"cron": "0 0 1 1 *", "start": "9999-12-31T23:59:59Z"}})
@example({"executor_class": "a", "trigger": {"every_s": 1, "start": "9999-12-31T23:59:59Z"}})
@example({"executor_class": "a", "trigger": {"at": "0001-01-01T00:00:00+14:00"}})
@example({"executor_class": "a", "trigger": {"cron": "* * * * *", "start": "0001-01-01T00:00:00+14:00"}})
@example({"executor_class": "a", "trigger": {"every_s": 1, "end": "0001-01-01T00:00:00Z"}})
def test_odd_json_is_refused(source: dict[str, Any]) -> None:
    accept(json.dumps(source).encode())


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
@example(-62135596800001, 0)
@example(253402300800000, 0)
def test_absurd_longs_are_refused(first: int, second: int) -> None:
    fields = codec.job_fields(PLAIN)
    window = {"start_ms": first, "end_ms": second}
    for kind, trigger in (
        ("Once", {"at_ms": first}),
        ("Every", {"interval_ms": first, "start_ms": None, "end_ms": second}),
        ("Every", {"interval_ms": 1000, **window}),
        ("Every", {"interval_ms": 1000, "jitter_ms": first}),
        ("Cron", {"expression": "* * * * *", "time_zone": "Asia/Tokyo", **window}),
    ):
        accept(codec.encode("JobSubmission", fields | {"triggers": [(f"dueline.v1.{kind}", trigger)]}))
    accept(codec.encode("JobSubmission", fields | {"timeout_ms": first}))
    retry = fields["retry"] | {"backoff_ms": first, "backoff_max_ms": second}
    accept(codec.encode("JobSubmission", fields | {"retry": retry}))


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), -1.0, 1e308])
def test_absurd_doubles_are_refused(factor: float) -> None:
    fields = codec.job_fields(PLAIN)
    data = codec.encode("JobSubmission", fields | {"retry": fields["retry"] | {"factor": factor}})
    with pytest.raises(InvalidJob, match=r"retry\.factor"):
        decode_submission(data)


def test_lengths_in_a_body_reserve_no_memory() -> None:
    header = latest("JobSubmission").header
    huge = _varint(2**60)
    bodies = [
        b"\x02" + huge,  # the id's length
        b"\x00\x00" + huge + b"a",  # the executor class's length
        b"\x00\x00\x02a\x02\x04{}" + huge,  # the count of triggers
        b"\x00\x00\x02a\x02\x04{}" + _varint(-(2**60)) + huge,  # the same, as a block with its size
    ]
    tracemalloc.start()
    for body in bodies:
        with pytest.raises(UndecodableRecord):
            decode_submission(header + body)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"follows": 0}, "run.attempt"),
        ({"follows": 7}, "run.attempt"),
        ({"job_id": "no id"}, "run.job_id"),
        ({"emit_ms": -1}, "run.emit_ms"),
        ({"due_ms": 2**60}, "run.due_ms"),
        ({"progress": "{"}, "run.progress"),
        ({"progress": "[NaN]"}, "run.progress"),
        ({"progress": '"' + "x" * PROGRESS_LENGTH_MAX + '"'}, "run.progress"),
    ],
)
def test_a_retry_command_that_makes_no_sense_is_refused(change: dict[str, Any], field: str) -> None:
    run = codec.job_fields(PLAIN) | {"job_id": "a", "due_ms": 1, "emit_ms": 2, "attempt": 2, "version": 0}
    del run["id"], run["triggers"], run["overlap"]
    fields = {"follows": change.pop("follows", 1), "run": run | {"recurring": False} | change}
    with pytest.raises(InvalidJob) as refusal:
        decode_submission(codec.encode("RetryCommand", fields))
    assert refusal.value.field == field


def _encode(submission: codec.Submission) -> bytes:
    if isinstance(submission, Job):
        return codec.encode_job(submission)
    if isinstance(submission, RetryCommand):
        return codec.encode_retry_command(submission)
    if isinstance(submission, Calendar):
        return codec.encode_calendar(submission)
    if isinstance(submission, BulkCommand):
        return codec.encode_bulk_command(submission)
    return codec.encode_control_command(submission)


def _varint(number: int) -> bytes:
    """Avro's long: zigzag, seven bits a byte."""
    rest = struct.unpack("<Q", struct.pack("<q", number << 1 ^ number >> 63))[0]
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])
