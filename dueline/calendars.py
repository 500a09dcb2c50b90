"""Calendars: dates that jobs leave out, each under a name that many jobs share.

A trigger names calendars, and whoever asks it for a due time passes the calendars in, so that a change of one reaches
every job that names it and a trigger stays a pure value.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from dueline.clock import from_ms, to_ms
from dueline.cron import first_shown, require_portable, zone_of
from dueline.errors import InvalidJob
from dueline.ids import NAME_LENGTH_MAX, is_name

#: More than all days of 27 years, in less than what a submission may hold.
DATES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Calendar:
    """Dates on which no job is due that names it."""

    name: str
    #: The dates left out; any iterable of them is taken.
    dates: Iterable[date]
    #: Where the dates begin and end, an IANA name; without one that is the trigger's to say (UTC for an interval).
    time_zone: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not is_name(self.name):
            raise InvalidJob(
                "calendar",
                f"{self.name!r:.80} must be 1 to {NAME_LENGTH_MAX} letters, digits or any of . _ : / -",
            )
        dates = frozenset(self.dates) if isinstance(self.dates, Iterable) else None
        if dates is None or not all(isinstance(day, date) and not isinstance(day, datetime) for day in dates):
            raise InvalidJob("dates", f"{self.dates!r:.80} must hold dates only, such as date(2030, 12, 25)")
        if len(dates) > DATES_MAX:
            raise InvalidJob("dates", f"there are {len(dates)}; a calendar has at most {DATES_MAX}")
        object.__setattr__(self, "dates", dates)
        if self.time_zone is not None:
            if not isinstance(self.time_zone, str):
                raise InvalidJob("time_zone", f"{self.time_zone!r:.80} is no text, such as Europe/Berlin")
            zone_of(self.time_zone, "time_zone")

    def require_portable(self) -> None:
        """Raises InvalidJob if its dates are not the same on all machines."""
        if self.time_zone is not None:
            require_portable(self.time_zone, "time_zone")

    def has(self, instant_ms: int, time_zone: str) -> bool:
        """Whether an instant lies on one of its dates. `time_zone` counts if it has none of its own."""
        return self._date(instant_ms, time_zone) in self.dates

    def date_end_ms(self, instant_ms: int, time_zone: str) -> int:
        """When the date of an instant is over: the first midnight after it."""
        tomorrow = self._date(instant_ms, time_zone) + timedelta(days=1)
        return to_ms(first_shown(datetime.combine(tomorrow, time()), zone_of(self.time_zone or time_zone)))

    def _date(self, instant_ms: int, time_zone: str) -> date:
        return from_ms(instant_ms).astimezone(zone_of(self.time_zone or time_zone)).date()


Calendars = Mapping[str, Calendar]


def calendar_named(name: str, calendars: Calendars) -> Calendar:
    if (calendar := calendars.get(name)) is None:
        raise InvalidJob(
            "trigger.excluding", f"there is no calendar {name!r}; send it before the jobs that name it"
        )
    return calendar
