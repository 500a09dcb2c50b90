"""The JSON form of what the views show. The names are public: programs rely on them.

Instants are ISO 8601 in UTC with milliseconds, durations are whole milliseconds in names that end in `_ms`, and what is
not there is null. A job's own fields are those of its submission.
"""

import json
from typing import Any

from dueline.clock import from_ms
from dueline.codec import decode
from dueline.errors import UndecodableRecord
from dueline.json_form import job_to_json
from dueline.runs import Heartbeat, Output
from infra.rejects import Rejected
from infra.view_values import AttemptView, JobView, LastRun, RunView

Form = dict[str, Any]


def job_form(view: JobView) -> Form:
    definition = job_to_json(view.job) if view.job else {}
    return {
        **definition,
        "id": view.job_id,
        "state": view.state.value,
        "reason": view.reason,
        "version": view.version,
        "accepted": instant(view.accepted_ms),
        "next_due": instant(view.next_due_ms),
        "last_run": _last_run_form(view.last_run) if view.last_run else None,
    }


def _last_run_form(last: LastRun) -> Form:
    return {
        "run_id": last.run_id,
        "due": instant(last.due_ms),
        "state": last.state.value,
        "attempts": last.attempts,
        "started": instant(last.started_ms),
        "ended": instant(last.ended_ms),
        "lateness_ms": last.lateness_ms,
        "executor": last.executor or None,
    }


def run_form(run: RunView) -> Form:
    return {
        "run_id": run.run_id,
        "job_id": run.job_id,
        "due": instant(run.due_ms),
        "state": run.state.value,
        "lateness_ms": run.lateness_ms,
        "attempts": [_attempt_form(attempt) for attempt in run.attempts],
    }


def _attempt_form(attempt: AttemptView) -> Form:
    return {
        "attempt": attempt.attempt,
        "state": attempt.state.value,
        "started": instant(attempt.started_ms),
        "ended": instant(attempt.ended_ms),
        "executor": attempt.executor or None,
        "exit_status": attempt.exit_status,
        "reason": attempt.reason,
        "next_attempt": instant(attempt.retry_ms),
        "output": attempt.output or None,
        "progress": json.loads(attempt.progress) if attempt.progress else None,
        "last_heard": instant(attempt.heard_ms),
    }


def executor_form(beat: Heartbeat) -> Form:
    return {
        "executor": beat.executor,
        "host": beat.host,
        "pid": beat.pid,
        "started": instant(beat.started_ms),
        "last_heartbeat": instant(beat.at_ms),
        "alive": beat.alive,
        "slots": beat.slots,
        "running": beat.running,
        "classes": list(beat.classes),
    }


def output_form(output: Output) -> Form:
    """Bytes that are no UTF-8 are written as escapes; `--stdout-only` gives them as they are."""
    return {
        "run_id": output.run_id,
        "attempt": output.attempt,
        "state": output.state.value,
        "started": instant(output.started_ms),
        "ended": instant(output.ended_ms),
        "exit_status": output.exit_status,
        "result": output.result or None,
        "error": output.error,
        "stdout": text(output.stdout),
        "stderr": text(output.stderr),
        "bytes_dropped": output.bytes_dropped,
    }


def rejected_form(rejected: Rejected) -> Form:
    return {
        "rejected": instant(rejected.at_ms),
        "reason": rejected.reason,
        "place": rejected.place,
        "key": text(rejected.key),
        "value": readable(rejected.value),
        "cut": rejected.cut or None,
    }


def instant(ms: int | None) -> str | None:
    if ms is None:
        return None
    return from_ms(ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def readable(value: bytes | None) -> str | None:
    """A record's value for people: Avro of ours as JSON, anything else as it is."""
    try:
        name, fields = decode(value or b"")
        return f"{name} {json.dumps(fields, ensure_ascii=False, default=str)}"
    except UndecodableRecord:
        return text(value)


def text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "backslashreplace")
