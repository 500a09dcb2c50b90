"""What an executor and its slots say to each other over their sockets.

    executor to slot    a packet for each run: its number, bytes of a ReadyRun as they lay in Kafka
                        of a long one: its number alone; length and bytes come over the stream
    slot to executor    over the stream: three lengths, header (a JSON object), stdout, stderr

A slot performs the runs in the order of their packets. It takes the next packet when it has reported the run before, and the
executor may take it back until then, at the slot's end of the socket: the kernel gives it to one of them. So who has the
packet has the run.

All numbers are 4 bytes, big-endian. A slot's first frame is its hello, without output: `{"classes": […]}`, or
`{"error": "…"}` if it can't start. Each later one tells of the run: how far it is, `{"progress": "…"}`, once a second at most
and empty as a mere sign of life, and at its end a `Report`. Slots run users' code, so nothing that they send is trusted: no
pickle, a limit on every length and on how often, and what breaks the form ends the slot.
"""

import json
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dueline.progress import PROGRESS_LENGTH_MAX, checked_progress
from dueline.runs import Output, ReadyRun
from dueline.states import AttemptState
from dueline.triggers import MOMENT_MAX_MS

#: What a run may print and have kept. Memory of the slot and the executor, for each run that prints that much.
OUTPUT_LENGTH_MAX = 16 << 20
#: A returned value, as JSON text. What is longer belongs where the user's data lives, not in a scheduler.
RESULT_LENGTH_MAX = 1 << 20
#: An error with its trace. Longer ones lose their middle.
ERROR_LENGTH_MAX = 64 << 10
#: A result, an error and a progress as JSON text, in which a character takes up to 12 bytes.
HEADER_LENGTH_MAX = 12 * (RESULT_LENGTH_MAX + 2 * ERROR_LENGTH_MAX + PROGRESS_LENGTH_MAX)
#: Between two frames of progress: often enough for people and for timeouts, and next to nothing for an executor's loop.
PROGRESS_INTERVAL_S = 1.0
#: Most runs end alike, and say so in the same few bytes: replies that are no longer are not read anew each time.
SHORT_LENGTH_MAX = 64

#: A longer ReadyRun has no room in a packet.
PACKED_LENGTH_MAX = 16 << 10
#: A run that takes no longer is quick: another one may wait for the same slot meanwhile.
QUICK_S = 0.02

NUMBER = struct.Struct(">I")
PACKET_LENGTH_MAX = NUMBER.size + PACKED_LENGTH_MAX
REPLY_HEAD = struct.Struct(">III")

#: How an attempt may end by what its slot says; all other ends are found out by the executor.
_REPORTED = (AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.TIMED_OUT)


class BrokenFrame(ValueError):
    """Bytes that no slot of ours sends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a slot says about a run that ended in it."""

    state: AttemptState
    exit_status: int | None = None
    #: The returned value as JSON text; empty when there is none.
    result: str = ""
    #: The error with its trace; empty after a success.
    error: str = ""
    #: The error in one line.
    reason: str = ""
    #: Whether a failure is to be the last, and when the run wants its next attempt, whatever its retry policy says of that.
    final: bool = False
    retry_ms: int | None = None
    #: How far it was, as it said last: JSON text; empty if it said nothing.
    progress: str = ""
    #: Bytes written beyond the limit and not kept.
    bytes_dropped: int = 0
    #: Whether it took longer than `QUICK_S`.
    lasting: bool = False
    stdout: bytes = b""
    stderr: bytes = b""

    def output_of(self, run: ReadyRun, started_ms: int, ended_ms: int) -> Output:
        """What is kept of it in the output store."""
        return Output(
            run_id=run.run_id,
            attempt=run.attempt,
            state=self.state,
            started_ms=started_ms,
            ended_ms=ended_ms,
            exit_status=self.exit_status,
            result=self.result,
            error=self.error,
            stdout=self.stdout,
            stderr=self.stderr,
            bytes_dropped=self.bytes_dropped,
        )


_DEFAULTS = {
    "exit_status": None,
    "result": "",
    "error": "",
    "reason": "",
    "final": False,
    "retry_ms": None,
    "progress": "",
    "bytes_dropped": 0,
    "lasting": False,
}


def pack_run(number: int, record: bytes) -> tuple[bytes, bytes]:
    """A run's packet, and what goes over the stream."""
    if len(record) <= PACKED_LENGTH_MAX:
        return NUMBER.pack(number) + record, b""
    return NUMBER.pack(number), NUMBER.pack(len(record)) + record


def pack_report(report: Report) -> bytes:
    header: dict[str, Any] = {"state": report.state.value}
    for name, default in _DEFAULTS.items():
        value = getattr(report, name)
        if value != default:
            header[name] = value
    return pack_reply(header, report.stdout, report.stderr)


def pack_progress(text: str) -> bytes:
    return pack_reply({"progress": text})


def pack_reply(header: dict[str, Any], stdout: bytes = b"", stderr: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return b"".join((REPLY_HEAD.pack(len(text), len(stdout), len(stderr)), text, stdout, stderr))


def reply_length(buffer: bytes | bytearray) -> int | None:
    """The length of the reply that the buffer begins with; None as long as its head is incomplete."""
    if len(buffer) < REPLY_HEAD.size:
        return None
    header, stdout, stderr = REPLY_HEAD.unpack_from(buffer)
    if header > HEADER_LENGTH_MAX or stdout + stderr > OUTPUT_LENGTH_MAX:
        raise BrokenFrame(f"a reply of {header} + {stdout} + {stderr} bytes is too long")
    return REPLY_HEAD.size + header + stdout + stderr  # type: ignore[no-any-return]


def unpack_reply(reply: bytes | bytearray) -> tuple[dict[str, Any], bytes, bytes]:
    """Header, stdout and stderr of a complete reply."""
    header_length, stdout_length, _ = REPLY_HEAD.unpack_from(reply)
    header_end = REPLY_HEAD.size + header_length
    stdout_end = header_end + stdout_length
    try:
        header = json.loads(reply[REPLY_HEAD.size : header_end])
    except (ValueError, RecursionError) as error:
        raise BrokenFrame(f"its header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise BrokenFrame("its header is no JSON object")
    return header, bytes(reply[header_end:stdout_end]), bytes(reply[stdout_end:])


def unpack_news(reply: bytes | bytearray) -> Report | str:
    """What a slot tells of its run: how it ended, or how far it is, as JSON text or empty."""
    return _unpack_short(bytes(reply)) if len(reply) <= SHORT_LENGTH_MAX else _unpack_news(reply)


def _unpack_news(reply: bytes | bytearray) -> Report | str:
    header, stdout, stderr = unpack_reply(reply)
    progress = header.get("progress", "")
    if not isinstance(progress, str):
        raise BrokenFrame("its progress is no text")
    try:
        progress = checked_progress(progress)
        if header.keys() == {"progress"}:
            return progress
        fields = _DEFAULTS | header | {"state": AttemptState(header["state"]), "progress": progress}
        report = Report(**fields, stdout=stdout, stderr=stderr)
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenFrame(f"its header is no report: {error!r:.500}") from error
    texts = (report.result, report.error, report.reason)
    if (
        report.state not in _REPORTED
        or not all(isinstance(text, str) and _is_storable(text) for text in texts)
        or not isinstance(report.exit_status, int | None)
        or not isinstance(report.final, bool)
        or not isinstance(report.lasting, bool)
        or not isinstance(report.retry_ms, int | None)
        or not isinstance(report.bytes_dropped, int)
        or not -(1 << 31) <= (report.exit_status or 0) < 1 << 31
        or not 0 <= (report.retry_ms or 0) <= MOMENT_MAX_MS
        or not 0 <= report.bytes_dropped < 1 << 63
    ):
        raise BrokenFrame("its header has a field of the wrong kind")
    return report


_unpack_short = lru_cache(256)(_unpack_news)


def _is_storable(text: str) -> bool:
    """Whether it is free of half surrogate pairs, which neither an event nor an output can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
