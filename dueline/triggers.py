"""When a job is due: `Once`, `Every` and `Cron`, pure values with one question, `next_due(after)`.

A trigger keeps no state of its iteration, so any process can ask at any time and gets the same answer. Inside the
platform the same question is `next_ms(after_ms)`, in milliseconds since the epoch.

Cron and the clock changes: the expression is matched against the wall clock of its time zone.
- A time that the spring change leaves out is due at the first instant after the gap.
- A time that the autumn change repeats is due once, at its first occurrence; if the hour field is a wildcard
  (`*` or `*/n`), at both.
croniter iterates naive wall-clock times here, and they are resolved to instants below, because around the changes
its iteration of aware datetimes gives times that do not exist and leaves out times that do.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol, Self
from zoneinfo import ZoneInfo

from croniter import CroniterBadDateError, croniter

from dueline.clock import EPOCH, from_ms, to_ms
from dueline.errors import InvalidJob

INTERVAL_MIN = timedelta(seconds=1)
EXPRESSION_LENGTH_MAX = 256
#: The end of the year 9000: the arithmetic around a moment stays inside what a datetime can hold.
MOMENT_MAX_MS = to_ms(datetime(9001, 1, 1, tzinfo=UTC)) - 1
_RANDOM_FIELD = re.compile(r"[hr](\(|/|\Z)", re.IGNORECASE)  # croniter would accept these
CRON_WORDS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")


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

    #: minute, hour, day of month, month, day of week; a day matches if either of two restricted day fields does.
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
        _check_expression(self.expression)
        _zone(self.time_zone)
        _require_window(self.start, self.end)

    def next_ms(self, after_ms: int) -> int | None:
        if self.start:
            after_ms = max(after_ms, to_ms(self.start) - 1)
        due_ms = _next_fire_ms(self.expression, self.time_zone, after_ms)
        return None if due_ms is None else _before_end(due_ms, self.end)

    def anchored(self, accepted_ms: int) -> Self:
        return self


@lru_cache(
    maxsize=16_384
)  # jobs share expressions and due times: at a full hour thousands ask the same question
def _next_fire_ms(expression: str, time_zone: str, after_ms: int) -> int | None:
    zone = _zone(time_zone)
    after = from_ms(after_ms)
    best: datetime | None = None
    for wall in _matches(expression, after, zone):
        instants = _instants(wall, zone)
        if best and instants[0] >= best:
            break  # first occurrences never go back, so nothing earlier follows
        candidates = instants if _hour_is_wildcard(expression) else instants[:1]
        best = min((i for i in (*candidates, best) if i and i > after), default=None)
    return None if best is None else to_ms(best)


def _matches(expression: str, after: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """The naive wall-clock times that match, from the earliest whose instant can be later than `after`."""
    local = after.astimezone(zone)
    tomorrow = (after + timedelta(days=1)).astimezone(zone)
    # Where the clock is about to be set back, an earlier wall-clock time is still to come.
    set_back = max(timedelta(0), (local.utcoffset() or timedelta()) - (tomorrow.utcoffset() or timedelta()))
    wall = local.replace(tzinfo=None) - set_back
    # A time inside a gap that ends right after `after` lies up to a gap later, and is met on the way.
    times = croniter(expression, wall, max_years_between_matches=12)
    try:
        while True:
            yield times.get_next(datetime)
    except CroniterBadDateError:
        return


def _instants(wall: datetime, zone: ZoneInfo) -> tuple[datetime, ...]:
    """The instants at which the clocks of the zone show a wall-clock time; for one in a gap, the end of the gap."""
    first = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    second = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    if first == second:
        return (first,)
    if first < second:
        return first, second
    # In a gap the two readings swap: `second` lies before the change and `first` after it. Bisect for the change.
    before, after = second, first
    offset_before = before.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) // 2
        if middle.astimezone(zone).utcoffset() == offset_before:
            before = middle
        else:
            after = middle
    return (after.replace(microsecond=0),)


@lru_cache(maxsize=16_384)
def _check_expression(expression: str) -> None:
    field = "trigger.cron"
    fields = expression.split()
    if expression.startswith("@"):
        if expression not in CRON_WORDS:
            raise InvalidJob(field, f"{expression!r} is not one of {', '.join(CRON_WORDS)}")
    elif len(fields) == 6:
        raise InvalidJob(field, f"{expression!r} has six fields; seconds are done by an interval (every_s)")
    elif len(fields) != 5:
        raise InvalidJob(
            field, f"{expression!r} has {len(fields)} fields; give five, or a word such as @daily"
        )
    elif any(_RANDOM_FIELD.match(f) for f in fields):
        raise InvalidJob(
            field, f"{expression!r} has a random or hashed field, whose due times cannot be foreseen"
        )
    try:
        croniter.expand(expression)
    except (ValueError, KeyError) as error:
        raise InvalidJob(field, f"{expression!r} is not a cron expression: {error}") from error


def _hour_is_wildcard(expression: str) -> bool:
    return expression == "@hourly" or (
        not expression.startswith("@") and expression.split()[1].startswith("*")
    )


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (
        Exception
    ) as error:  # zoneinfo answers bad names with any of five types, an IsADirectoryError among them
        raise InvalidJob(
            "trigger.time_zone", f"{name!r} is not an IANA time zone, such as Europe/Berlin"
        ) from error


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
