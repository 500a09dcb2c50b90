"""When a job is due: `Once`, `Every` and `Cron`, pure values with one question, `next_due(after)`.

A trigger keeps no state of its iteration, so any process can ask at any time and gets the same answer. Inside the
platform the same question is `next_ms(after_ms)`, in milliseconds since the epoch. Cron's rules, those around
clock changes above all, are those of `dueline.cron`.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol, Self

from dueline.clock import EPOCH, from_ms, to_ms
from dueline.cron import EXPRESSION_LENGTH_MAX, check_expression, next_fire_ms, zone_of
from dueline.errors import InvalidJob

INTERVAL_MIN = timedelta(seconds=1)
#: The end of the year 9000: the arithmetic around a moment stays inside what a datetime can hold.
MOMENT_MAX_MS = to_ms(datetime(9001, 1, 1, tzinfo=UTC)) - 1


class Trigger(Protocol):
    """A set of due times that can be asked for the next one."""

    def next_due(self, after: datetime) -> datetime | None:
        """The first due time later than `after` (aware), in UTC, or None when there is none any more."""

    def next_ms(self, after_ms: int) -> int | None:
        """The same in milliseconds since the epoch."""

    def anchored(self, accepted_ms: int) -> Self:
        """This trigger with whatever it leaves open taken from the time at which its job was accepted."""


class _AskedInDatetimes:
    __slots__ = ()

    def next_due(self, after: datetime) -> datetime | None:
        next_ms: int | None = self.next_ms(to_ms(after))  # type: ignore[attr-defined]
        return None if next_ms is None else from_ms(next_ms)


@dataclass(frozen=True, slots=True)
class Once(_AskedInDatetimes):
    """Due at one instant."""

    #: The due time, an aware datetime.
    at: datetime

    def __post_init__(self) -> None:
        _require_moment("trigger.at", self.at)

    def next_ms(self, after_ms: int) -> int | None:
        at_ms = to_ms(self.at)
        return at_ms if at_ms > after_ms else None

    def anchored(self, accepted_ms: int) -> Self:
        return self


@dataclass(frozen=True, slots=True)
class Every(_AskedInDatetimes):
    """Due at `start`, `start + interval`, `start + 2 * interval`, …: counted from the start, so it never drifts."""

    #: The time between two due times, at least a second, in whole milliseconds.
    interval: timedelta
    #: The first due time; without one, the time at which the job is accepted.
    start: datetime | None = None
    #: No due time is later than this.
    end: datetime | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.interval, timedelta):
            raise InvalidJob(
                "trigger.every_s", f"{self.interval!r} is no duration; use e.g. timedelta(seconds=30)"
            )
        if self.interval < INTERVAL_MIN:
            raise InvalidJob(
                "trigger.every_s", f"{self.interval.total_seconds()} is less than 1; use 1 second or more"
            )
        if self.interval % timedelta(milliseconds=1):
            raise InvalidJob(
                "trigger.every_s", f"{self.interval.total_seconds()} is no whole number of milliseconds"
            )
        _require_window(self.start, self.end)

    def next_ms(self, after_ms: int) -> int | None:
        start_ms = to_ms(self.start or EPOCH)
        interval_ms = self.interval // timedelta(milliseconds=1)
        periods = max(0, (after_ms - start_ms) // interval_ms + 1)
        return _before_end(start_ms + periods * interval_ms, self.end)

    def anchored(self, accepted_ms: int) -> Self:
        return self if self.start else replace(self, start=from_ms(accepted_ms))


@dataclass(frozen=True, slots=True)
class Cron(_AskedInDatetimes):
    """Due when the wall clock of a time zone matches an expression of five fields, or a word such as `@daily`."""

    #: minute, hour, day of month, month, day of week; see `dueline.cron`.
    expression: str
    #: An IANA name, such as Europe/Berlin.
    time_zone: str = "UTC"
    #: No due time is earlier than this.
    start: datetime | None = None
    #: No due time is later than this.
    end: datetime | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.expression, str) or len(self.expression) > EXPRESSION_LENGTH_MAX:
            raise InvalidJob(
                "trigger.cron",
                f"{self.expression!r:.80} is no text of at most {EXPRESSION_LENGTH_MAX} characters",
            )
        if not isinstance(self.time_zone, str):
            raise InvalidJob("trigger.time_zone", f"{self.time_zone!r:.80} is no text, such as Europe/Berlin")
        check_expression(self.expression)
        zone_of(self.time_zone)
        _require_window(self.start, self.end)

    def next_ms(self, after_ms: int) -> int | None:
        if self.start:
            after_ms = max(after_ms, to_ms(self.start) - 1)
        due_ms = next_fire_ms(self.expression, self.time_zone, after_ms)
        return None if due_ms is None else _before_end(due_ms, self.end)

    def anchored(self, accepted_ms: int) -> Self:
        return self


def _require_moment(field: str, moment: datetime | None) -> None:
    if moment is None:
        return
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise InvalidJob(field, f"{moment!r} has no time zone; use e.g. datetime.now(UTC)")
    if not 0 <= to_ms(moment) <= MOMENT_MAX_MS:
        raise InvalidJob(field, f"{moment.isoformat()} lies outside the years 1970 to 9000")


def _require_window(start: datetime | None, end: datetime | None) -> None:
    _require_moment("trigger.start", start)
    _require_moment("trigger.end", end)
    if start and end and end < start:
        raise InvalidJob("trigger.end", f"{end.isoformat()} is before the start, {start.isoformat()}")


def _before_end(due_ms: int, end: datetime | None) -> int | None:
    return due_ms if end is None or due_ms <= to_ms(end) else None
