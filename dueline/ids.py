"""Ids of jobs, runs and executors.

A job id is either *generated*, a UUIDv7 (RFC 9562) whose first 48 bits are the milliseconds of its making, or
*named*, a text that the caller chose. A generated id is its job's address: its time gives the bucket, its hash the
shard (see `dueline.address`). A run id is `<job id>@<due time in ms>`.
"""

import hashlib
import os
import re
import socket
import threading
from functools import lru_cache

NAME_LENGTH_MAX = 200
#: Buckets are minutes in 31 bits; the time of a generated id lies before this, in the year 6053.
GENERATED_END_MS = (1 << 31) * 60_000
#: Ids of which is remembered what follows from them: the same ones are asked about again and again for some seconds.
REMEMBERED = 16_384
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*\Z")
_GENERATED = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")


class IdGenerator:
    """Makes UUIDv7s that increase strictly within the process, also within one millisecond.

    The 12 bits behind the time count up from a random start below 2048; when they are used up the time is borrowed
    from the next millisecond (RFC 9562, 6.2, method 1). Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0  # milliseconds << 12 | counter

    def next(self, now_ms: int) -> str:
        random = int.from_bytes(os.urandom(10))
        start = now_ms << 12 | (random >> 64 & 0x7FF)
        with self._lock:
            self._last = max(self._last + 1, start)
            stamp = self._last
        return _uuid7(stamp >> 12, stamp & 0xFFF, random & (1 << 62) - 1)


def id_of_record(timestamp_ms: int, topic: str, partition: int, offset: int) -> str:
    """The id of a submission that came without one: it follows from the record alone, so a replay gives the same."""
    digest = int.from_bytes(
        hashlib.blake2b(f"{topic}/{partition}/{offset}".encode(), digest_size=10).digest()
    )
    return _uuid7(timestamp_ms, digest >> 62 & 0xFFF, digest & (1 << 62) - 1)


@lru_cache(REMEMBERED)
def is_generated(job_id: str) -> bool:
    """Whether the text is a UUIDv7 whose time gives a bucket; any other UUID is a name."""
    return _GENERATED.match(job_id) is not None and generated_at_ms(job_id) < GENERATED_END_MS


def is_name(job_id: str) -> bool:
    """Whether the text can be the id of a named job: letters, digits and `._:/-`, at most 200 of them."""
    return len(job_id) <= NAME_LENGTH_MAX and _NAME.match(job_id) is not None


@lru_cache(REMEMBERED)
def generated_at_ms(job_id: str) -> int:
    """The time inside a generated id, in milliseconds since the epoch."""
    return int(job_id[:8] + job_id[9:13], 16)


def run_id(job_id: str, due_ms: int) -> str:
    return f"{job_id}@{due_ms}"


def parse_run_id(text: str) -> tuple[str, int]:
    """The job id and the due time in ms of a run id. Raises ValueError if it is none."""
    job_id, at, due = text.rpartition("@")
    if not at or not job_id or not due.isdecimal():
        raise ValueError(f"{text!r} is not a run id; one looks like <job id>@<due time in ms>")
    return job_id, int(due)


def process_id(role: str) -> str:
    """A new id for this process: what it is, where it runs, and some chance, since pids come back."""
    return f"{role}-{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}"


def _uuid7(ms: int, a: int, b: int) -> str:
    text = f"{ms << 80 | 0x7 << 76 | a << 64 | 0b10 << 62 | b:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
