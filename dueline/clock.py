"""The time, passed in wherever it is needed so that a test can set it.

Inside, instants are integers: milliseconds since the Unix epoch, UTC, in names that end in `_ms`. At the border to
users they are aware `datetime`s; naive ones are refused, because nobody can say which instant they mean.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


class Clock(Protocol):
    """Tells the time. `now_ms` may jump when somebody sets the machine's clock, `elapsed_s` never does."""

    def now_ms(self) -> int: ...

    def elapsed_s(self) -> float: ...


class SystemClock:
    """The machine's own clocks. CLOCK_BOOTTIME also counts the time that the machine was suspended."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def elapsed_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now_ms: int = 0) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def elapsed_s(self) -> float:
        return self._now_ms / 1000

    def advance(self, ms: int) -> None:
        self._now_ms += ms


def to_ms(moment: datetime) -> int:
    """Milliseconds since the epoch of an aware datetime, rounded down. Raises ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; use e.g. datetime.now(UTC)")
    return (moment - EPOCH) // _MS


def from_ms(ms: int) -> datetime:
    """The aware UTC datetime of milliseconds since the epoch."""
    return EPOCH + ms * _MS


class Pace:
    """Lets small pieces gather: one begins at once, the next not before an interval has passed since.

    So what comes alone never waits, and what comes thick and fast is handled in fewer and larger pieces, whose cost hardly
    depends on their size.
    """

    def __init__(self, interval_s: float, clock: Clock | None = None) -> None:
        self._interval_s = interval_s
        self._clock = clock or SystemClock()
        self._next_s = 0.0

    def pause_s(self) -> float:
        """How long to wait before the next piece, which then counts as begun."""
        now_s = self._clock.elapsed_s()
        begin_s = max(now_s, self._next_s)
        self._next_s = begin_s + self._interval_s
        return begin_s - now_s
