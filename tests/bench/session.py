"""One call of `make bench`: the seed and the number of rounds, what is measured on, and where results go."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.bench.bed import Bed, Shape, bed_of
from tests.bench.figures import summary
from tests.bench.runs_log import RunsLog, runs_log_of

Line = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A platform to measure, and its log."""

    bed: Bed
    log: RunsLog


@dataclass(slots=True, kw_only=True)
class Session:
    seed: int
    rounds: int
    quick: bool
    folder: Path
    lines: list[Line] = field(default_factory=list)
    #: Whether a benchmark has ended by an exception: logs are kept then.
    failed: bool = False
    _shape: Shape | None = None
    _place: Place | None = None
    _ends: ExitStack = field(default_factory=ExitStack)

    def place(self, shape: Shape) -> Place:
        """A platform of this shape that has done nothing yet; the quick form takes the one that is there."""
        if self._place is None or self._shape != shape or not self.quick:
            self.close()
            bed = self._ends.enter_context(bed_of(shape, say, lambda: self.failed))
            self._place = Place(bed=bed, log=self._ends.enter_context(runs_log_of(bed.settings)))
            self._shape = shape
        return self._place

    def close(self) -> None:
        self._place = None
        self._ends.close()

    def tell(self, line: Mapping[str, Any]) -> None:
        """A line of results: on the standard output, and in the file of results."""
        self.lines.append(dict(line))
        print(json.dumps(line), flush=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "results.jsonl").open("w") as file:
            file.writelines(json.dumps(each) + "\n" for each in self.lines)

    def tell_rounds(self, names: Mapping[str, Any], rounds: Iterator[Line]) -> None:
        """Each round as it comes, then the median and the spread of all."""
        lines = []
        for number, line in enumerate(rounds, 1):
            self.tell({**names, "round": number, **line})
            lines.append(line)
        self.tell({**names, **summary(lines)})


class Benchmark(Protocol):
    def run(self, session: Session) -> None: ...


def say(text: str) -> None:
    """Progress, for people."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
