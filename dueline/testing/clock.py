"""A clock that stands still until it is moved."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from dueline.clock import from_ms, to_ms
from dueline.registry import TimedOut

_ONE_MS = timedelta(milliseconds=1)


@dataclass(slots=True)
class TimeLimit:
    """The time that a run has, and whether it was up."""

    deadline_ms: int
    is_up: bool = False


class SettableClock:
    """A `dueline.clock.Clock` in whole milliseconds. It only goes forward.

    To move it around the platform, outside of its runs, is an outage: what became due meanwhile is performed late.
    """

    def __init__(self, now: datetime) -> None:
        self._now_ms = to_ms(now)
        self._limit: TimeLimit | None = None

    def now(self) -> datetime:
        return from_ms(self._now_ms)

    def now_ms(self) -> int:
        return self._now_ms

    def elapsed_s(self) -> float:
        return self._now_ms / 1000

    def advance(self, by: timedelta) -> None:
        """Move forward. In a run whose timeout is exceeded by that, stop at its deadline and raise TimedOut, once."""
        self.move_to(self._now_ms + by // _ONE_MS)

    def move_to(self, ms: int) -> None:
        """Move forward to an instant, as `advance` does."""
        if ms < self._now_ms:
            raise ValueError(f"{from_ms(ms)} lies before {self.now()}, and this clock does not go back")
        if self._limit and not self._limit.is_up and ms > self._limit.deadline_ms:
            self._limit.is_up = True
            self._now_ms = self._limit.deadline_ms
            raise TimedOut
        self._now_ms = ms

    @contextmanager
    def limited(self, deadline_ms: int) -> Iterator[TimeLimit]:
        """While a run is performed that has time until then."""
        self._limit = TimeLimit(deadline_ms)
        try:
            yield self._limit
        finally:
            self._limit = None
