"""What the rules of `dueline.cron` say, minute by minute: it walks through time and looks at the clock.

It knows nothing of what the code under test is made of: neither croniter, nor how zoneinfo tells the two passes of a
repeated hour apart. What a clock has shown before it shows again, and what it jumps over is left out.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")

#: A minute: the instant, what the clock shows, whether it showed that before, and what it has just left out.
Shown = tuple[datetime, datetime, bool, tuple[datetime, ...]]


class Expression:
    """A cron expression as its fields' sets of numbers."""

    def __init__(self, text: str) -> None:
        minute, hour, day, month, weekday = text.split()
        self._minutes, self._hours = _values(minute, 0, 59), _values(hour, 0, 23)
        self._days, self._months = _values(day, 1, 31), _values(month, 1, 12, MONTHS)
        self._weekdays = {value % 7 for value in _values(weekday, 0, 7, WEEKDAYS)}
        self._both_days = day.startswith("*") or weekday.startswith("*")
        self.every_hour = len(self._hours) == 24
        self.wild_hour = self.every_hour or hour.startswith("*")

    def matches(self, wall: datetime) -> bool:
        if wall.minute not in self._minutes or wall.hour not in self._hours or wall.month not in self._months:
            return False
        by_day, by_weekday = wall.day in self._days, wall.isoweekday() % 7 in self._weekdays
        return by_day and by_weekday if self._both_days else by_day or by_weekday


def fires(text: str, walk: Sequence[Shown]) -> list[datetime]:
    """When an expression fires in the course of a walk."""
    expression = Expression(text)
    return [
        instant
        for instant, wall, again, left_out in walk
        if (expression.matches(wall) and (expression.wild_hour or not again))
        or (not expression.every_hour and any(map(expression.matches, left_out)))
    ]


def walk(zone: str, first: datetime, last: datetime) -> Iterator[Shown]:
    """The minutes later than the first instant, up to the last."""
    info = ZoneInfo(zone)
    latest = first.astimezone(info).replace(tzinfo=None, fold=0)
    instant = first
    while instant < last:
        instant += MINUTE
        wall = instant.astimezone(info).replace(tzinfo=None, fold=0)
        left_out: list[datetime] = []
        while latest + MINUTE < wall:
            latest += MINUTE
            left_out.append(latest)
        yield instant, wall, wall <= latest, tuple(left_out)
        latest = max(latest, wall)


@cache
def changes(zone: str, year: int) -> tuple[datetime, ...]:
    """The days (their starts in UTC) of a year on which the clocks of a zone are set."""
    info = ZoneInfo(zone)
    days = [datetime(year, 1, 1, tzinfo=UTC) + n * DAY for n in range(366)]
    offsets = [day.astimezone(info).utcoffset() for day in days]
    return tuple(days[n] for n in range(365) if offsets[n] != offsets[n + 1])


def _values(field: str, low: int, high: int, names: Sequence[str] = ()) -> set[int]:
    """The numbers that a field of a cron expression allows."""
    found: set[int] = set()
    for part in field.upper().split(","):
        span, slash, step = part.partition("/")
        first, dash, last = (str(low), "-", str(high)) if span == "*" else span.partition("-")
        start = _number(first, low, names)
        end = _number(last, low, names) if dash else high if slash else start
        found |= set(range(start, end + 1, int(step or 1)))
    return found


def _number(text: str, low: int, names: Sequence[str]) -> int:
    return names.index(text) + low if text in names else int(text)
