"""The history of a campaign: a folder of files to which everybody concerned appends lines, each a JSON object."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: What the submitter did; what the jobs did; what was done to the platform; what the platform says in the end.
SUBMISSIONS, EXECUTIONS, FAULTS, CLAIMS = "submissions", "executions", "faults", "claims"
#: With which every line begins.
_BEGIN = '{"what": '


def now_ns() -> int:
    """CLOCK_BOOTTIME: the same for all processes of the machine, and never set."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class History:
    """Appends to the history, and reads it. Many processes have one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, int] = {}

    def write(self, file: str, what: str, *, sync: bool = True, **fields: Any) -> None:
        """Append a line; it is on the disk when this returns, unless it need not be."""
        if (descriptor := self._files.get(file)) is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            descriptor = self._files[file] = os.open(self._path(file), flags, 0o644)
        line = json.dumps({"what": what, "at_ns": now_ns(), **fields})
        os.write(descriptor, f"{line}\n".encode())
        if sync:
            os.fdatasync(descriptor)

    def read(self, file: str) -> Iterator[dict[str, Any]]:
        """The lines so far; a last one that is being written is left out.

        A writer that is killed within its write leaves the beginning of a line, and the next writer's stands behind it.
        What was not written whole was not said.
        """
        try:
            with self._path(file).open(errors="replace") as lines:
                for line in lines:
                    if line.endswith("\n"):
                        yield from _parse(line)
        except FileNotFoundError:
            return

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])

    def _path(self, file: str) -> Path:
        return self.folder / f"{file}.jsonl"


def _parse(line: str) -> Iterator[dict[str, Any]]:
    """The one object of a line, or the last of it, behind what was torn. What neither explains is no history."""
    begin = 0
    while True:
        try:
            yield json.loads(line[begin:])
            return
        except ValueError:
            begin = line.find(_BEGIN, begin + 1)
            if begin < 0:
                raise
