"""Bytes to values and back, for every record that travels between processes.

We write Avro in its single-object encoding: `C3 01`, the fingerprint of the writer's schema, the body. Submissions
are also read as JSON; the first byte tells which it is. Instants travel as plain `long` milliseconds: a logical type
would cost fastavro twice the time and say no more.
"""

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import lru_cache
from io import BytesIO
from typing import Any

from fastavro import schemaless_reader, schemaless_writer

from dueline.calendars import Calendar
from dueline.clock import from_ms, to_ms
from dueline.commands import Action, BulkCommand, CancelOrder, ControlCommand, JobFilter, RetryCommand
from dueline.contracts import FINGERPRINT_LENGTH, SINGLE_OBJECT_MARK, all_contracts, latest
from dueline.errors import InvalidJob, UndecodableRecord
from dueline.ids import NAME_LENGTH_MAX, is_generated, is_name
from dueline.job import Job, Priority, ReadParams, params_text
from dueline.json_form import bulk_from_json, calendar_from_json, command_from_json, job_from_json
from dueline.policies import IfExists, Missed, Overlap, Retry
from dueline.progress import PROGRESS_LENGTH_MAX, checked_progress
from dueline.runs import Heartbeat, Output, OwnerStarted, ReadyRun, RunEvent
from dueline.states import AttemptState, JobState
from dueline.triggers import MOMENT_MAX_MS, Cron, Every, Once, Trigger

#: A longer submission is refused. Our producers and the topics take more, so that it can be passed on whole.
SUBMISSION_LENGTH_MAX = 256_000
#: But for a job as it is stored and passed on, which has the fields that its submission left out, and a retry of it, which says
#: besides which attempt it is and how far the run was.
DEFINITION_LENGTH_MAX = SUBMISSION_LENGTH_MAX + 4_000
RETRY_LENGTH_MAX = DEFINITION_LENGTH_MAX + PROGRESS_LENGTH_MAX + 1_000
CONFLUENT_MARK = b"\x00"
_ONE_MS = timedelta(milliseconds=1)

Submission = Job | RetryCommand | ControlCommand | BulkCommand | Calendar


def decode_submission(data: bytes) -> Submission:
    """What a record of `jobs.submissions` asks for.

    Raises UndecodableRecord for bytes that are no submission, InvalidJob for one with a field that is wrong.
    """
    if len(data) > SUBMISSION_LENGTH_MAX:
        length_max = SUBMISSION_LENGTH_MAX
        for record, longer in (("JobSubmission", DEFINITION_LENGTH_MAX), ("RetryCommand", RETRY_LENGTH_MAX)):
            if data.startswith(latest(record).header):
                length_max = longer
        if len(data) > length_max:
            raise InvalidJob("submission", f"has {len(data)} bytes; at most {length_max} are accepted")
    if data.startswith(SINGLE_OBJECT_MARK):
        record, fields = decode(data)
        if record not in _SUBMISSIONS:
            raise UndecodableRecord(f"an Avro record {record} is no submission; send a JobSubmission")
        return _SUBMISSIONS[record](fields)
    if data.lstrip()[:1] == b"{":
        try:
            source = json.loads(data)
        except (
            ValueError,
            RecursionError,
        ) as error:  # of JSON, of UTF-8, or of a number with thousands of digits
            raise UndecodableRecord(f"not valid JSON: {error}") from error
        if "calendar" in source:
            return calendar_from_json(source)
        if "matching" in source:
            return bulk_from_json(source)
        if "action" in source:
            command = command_from_json(source)
            require_job_id("id", command.job_id)
            return command
        job = job_from_json(source)
        params_text(job.params)  # JSON's reader lets through what its writer refuses, such as NaN
        return job
    if data.startswith(CONFLUENT_MARK):
        raise UndecodableRecord(
            "Avro in Confluent's framing needs a schema registry, which is not connected; "
            "send the single-object encoding (C3 01) or JSON"
        )
    raise UndecodableRecord("neither JSON ({) nor Avro in the single-object encoding (C3 01); see schemas/")


def decode(data: bytes) -> tuple[str, dict[str, Any]]:
    """The record's name and the fields of Avro bytes in single-object encoding, in the newest version of its schema."""
    header_length = len(SINGLE_OBJECT_MARK) + FINGERPRINT_LENGTH
    contract = all_contracts().get(data[:header_length])
    if contract is None:
        raise UndecodableRecord(
            f"no schema has the fingerprint {data[2:header_length].hex()}; schemas/ has the known ones"
        )
    newest = latest(contract.record)
    body = BytesIO(data)
    body.seek(header_length)
    try:
        fields = schemaless_reader(body, contract.schema, None if newest is contract else newest.schema)
    except Exception as error:  # a truncated or forged body meets fastavro with whatever its bytes lead to
        raise UndecodableRecord(
            f"the body is no {contract.record} of version {contract.version}: {error!r}"
        ) from error
    if body.tell() != len(data):
        raise UndecodableRecord(f"{len(data) - body.tell()} bytes follow the body of a {contract.record}")
    return contract.record, fields  # type: ignore[return-value]


def encode(record: str, fields: Mapping[str, Any]) -> bytes:
    """Avro bytes in single-object encoding, by the newest version of the record's schema."""
    contract = latest(record)
    body = BytesIO()
    body.write(contract.header)
    schemaless_writer(body, contract.schema, fields)
    return body.getvalue()


def encode_job(job: Job) -> bytes:
    return encode("JobSubmission", job_fields(job))


def is_definition(data: bytes) -> bool:
    """Whether a submission that was read is encoded as jobs are stored."""
    return data.startswith(latest("JobSubmission").header)


def encode_definition(job: Job) -> bytes:
    """A job as it is stored. Raises InvalidJob if it is longer than can be read again: numbers and changes may have made it so."""
    definition = encode_job(job)
    if len(definition) > DEFINITION_LENGTH_MAX:
        raise InvalidJob(
            "submission",
            f"as it would be stored the job has {len(definition)} bytes; at most {DEFINITION_LENGTH_MAX} are",
        )
    return definition


def encode_calendar(calendar: Calendar) -> bytes:
    fields = {"name": calendar.name, "dates": sorted(calendar.dates), "time_zone": calendar.time_zone}
    return encode("Calendar", fields)


def encode_retry_command(command: RetryCommand) -> bytes:
    return encode("RetryCommand", {"follows": command.follows, "run": _ready_run_fields(command.run)})


def encode_control_command(command: ControlCommand) -> bytes:
    fields = {name: getattr(command, name) for name in ControlCommand.__slots__}
    return encode(
        "ControlCommand", fields | {"action": command.action.value, "fields": params_text(command.fields)}
    )


def encode_bulk_command(command: BulkCommand) -> bytes:
    matching = {name: getattr(command.matching, name) for name in JobFilter.__slots__}
    values = {"action": command.action.value, "note": command.note, "fields": params_text(command.fields)}
    return encode("BulkCommand", matching | values)


def encode_cancel_order(order: CancelOrder) -> bytes:
    ends = {f"ready_{priority.value}": order.ready[priority] for priority in Priority}
    return encode(
        "CancelOrder", {"job_id": order.job_id, "version": order.version, "reason": order.reason} | ends
    )


def decode_cancel_order(data: bytes) -> CancelOrder:
    fields = _fields_of("CancelOrder", data)
    ready = {priority: fields.pop(f"ready_{priority.value}") for priority in Priority}
    return CancelOrder(**fields, ready=ready)


def encode_ready_run(run: ReadyRun) -> bytes:
    return encode("ReadyRun", _ready_run_fields(run))


def decode_ready_run(data: bytes) -> ReadyRun:
    return _ready_run(_fields_of("ReadyRun", data))


def moved_ready_run(data: bytes, due_ms: int, emit_ms: int) -> bytes:
    """An encoded ready run with other due and emit times, all else as it is. A fifth of the time of encoding it anew.

    The two are the fields behind the job's id, so they can be replaced without reading what follows.
    """
    header = latest("ReadyRun").header
    if not data.startswith(header):  # an older version: what is written is the newest
        return encode("ReadyRun", _fields_of("ReadyRun", data) | {"due_ms": due_ms, "emit_ms": emit_ms})
    id_length, id_begin = _read_long(data, len(header))
    _, emit_begin = _read_long(data, id_begin + id_length)
    _, rest = _read_long(data, emit_begin)
    return data[: id_begin + id_length] + long_of(due_ms) + long_of(emit_ms) + data[rest:]


def may_expire(data: bytes) -> bool:
    """Whether an encoded ready run may have a limit of time. False only where it has none: known by its last bytes, without decoding it.

    Its last fields are the two limits and the progress, each of them a zero where there is none, and no number that is given
    ends in one.
    """
    return not (data.endswith(b"\0\0\0") and data.startswith(latest("ReadyRun").header))


def encode_run_event(event: RunEvent) -> bytes:
    fields = {name: getattr(event, name) for name in RunEvent.__slots__}
    return encode("RunEvent", fields | {"state": event.state.value, "priority": event.priority.value})


def decode_run_event(data: bytes) -> RunEvent:
    return _run_event(_fields_of("RunEvent", data))


def encode_owner_started(started: OwnerStarted) -> bytes:
    return encode("OwnerStarted", {name: getattr(started, name) for name in OwnerStarted.__slots__})


def decode_run_record(data: bytes) -> RunEvent | OwnerStarted:
    """A record of `jobs.runs`, of either kind."""
    record, fields = decode(data)
    if not 0 <= fields.get("epoch", 0) < EPOCH_END:
        raise UndecodableRecord(f"no owner has the epoch {fields['epoch']}")
    if record == "RunEvent":
        return _run_event(fields)
    if record == "OwnerStarted":
        return OwnerStarted(**fields)
    raise UndecodableRecord(f"a record {record} where a RunEvent or an OwnerStarted was expected")


def _run_event(fields: Mapping[str, Any]) -> RunEvent:
    return RunEvent(
        **dict(fields) | {"state": AttemptState(fields["state"]), "priority": Priority(fields["priority"])}
    )


def encode_heartbeat(heartbeat: Heartbeat) -> bytes:
    return encode("Heartbeat", {name: getattr(heartbeat, name) for name in Heartbeat.__slots__})


def decode_heartbeat(data: bytes) -> Heartbeat:
    fields = _fields_of("Heartbeat", data)
    return Heartbeat(**fields | {"classes": tuple(fields["classes"])})


def output_fields(output: Output) -> dict[str, Any]:
    """The fields of a record in the output store's container files."""
    return {name: getattr(output, name) for name in Output.__slots__} | {"state": output.state.value}


def output_from_fields(fields: Mapping[str, Any]) -> Output:
    return Output(**dict(fields) | {"state": AttemptState(fields["state"])})


def job_fields(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "name": job.name,
        "executor_class": job.executor_class,
        "priority": job.priority.value,
        "params": params_text(job.params),
        "triggers": [_trigger_fields(trigger) for trigger in job.triggers],
        "retry": _retry_fields(job.retry),
        "timeout_ms": round(job.timeout_s * 1000),
        "missed": job.missed.value,
        "catch_up_ms": round(job.catch_up_s * 1000),
        "overlap": job.overlap and job.overlap.value,
        "start_within_ms": _ms(job.start_within_s),
        "end_within_ms": _ms(job.end_within_s),
        "if_exists": job.if_exists.value,
    }


def _job(fields: Mapping[str, Any]) -> Job:
    return Job(
        id=fields["id"],
        name=fields["name"],
        executor_class=fields["executor_class"],
        priority=Priority(fields["priority"]),
        params=ReadParams(fields["params"]),
        triggers=tuple(_trigger(trigger) for trigger in fields["triggers"]),
        retry=_retry_of(fields["retry"]),
        timeout_s=fields["timeout_ms"] / 1000,
        missed=Missed(fields["missed"]),
        catch_up_s=fields["catch_up_ms"] / 1000,
        overlap=None if fields["overlap"] is None else Overlap(fields["overlap"]),
        start_within_s=_s(fields["start_within_ms"]),
        end_within_s=_s(fields["end_within_ms"]),
        if_exists=IfExists(fields["if_exists"]),
    )


def _retry_command(fields: Mapping[str, Any]) -> RetryCommand:
    run = _ready_run(fields["run"])
    if not 1 <= fields["follows"] < run.attempt:
        raise InvalidJob("run.attempt", f"{run.attempt} does not come after attempt {fields['follows']}")
    require_storable(run.job_id, run.attempt, {"due_ms": run.due_ms, "emit_ms": run.emit_ms})
    try:
        checked_progress(run.progress)
    except ValueError as error:
        raise InvalidJob("run.progress", str(error)) from error
    return RetryCommand(follows=fields["follows"], run=run)


def _control_command(fields: Mapping[str, Any]) -> ControlCommand:
    require_job_id("job_id", fields["job_id"])
    values = {"action": Action(fields["action"]), "fields": ReadParams(fields["fields"])}
    return ControlCommand(**dict(fields) | values)


def _bulk_command(fields: Mapping[str, Any]) -> BulkCommand:
    state = None if fields["state"] is None else JobState(fields["state"])
    return BulkCommand(
        matching=JobFilter(executor_class=fields["executor_class"], state=state, prefix=fields["prefix"]),
        action=Action(fields["action"]),
        note=fields["note"],
        fields=ReadParams(fields["fields"]),
    )


def require_storable(job_id: str, attempt: int, instants_ms: Mapping[str, int | None]) -> None:
    """Raises InvalidJob for what no table takes of a run: Avro's reader takes any number for an int."""
    require_job_id("run.job_id", job_id)
    if not 1 <= attempt <= ATTEMPT_MAX:
        raise InvalidJob("run.attempt", f"{attempt} is less than 1, or is more than {ATTEMPT_MAX}")
    for field, instant_ms in instants_ms.items():
        if instant_ms is not None and not 0 <= instant_ms <= MOMENT_MAX_MS:
            raise InvalidJob(f"run.{field}", f"{instant_ms} lies outside the years 1970 to 9000")


def require_job_id(field: str, text: str) -> None:
    """Raises InvalidJob for a text that can be no job's id."""
    if not (isinstance(text, str) and (is_generated(text) or is_name(text))):
        raise InvalidJob(
            field,
            f"{text!r:.80} is no job's id, which is made of 1 to {NAME_LENGTH_MAX} letters, digits or any of . _ : / -",
        )


#: Owner epochs are counted one by one: none that is as high was.
EPOCH_END = 1 << 48
#: What fits into the tables, with room for those that follow.
ATTEMPT_MAX = 1_000_000_000

_SUBMISSIONS: Mapping[str, Callable[[Mapping[str, Any]], Submission]] = {
    "JobSubmission": _job,
    "RetryCommand": _retry_command,
    "ControlCommand": _control_command,
    "BulkCommand": _bulk_command,
    "Calendar": lambda fields: Calendar(**fields),
}


def _ready_run_fields(run: ReadyRun) -> dict[str, Any]:
    return {
        "job_id": run.job_id,
        "due_ms": run.due_ms,
        "emit_ms": run.emit_ms,
        "attempt": run.attempt,
        "version": run.version,
        "executor_class": run.executor_class,
        "priority": run.priority.value,
        "params": params_text(run.params),
        "timeout_ms": run.timeout_ms,
        "retry": _retry_fields(run.retry),
        "name": run.name,
        "recurring": run.recurring,
        "failures": run.failures,
        "crashes": run.crashes,
        "overlap": run.overlap.value,
        "start_by_ms": run.start_by_ms,
        "end_by_ms": run.end_by_ms,
        "progress": run.progress,
    }


def _ready_run(fields: Mapping[str, Any]) -> ReadyRun:
    values = {
        "priority": Priority(fields["priority"]),
        "params": ReadParams(fields["params"]),
        "retry": _retry_of(fields["retry"]),
        "overlap": Overlap(fields["overlap"]),
    }
    return ReadyRun(**(dict(fields) | values))


@lru_cache(1024)  # most jobs have one of a few policies
def _retry_fields(retry: Retry) -> Mapping[str, Any]:
    return {
        "max_attempts": retry.max_attempts,
        "backoff_ms": round(retry.backoff_s * 1000),
        "factor": retry.factor,
        "backoff_max_ms": round(retry.backoff_max_s * 1000),
        "step_ms": round(retry.step_s * 1000),
        "pauses_ms": [round(pause_s * 1000) for pause_s in retry.pauses_s],
        "jitter": retry.jitter,
        "give_up_on": list(retry.give_up_on),
    }


def _retry_of(fields: Mapping[str, Any]) -> Retry:
    lists = {"pauses_ms": tuple(fields["pauses_ms"]), "give_up_on": tuple(fields["give_up_on"])}
    return _retry(**dict(fields) | lists)


@lru_cache(1024)
def _retry(
    max_attempts: int,
    backoff_ms: int,
    factor: float,
    backoff_max_ms: int,
    step_ms: int,
    pauses_ms: tuple[int, ...],
    jitter: float,
    give_up_on: tuple[str, ...],
) -> Retry:
    return Retry(
        max_attempts=max_attempts,
        backoff_s=backoff_ms / 1000,
        factor=factor,
        backoff_max_s=backoff_max_ms / 1000,
        step_s=step_ms / 1000,
        pauses_s=tuple(pause_ms / 1000 for pause_ms in pauses_ms),
        jitter=jitter,
        give_up_on=give_up_on,
    )


def _read_long(data: bytes, at: int) -> tuple[int, int]:
    """A number that is not negative, as Avro writes it, and where it ends."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number >> 1, at


def long_of(number: int) -> bytes:
    """A number that is not negative, as Avro writes it: doubled, seven bits a byte, the lowest first."""
    number <<= 1
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _s(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000


def _trigger_fields(trigger: Trigger) -> tuple[str, dict[str, Any]]:
    """A branch of the union of triggers, named so that fastavro need not guess it."""
    namespace = latest("JobSubmission").schema["name"].rpartition(".")[0]
    if isinstance(trigger, Once):
        return f"{namespace}.Once", {"at_ms": to_ms(trigger.at)}
    assert isinstance(trigger, Every | Cron)
    shared = {
        "start_ms": to_ms(trigger.start) if trigger.start else None,
        "end_ms": to_ms(trigger.end) if trigger.end else None,
        "jitter_ms": trigger.jitter // _ONE_MS,
        "excluding": list(trigger.excluding),
    }
    if isinstance(trigger, Every):
        return f"{namespace}.Every", {"interval_ms": trigger.interval // _ONE_MS, **shared}
    return f"{namespace}.Cron", {"expression": trigger.expression, "time_zone": trigger.time_zone, **shared}


def _trigger(fields: Mapping[str, Any]) -> Trigger:
    try:
        if "at_ms" in fields:
            return Once(from_ms(fields["at_ms"]))
        start, end = (None if fields[n] is None else from_ms(fields[n]) for n in ("start_ms", "end_ms"))
        jitter, excluding = fields["jitter_ms"] * _ONE_MS, tuple(fields["excluding"])
        if "interval_ms" in fields:
            return Every(fields["interval_ms"] * _ONE_MS, start, end, jitter, excluding)
    except OverflowError:
        raise InvalidJob("trigger", "a time lies outside the years 1 to 9999") from None
    return Cron(fields["expression"], fields["time_zone"], start, end, jitter, excluding)


def _fields_of(record: str, data: bytes) -> dict[str, Any]:
    found, fields = decode(data)
    if found != record:
        raise UndecodableRecord(f"a record {found} where a {record} was expected")
    return fields
