"""When a job is due: `Once`, `Every` and `Cron`, pure values with one question, `next_due(after)`.

A trigger keeps no state of its iteration, so any process can ask at any time and gets the same answer. Inside the
platform the same question is `next_ms(after_ms)`, in milliseconds since the epoch. Cron's rules, those around
clock changes above all, are those of `dueline.cron`.

`Every` and `Cron` may name calendars whose dates they leave out. The calendars are passed to the question; without any
nothing is left out. They may also have a jitter: due times stay as they are, and name the runs, but a run starts up
to that much later. By how much is a matter of the job (see `Job.emit_ms`).
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Protocol, Self

from dueline.calendars import Calendars, calendar_named
from dueline.clock import EPOCH, from_ms, to_ms
from dueline.cron import EXPRESSION_LENGTH_MAX, check_expression, next_fire_ms, zone_of
from dueline.errors import InvalidJob
from dueline.ids import is_name

INTERVAL_MIN = timedelta(seconds=1)
#: A start that is put off further is another due time.
JITTER_MAX = timedelta(days=1)
EXCLUDING_MAX = 16
#: The end of the year 9000: the arithmetic around a moment stays inside what a datetime can hold.
MOMENT_MAX_MS = to_ms(datetime(9001, 1, 1, tzinfo=UTC)) - 1
_ONE_MS = timedelta(milliseconds=1)


class Trigger(Protocol):
    """A set of due times that can be asked for the next one."""

    @property
    def jitter(self) -> timedelta: ...

    @property
    def excluding(self) -> tuple[str, ...]: ...

    def next_due(self, after: datetime, calendars: Calendars | None = None) -> datetime | None:
        """The first due time later than `after` (aware), in UTC, or None when there is none any more.

        `calendars` has those that it excludes, by name. Without it no dates are left out.
        """

    def next_ms(self, after_ms: int, calendars: Calendars | None = None) -> int | None:
        """The same in milliseconds since the epoch."""

    def excluded_by(self, due_ms: int, calendars: Calendars) -> str | None:
        """The first of its calendars that has the date of a due time; None if none has."""

    def anchored(self, accepted_ms: int) -> Self:
        """This trigger with whatever it leaves open taken from the time at which its job was accepted."""


class _AskedInDatetimes:
    __slots__ = ()

    def next_due(self, after: datetime, calendars: Calendars | None = None) -> datetime | None:
        next_ms: int | None = self.next_ms(to_ms(after), calendars)  # type: ignore[attr-defined]
        return None if next_ms is None else from_ms(next_ms)


class _Recurring(_AskedInDatetimes):
    """What `Every` and `Cron` share: a window of time, inside 1970 to 9000, a jitter, and calendars."""

    __slots__ = ()
    start: datetime | None
    end: datetime | None
    jitter: timedelta
    excluding: tuple[str, ...]

    def next_ms(self, after_ms: int, calendars: Calendars | None = None) -> int | None:
        if after_ms >= MOMENT_MAX_MS:
            return None
        due_ms = self._next_ms(max(after_ms, -1))
        if calendars is not None and self.excluding:
            while due_ms is not None and (name := self.excluded_by(due_ms, calendars)):
                over_ms = calendars[name].date_end_ms(due_ms, self._zone_name)
                # Where the clock is set back over midnight, the first one is not yet the end of the day.
                due_ms = self._next_ms(max(due_ms, over_ms - 1))
        return due_ms

    def excluded_by(self, due_ms: int, calendars: Calendars) -> str | None:
        found = (calendar_named(name, calendars) for name in self.excluding)
        return next((calendar.name for calendar in found if calendar.has(due_ms, self._zone_name)), None)

    def _next_ms(self, after_ms: int) -> int | None:
        """The first due time later than `after_ms`, whatever its date."""
        raise NotImplementedError

    @property
    def _zone_name(self) -> str:
        """The time zone whose dates are left out."""
        return "UTC"

    def _require_valid(self) -> None:
        """Raises InvalidJob for a field of those above that is wrong."""
        require_moment("trigger.start", self.start)
        require_moment("trigger.end", self.end)
        if self.start and self.end and self.end < self.start:
            raise InvalidJob(
                "trigger.end", f"{self.end.isoformat()} is before the start, {self.start.isoformat()}"
            )
        _require_duration("trigger.jitter_s", self.jitter)
        if not timedelta(0) <= self.jitter <= JITTER_MAX:
            raise InvalidJob(
                "trigger.jitter_s",
                f"{self.jitter.total_seconds()} must be 0 to {JITTER_MAX.total_seconds():g}",
            )
        if not isinstance(self.excluding, tuple) or not all(
            isinstance(name, str) and is_name(name) for name in self.excluding
        ):
            raise InvalidJob(
                "trigger.excluding",
                f'{self.excluding!r:.80} must hold names of calendars, such as ("holidays-de",)',
            )
        if len(self.excluding) > EXCLUDING_MAX:
            raise InvalidJob(
                "trigger.excluding",
                f"there are {len(self.excluding)}; a trigger excludes at most {EXCLUDING_MAX} calendars",
            )


@dataclass(frozen=True, slots=True)
class Once(_AskedInDatetimes):
    """Due at one instant."""

    jitter: ClassVar[timedelta] = timedelta(0)
    excluding: ClassVar[tuple[str, ...]] = ()

    #: The due time, an aware datetime.
    at: datetime

    def __post_init__(self) -> None:
        require_moment("trigger.at", self.at)

    def next_ms(self, after_ms: int, calendars: Calendars | None = None) -> int | None:
        at_ms = to_ms(self.at)
        return at_ms if at_ms > after_ms else None

    def excluded_by(self, due_ms: int, calendars: Calendars) -> str | None:
        return None

    def anchored(self, accepted_ms: int) -> Self:
        return self


@dataclass(frozen=True, slots=True)
class Every(_Recurring):
    """Due at `start`, `start + interval`, `start + 2 * interval`, …: counted from the start, so it never drifts."""

    #: The time between two due times, at least a second, in whole milliseconds.
    interval: timedelta
    #: The first due time; without one, the time at which the job is accepted.
    start: datetime | None = None
    #: No due time is later than this.
    end: datetime | None = None
    #: A run starts up to this much after its due time, always by as much for one job.
    jitter: timedelta = timedelta(0)
    #: The names of calendars whose dates, in UTC unless they say otherwise, it leaves out.
    excluding: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_duration("trigger.every_s", self.interval)
        if self.interval < INTERVAL_MIN:
            raise InvalidJob(
                "trigger.every_s", f"{self.interval.total_seconds()} is less than 1; use 1 second or more"
            )
        self._require_valid()

    def _next_ms(self, after_ms: int) -> int | None:
        start_ms = to_ms(self.start or EPOCH)
        interval_ms = self.interval // _ONE_MS
        periods = max(0, (after_ms - start_ms) // interval_ms + 1)
        return _before_end(start_ms + periods * interval_ms, self.end)

    def anchored(self, accepted_ms: int) -> Self:
        return self if self.start else replace(self, start=from_ms(accepted_ms))


@dataclass(frozen=True, slots=True)
class Cron(_Recurring):
    """Due when the wall clock of a time zone matches an expression of five fields, or a word such as `@daily`."""

    #: minute, hour, day of month, month, day of week; see `dueline.cron`.
    expression: str
    #: An IANA name, such as Europe/Berlin.
    time_zone: str = "UTC"
    #: No due time is earlier than this.
    start: datetime | None = None
    #: No due time is later than this.
    end: datetime | None = None
    #: A run starts up to this much after its due time, always by as much for one job.
    jitter: timedelta = timedelta(0)
    #: The names of calendars whose dates, in the time zone unless they say otherwise, it leaves out.
    excluding: tuple[str, ...] = ()

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
        self._require_valid()

    def _next_ms(self, after_ms: int) -> int | None:
        if self.start:
            after_ms = max(after_ms, to_ms(self.start) - 1)
        due_ms = next_fire_ms(self.expression, self.time_zone, after_ms)
        return None if due_ms is None else _before_end(due_ms, self.end)

    @property
    def _zone_name(self) -> str:
        return self.time_zone

    def anchored(self, accepted_ms: int) -> Self:
        return self


def require_moment(field: str, moment: datetime | None) -> None:
    """Raises InvalidJob, about a field, for a time without a time zone, or one that no table takes; None is no time."""
    if moment is None:
        return
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise InvalidJob(field, f"{moment!r} has no time zone; use e.g. datetime.now(UTC)")
    if not 0 <= to_ms(moment) <= MOMENT_MAX_MS:
        raise InvalidJob(field, f"{moment.isoformat()} lies outside the years 1970 to 9000")


def _require_duration(field: str, duration: timedelta) -> None:
    if not isinstance(duration, timedelta):
        raise InvalidJob(field, f"{duration!r} is no duration; use e.g. timedelta(seconds=30)")
    if duration % _ONE_MS:
        raise InvalidJob(field, f"{duration.total_seconds()} is no whole number of milliseconds")


def _before_end(due_ms: int, end: datetime | None) -> int | None:
    return due_ms if due_ms <= (to_ms(end) if end else MOMENT_MAX_MS) else None
