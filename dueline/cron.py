"""Cron expressions and the wall clocks of time zones: at which instants does an expression fire?

An expression has the five fields minute, hour, day of month, month and day of week, or is a word such as `@daily`.
Its language is that of Debian's cron, as croniter reads it: lists (`1,15`), ranges (`9-17`, `MON-FRI`, and over the end
`22-4`), steps (`*/15`, `10-40/10`, `5/20` to the end of the range), names of months and days in either case, 0 and 7 for
Sunday, and besides `L` (the last day of the month), `L5` (its last Friday) and `MON#2` (its second Monday). If both day fields are restricted a day matches by either of them; if one of them begins with `*`, only by both.

Where the clocks change:

- A time of the wall clock that is left out, since the clock is set forward over it, fires at the first instant after the
  gap; several of them, and one that matches that instant itself, are one. Expressions that match every hour of the day make
  nothing up: their next time is as far away as ever.
- One that comes twice, since the clock is set back, fires the first time. Expressions whose hour field begins with `*` or
  matches every hour fire both times.

So what names its hours (`30 2 * * *`) fires exactly once for each time, and what does not (`30 * * * *`, `0 */2 * * *`)
never leaves more time between two fires than it does on other days, but for clocks that are set by half an hour.

croniter iterates times without a zone here, and they are resolved to instants below: with a zone it loses its way where the
clocks change.
"""

import heapq
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from croniter import CroniterBadDateError, croniter

from dueline.clock import from_ms, to_ms
from dueline.errors import InvalidJob

EXPRESSION_LENGTH_MAX = 256
CRON_WORDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIELD = "trigger.cron"
_HOUR, _MONTH, _WEEKDAY = 1, 3, 4
_FIELDS = ("minute", "hour", "day of month", "month", "day of week")
_VALUES = ("0 to 59", "0 to 23", "1 to 31 or L", "1 to 12 or JAN to DEC", "0 to 7 or SUN to SAT")
_SPANS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
#: A number or a name, to another, in steps.
_RANGE = re.compile(r"(\w+)(?:-(\w+))?(?:/([0-9]{1,9}))?")
#: What a field begins with that leaves its value open, alone or in steps; croniter reads `?` as `*`.
_ANY = ("*", "?")
_RANDOM_FIELD = re.compile(r"[hr](\(|/|\Z)|.*~", re.IGNORECASE)  # other crons know these
_DAY = timedelta(days=1)
#: What stands for the next fire of an expression that has none.
_NEVER_MS = 1 << 62
#: Pairs of expression and zone whose latest answers are kept, some 500 bytes each: 1,440 make every minute of the day.
_SCHEDULES_KEPT = 16_384
#: Answers kept of each: the present run of a job, its next, and the same for jobs that are somewhere else.
_GAPS_KEPT = 4
#: Files that zoneinfo takes for zones: what a machine is set to, and copies of the zones that count leap seconds, or don't.
_LOCAL_ZONE = re.compile(r"(localtime|posixrules)$|(posix|right)/")


def next_fire_ms(expression: str, time_zone: str, after_ms: int) -> int | None:
    """The first instant later than `after_ms` at which a valid expression fires in a time zone; None if it never does."""
    return _schedule(expression, time_zone).next_ms(after_ms)


@lru_cache(maxsize=1024)
def zone_of(name: str, field: str = "trigger.time_zone") -> ZoneInfo:
    """The time zone of an IANA name. Raises InvalidJob, about a field, if there is none."""
    try:
        return ZoneInfo(name)
    except Exception as error:  # zoneinfo answers bad names with any of five types
        raise InvalidJob(field, f"{name!r} is not an IANA time zone, such as Europe/Berlin") from error


def require_portable(name: str, field: str = "trigger.time_zone") -> None:
    """Raises InvalidJob, about a field, for a zone that other machines have not, or have otherwise. For what is new: what is stored stays."""
    if _LOCAL_ZONE.match(name):
        raise InvalidJob(
            field, f"{name!r} is not the same on all machines; name the zone, such as Europe/Berlin"
        )


class _Schedule:
    """The fires of one expression in one zone. Most questions are answered by the gaps between fires found before:
    jobs share expressions, and at a full hour thousands of them ask for the same next one."""

    __slots__ = ("_every_hour", "_expression", "_gaps", "_wild_hour", "_zone")

    def __init__(self, expression: str, zone: ZoneInfo) -> None:
        fields = CRON_WORDS.get(expression, expression).split()
        self._expression = " ".join(_written_out(place, field) for place, field in enumerate(fields))
        hour = self._expression.split()[1]
        self._every_hour = len(_values(_HOUR, hour)) == 24
        self._wild_hour = self._every_hour or hour.startswith(_ANY)
        self._zone = zone
        #: Pairs of a time, and the first fire after it.
        self._gaps: tuple[tuple[int, int], ...] = ()

    def next_ms(self, after_ms: int) -> int | None:
        for since_ms, fire_ms in self._gaps:
            if since_ms <= after_ms < fire_ms:
                break
        else:
            found = self._next(from_ms(after_ms))
            fire_ms = _NEVER_MS if found is None else to_ms(found)
            self._gaps = ((after_ms, fire_ms), *self._gaps[: _GAPS_KEPT - 1])
        return None if fire_ms == _NEVER_MS else fire_ms

    def _next(self, after: datetime) -> datetime | None:
        best: datetime | None = None
        set_back = _set_back(after, self._zone) if self._wild_hour else timedelta(0)
        # Where the clock is about to be set back, earlier times are still to come once more.
        for wall in self._matches(after.astimezone(self._zone).replace(tzinfo=None) - set_back):
            fires = self._fires_of(wall)
            if best and fires and fires[0] >= best:
                break  # the first fires of later times are never earlier
            best = min((fire for fire in (*fires, best) if fire and fire > after), default=None)
            if best and not set_back:
                break
        return best

    def _matches(self, after: datetime) -> Iterator[datetime]:
        """The times without a zone that match, later than a given one, in order; one that matches twice may come twice."""
        minute, hour, day, month, weekday = self._expression.split()
        if day.startswith(_ANY) or weekday.startswith(_ANY):
            return _iterate(self._expression, after)
        # croniter takes it for never due if the day alone never is, as on 30 February.
        days = f"{minute} {hour} {day} {month} *", f"{minute} {hour} * {month} {weekday}"
        return heapq.merge(*(_iterate(each, after) for each in days))

    def _fires_of(self, wall: datetime) -> tuple[datetime, ...]:
        """The instants, in order, that a matching time of the wall clock stands for."""
        shown = _shown(wall, self._zone)
        if not shown:
            return () if self._every_hour else (_end_of_gap(wall, self._zone),)
        return shown if self._wild_hour else shown[:1]


def _iterate(expression: str, after: datetime) -> Iterator[datetime]:
    try:
        yield from croniter(expression, after, datetime, day_or=False)
    except CroniterBadDateError:  # it is valid, but no month that it names has such a day
        return


@lru_cache(maxsize=_SCHEDULES_KEPT)
def _schedule(expression: str, time_zone: str) -> _Schedule:
    return _Schedule(expression, zone_of(time_zone))


# -- wall clocks -------------------------------------------------------------------------------------------------------


def first_shown(wall: datetime, zone: ZoneInfo) -> datetime:
    """The instant at which the clocks of a zone first show a time, or pass over it: then the end of the gap."""
    return next(iter(_shown(wall, zone)), None) or _end_of_gap(wall, zone)


def _shown(wall: datetime, zone: ZoneInfo) -> tuple[datetime, ...]:
    """The instants at which the clocks of a zone show a time: one, or two, or none if it lies in a gap."""
    first = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    second = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    if first == second:
        return (first,)
    return (first, second) if first < second else ()  # in a gap the two readings swap


def _end_of_gap(wall: datetime, zone: ZoneInfo) -> datetime:
    """When the change happens, between the two readings of a time in its gap."""
    before = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    after = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    offset = _offset(before, zone)
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) // 2
        if _offset(middle, zone) == offset:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)


def _set_back(after: datetime, zone: ZoneInfo) -> timedelta:
    """By how much the clock will be set back, if that brings the time that it shows now once more; else zero."""
    change = _offset(after, zone) - _offset(after + _DAY, zone)
    if change > timedelta(0) and _offset(after + change, zone) < _offset(after, zone):
        return change
    return timedelta(0)


def _offset(instant: datetime, zone: ZoneInfo) -> timedelta:
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None
    return offset


# -- validity ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=_SCHEDULES_KEPT)
def check_expression(expression: str) -> None:
    """Raises InvalidJob, which says what is wrong, for a text that is no cron expression."""
    fields = expression.split()
    if expression.startswith("@"):
        if expression not in CRON_WORDS:
            raise InvalidJob(FIELD, f"{expression!r} is not one of {', '.join(CRON_WORDS)}")
    elif len(fields) == 6:
        raise InvalidJob(FIELD, f"{expression!r} has six fields; seconds are done by an interval (every_s)")
    elif len(fields) != 5:
        raise InvalidJob(
            FIELD, f"{expression!r} has {len(fields)} fields; give five, or a word such as @daily"
        )
    else:
        for place, field in enumerate(fields):
            _check_field(expression, place, field)


def _check_field(expression: str, place: int, field: str) -> None:
    if _RANDOM_FIELD.match(field):
        remedy = "a random or hashed field could not be foreseen; give a number, and a jitter to spread jobs"
    elif _is_read(place, field):
        return
    else:
        remedy = f"give {_VALUES[place]}, a range, a list, or steps such as */5"
    raise InvalidJob(
        FIELD, f"{expression!r} is not a cron expression: {field!r} is no {_FIELDS[place]}; {remedy}"
    )


def _is_read(place: int, field: str) -> bool:
    try:
        _values(place, _written_out(place, field))
    except (ValueError, KeyError):  # all of its own errors are ValueErrors
        return False
    return True


def _written_out(place: int, field: str) -> str:
    """A field with its ranges as lists: croniter takes one of a single value for the whole field, and loses its step over the end."""
    return ",".join(_listed(place, part) for part in field.split(","))


def _listed(place: int, part: str) -> str:
    found = _RANGE.fullmatch(part)
    if found is None:
        return part
    low, high = _SPANS[place]
    begin, end, every = found.groups()
    first, step = _number(place, begin), int(every or 1)
    last = _number(place, end) if end else high if every else first
    if first is None or last is None or not step:
        return part  # it has another meaning, or none, as will be said
    if first <= last:
        return ",".join(map(str, range(first, last + 1, step)))
    size = len(_WEEKDAYS) if place == _WEEKDAY else high - low + 1
    return ",".join(str((value - low) % size + low) for value in range(first, last + size + 1, step))


def _number(place: int, text: str) -> int | None:
    """What a number or a name stands for; None for what the field doesn't have."""
    low, high = _SPANS[place]
    names = {_MONTH: _MONTHS, _WEEKDAY: _WEEKDAYS}.get(place, ())
    if text.lower() in names:
        return names.index(text.lower()) + low
    return int(text) if text.isascii() and text.isdigit() and low <= int(text) <= high else None


def _values(place: int, field: str) -> Sequence[object]:
    """What a field of an expression matches, `*` written out."""
    alone = ["*"] * 5
    alone[place] = field
    found = croniter.expand(" ".join(alone))[0][place]
    return list(range(24)) if place == _HOUR and found == ["*"] else found
