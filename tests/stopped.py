"""Processes that have come to a stop: after a SIGSTOP was sent they go on for a moment."""

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def await_stopped(*pids: int) -> None:
    """Wait until no thread of these processes runs any more."""
    while not all(state == "T" for state in _states(pids)):
        time.sleep(0.001)


def _states(pids: Iterable[int]) -> Iterable[str]:
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                # Behind the name, which stands in parentheses and may hold anything.
                yield (thread / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
