"""An attempt at a function: from the bytes of its ready run to what is reported of it.

The part of performing that needs neither a process of its own nor a server: slots share it with `dueline.testing`.
"""

import json
import traceback
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from dueline import frames
from dueline.clock import from_ms
from dueline.codec import decode
from dueline.errors import InvalidJob
from dueline.ids import run_id
from dueline.registry import Failed, Run, TimedOut
from dueline.states import AttemptState
from dueline.triggers import MOMENT_MAX_MS

_REASON_LENGTH_MAX = 500
#: What may stand between a caller and the function: `dueline.coroutines` is not imported for its name, as that loads asyncio.
_OWN_FILES = (__file__, str(Path(__file__).with_name("coroutines.py")))


def run_of(record: bytes, now: datetime) -> Run:
    """What a function is given, from the bytes of a ReadyRun and the time of its start."""
    _, fields = decode(record)
    progress = fields["progress"]
    timeout = timedelta(milliseconds=fields["timeout_ms"])
    return Run(
        run_id=run_id(fields["job_id"], fields["due_ms"]),
        job_id=fields["job_id"],
        attempt=fields["attempt"],
        due=from_ms(fields["due_ms"]),
        params=json.loads(fields["params"]),
        timeout=timeout,
        deadline=now + timeout,
        name=fields["name"],
        priority=fields["priority"],
        executor_class=fields["executor_class"],
        last_progress=json.loads(progress) if progress else None,
        give_up_on=frozenset(fields["retry"]["give_up_on"]),
    )


def outcome_of(run: Run, call: Callable[[Run], Any], caller: str) -> dict[str, Any]:
    """How a call ends that performs the run, as fields of a `frames.Report`, whatever it returns or raises.

    `caller` is the file of `call`: a trace leaves out what is above the function.
    """
    ours = (*_OWN_FILES, caller)
    try:
        return _succeeded(call(run))
    except TimedOut as time_up:
        return _timed_out(run, _trace(time_up, ours))
    except Failed as error:
        return _failed(str(error)) | _wish(error) | _given_up(error, run)
    except InvalidJob as error:
        return _failed(str(error)) | _given_up(error, run)
    except BaseException as error:  # SystemExit and KeyboardInterrupt are the run's too
        reason = "".join(traceback.format_exception_only(error))
        return _failed(reason, _trace(error, ours)) | _given_up(error, run)


def _succeeded(value: Any) -> dict[str, Any]:
    if value is None:
        return {"state": AttemptState.SUCCEEDED}
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Failed(
            f"the executor class returned a {type(value).__name__} that is no JSON value: {error}"
        ) from None
    if len(text) > frames.RESULT_LENGTH_MAX:
        raise Failed(
            f"the executor class returned {len(text)} characters of JSON, more than {frames.RESULT_LENGTH_MAX}; "
            "store the data elsewhere and return where"
        )
    return {"state": AttemptState.SUCCEEDED, "result": text}


def _timed_out(run: Run, trace: str) -> dict[str, Any]:
    reason = f"timed out after {run.timeout.total_seconds():g} s"
    return {"state": AttemptState.TIMED_OUT, "reason": reason, "error": f"{reason}\n{_cut(trace)}"}


def _failed(reason: str, trace: str = "") -> dict[str, Any]:
    line = _storable(reason).strip().partition("\n")[0][:_REASON_LENGTH_MAX]
    return {"state": AttemptState.FAILED, "reason": line, "error": _cut(trace or reason)}


def _wish(error: Failed) -> dict[str, Any]:
    """What is to follow upon a failure, if that says so."""
    retry_ms = None if error.retry_ms is None else min(max(0, error.retry_ms), MOMENT_MAX_MS)
    return {"final": not error.retry, "retry_ms": retry_ms}


def _given_up(error: BaseException, run: Run) -> dict[str, Any]:
    """That no attempt is to follow, if its job's policy says so of such an error."""
    if not run.give_up_on or run.give_up_on.isdisjoint(kind.__name__ for kind in type(error).__mro__):
        return {}
    return {"final": True}


def _trace(error: BaseException, ours: Collection[str]) -> str:
    """The trace without our own frames above the function's."""
    own = error.__traceback__
    while own is not None and own.tb_frame.f_code.co_filename in ours:
        own = own.tb_next
    return "".join(traceback.format_exception(type(error), error, own or error.__traceback__))


def _cut(text: str) -> str:
    """The text without its middle if it is too long: of a trace, both ends matter."""
    text = _storable(text)
    half = frames.ERROR_LENGTH_MAX // 2
    return text if len(text) <= 2 * half else f"{text[:half]}\n[…]\n{text[-half:]}"


def _storable(text: str) -> str:
    """The text with half surrogate pairs escaped, such as names of files that are no UTF-8 have."""
    return text.encode(errors="backslashreplace").decode()
