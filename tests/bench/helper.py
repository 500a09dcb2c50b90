"""A process that works beside the benchmark: says `ready`, begins when it is told to, and tells a JSON line in the end."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dueline.errors import Unavailable


class Helper:
    """One such process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output = process.stdin, process.stdout

    @property
    def pid(self) -> int:
        return self._process.pid

    def go(self) -> None:
        """Let it begin."""
        self._input.write("go\n")
        self._input.flush()

    def stop(self) -> None:
        """Ask it to end early; it tells what it has to tell."""
        self._process.terminate()

    def told(self) -> dict[str, Any]:
        """What it tells next; waits for it. Raises Unavailable where it has ended instead."""
        line = self._line()
        found: dict[str, Any] = json.loads(line)
        return found

    def wait_until_ready(self) -> None:
        self._line()

    def _line(self) -> str:
        line = self._output.readline()
        if not line:
            raise Unavailable(
                f"{' '.join(map(str, self._process.args[:3]))} ended with status {self._process.wait()}"  # type: ignore[index]
            )
        return line


@contextmanager
def helper(module: str, *arguments: object, environment: Mapping[str, str] = {}) -> Iterator[Helper]:
    """A process that is ready; it has ended when the block has."""
    command: Sequence[str] = [sys.executable, "-m", module, *map(str, arguments)]
    pipe, both = subprocess.PIPE, os.environ | dict(environment)
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=both) as process:
        try:
            found = Helper(process)
            found.wait_until_ready()
            yield found
        finally:
            process.kill()
