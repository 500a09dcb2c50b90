"""Completion order: which offset of a partition may be committed while its records finish in any order."""

from collections import deque


class Completion:
    """The records of one partition that were taken and are not all finished.

    Everything below `committable` is finished. Gaps in the offsets (trimmed or marker records) are no obstacle.
    """

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._finished: set[int] = set()
        self._next: int | None = None

    @property
    def committable(self) -> int | None:
        """The lowest offset that is not finished, or the one behind the last taken; None before the first."""
        return self._open[0] if self._open else self._next

    @property
    def span(self) -> int:
        """Offsets between the committable one and the last taken: what a successor may have to read again."""
        return 0 if self._next is None or not self._open else self._next - self._open[0]

    def take(self, offset: int) -> None:
        """A record was read; offsets come in increasing order."""
        self._open.append(offset)
        self._next = offset + 1

    def finish(self, offset: int) -> None:
        """All that the record asked for is durable."""
        self._finished.add(offset)
        while self._open and self._open[0] in self._finished:
            self._finished.remove(self._open.popleft())
