"""Triggers against what their module's docstring promises, over the clock changes above all.

The oracle walks through every minute of the days around a clock change and knows nothing of croniter.
"""

from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dueline.clock import from_ms, to_ms
from dueline.errors import InvalidJob
from dueline.triggers import Cron, Every, Once, Trigger

MINUTE = timedelta(minutes=1)
#: Zones and days (UTC) on which their clocks change: ordinary changes, one at midnight, one by half an hour, one in
#: the other order of the year (Dublin's winter time is the exception), a whole day left out, and none at all.
CHANGES = (
    ("Europe/Berlin", datetime(2027, 3, 28, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2027, 10, 31, tzinfo=UTC)),
    ("America/New_York", datetime(2027, 3, 14, tzinfo=UTC)),
    ("America/New_York", datetime(2027, 11, 7, tzinfo=UTC)),
    ("America/Sao_Paulo", datetime(2018, 11, 4, tzinfo=UTC)),
    ("America/Sao_Paulo", datetime(2018, 2, 18, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2027, 10, 2, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2027, 4, 3, tzinfo=UTC)),
    ("Europe/Dublin", datetime(2027, 10, 31, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 30, tzinfo=UTC)),
    ("Asia/Kolkata", datetime(2027, 3, 28, tzinfo=UTC)),
)

minutes = st.sampled_from(("*/7", "*/30", "0", "30", "1,59", "10-20/5"))
hours = st.sampled_from(("*", "*/2", "0", "1", "2", "3", "1-3", "23", "0,12", "22-23"))
days = st.sampled_from(("*", "1", "28-31", "14", "30"))
months = st.sampled_from(("*", "2-4", "10,11,12"))
weekdays = st.sampled_from(("*", "0", "1-5", "6,0"))
expressions = st.tuples(minutes, hours, days, months, weekdays).map(" ".join)


def values(field: str, low: int, high: int) -> set[int]:
    """The numbers that a field of a cron expression allows."""
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = ("0", "-", str(high)) if span == "*" else span.partition("-")
        found |= set(range(max(int(first), low), int(last or first) + 1, int(step or 1)))
    return found


class Expression:
    def __init__(self, text: str) -> None:
        minute, hour, self._day, month, self._weekday = text.split()
        self.wild_hour = hour.startswith("*")
        self._minutes, self._hours = values(minute, 0, 59), values(hour, 0, 23)
        self._days, self._months = values(self._day, 1, 31), values(month, 1, 12)
        self._weekdays = values(self._weekday, 0, 6)

    def matches(self, wall: datetime) -> bool:
        if wall.minute not in self._minutes or wall.hour not in self._hours or wall.month not in self._months:
            return False
        by_day, by_weekday = wall.day in self._days, wall.isoweekday() % 7 in self._weekdays
        if self._day != "*" and self._weekday != "*":
            return by_day or by_weekday
        return by_day and by_weekday


@cache
def walls(zone: str, middle: datetime) -> list[tuple[datetime, datetime, bool]]:
    """Each minute of the two days around a change: the instant, what the clocks of the zone show, whether they show it again."""
    instants = [middle - timedelta(hours=12) + n * MINUTE for n in range(48 * 60)]
    local = [instant.astimezone(ZoneInfo(zone)) for instant in instants]
    return [
        (instant, wall.replace(tzinfo=None, fold=0), bool(wall.fold))
        for instant, wall in zip(instants, local, strict=True)
    ]


def due_times(text: str, zone: str, middle: datetime) -> list[datetime]:
    """What the rules say, minute by minute."""
    expression = Expression(text)
    due = []
    _, shown, _ = walls(zone, middle)[0]
    for instant, wall, again in walls(zone, middle)[1:]:
        left_out, shown = shown + MINUTE, wall
        matches = expression.matches(wall) and (expression.wild_hour or not again)
        while not matches and left_out < wall:
            matches = expression.matches(left_out)
            left_out += MINUTE
        if matches:
            due.append(instant)
    return due


def asked(trigger: Trigger, after: datetime, until: datetime) -> list[datetime]:
    due = []
    while (moment := trigger.next_due(after)) is not None and moment <= until:
        assert moment > after
        due.append(moment)
        after = moment
    return due


@given(st.sampled_from(CHANGES), expressions)
@settings(max_examples=60)
def test_cron_keeps_its_rules_over_clock_changes(change: tuple[str, datetime], text: str) -> None:
    zone, middle = change
    instants = [instant for instant, _, _ in walls(zone, middle)]
    assert asked(Cron(text, zone), instants[0], instants[-1]) == due_times(text, zone, middle)


@given(st.sampled_from(CHANGES), expressions, st.integers(0, 48 * 3_600_000 - 60_000))
@settings(max_examples=150)
def test_cron_answers_alike_wherever_it_is_asked(change: tuple[str, datetime], text: str, at_ms: int) -> None:
    zone, middle = change
    after = middle - timedelta(hours=12) + timedelta(milliseconds=at_ms)
    expected = next((due for due in due_times(text, zone, middle) if due > after), None)
    answer = Cron(text, zone).next_due(after)
    assert answer is not None or expected is None
    if expected is not None:
        assert answer == expected


@pytest.mark.parametrize(
    ("expression", "after", "due"),
    [
        (
            "30 2 * * *",
            "2027-03-28T00:00:00+01:00",
            "2027-03-28T03:00:00+02:00",
        ),  # left out: the end of the gap
        ("30 2 * * *", "2027-10-31T00:00:00+02:00", "2027-10-31T02:30:00+02:00"),  # repeated: the first
        ("30 2 * * *", "2027-10-31T02:30:00+02:00", "2027-11-01T02:30:00+01:00"),  # … and not the second
        ("30 * * * *", "2027-10-31T02:30:00+02:00", "2027-10-31T02:30:00+01:00"),  # a wildcard hour: both
        ("30 1 * * *", "2027-10-31T23:00:00+01:00", "2027-11-01T01:30:00+01:00"),  # the day after is as ever
        ("*/30 * * * *", "2027-03-28T01:30:00+01:00", "2027-03-28T03:00:00+02:00"),
        ("@daily", "2027-03-28T00:00:00+01:00", "2027-03-29T00:00:00+02:00"),
        ("0 0 29 2 *", "2027-01-01T00:00:00+01:00", "2028-02-29T00:00:00+01:00"),
    ],
)
def test_cron_in_berlin(expression: str, after: str, due: str) -> None:
    answer = Cron(expression, "Europe/Berlin").next_due(datetime.fromisoformat(after))
    assert answer == datetime.fromisoformat(due)
    assert answer.tzinfo is UTC


@given(st.from_type(Once) | st.from_type(Every) | st.from_type(Cron), st.integers(0, 7_000_000_000_000))
def test_the_next_due_time_is_later_and_nothing_lies_between(trigger: Trigger, after_ms: int) -> None:
    due_ms = trigger.next_ms(after_ms)
    if due_ms is not None:
        assert due_ms > after_ms
        between = after_ms + (due_ms - after_ms) // 2
        assert trigger.next_ms(between) == due_ms or between == due_ms
        assert trigger.next_ms(due_ms - 1) == due_ms
    assert trigger.next_due(from_ms(after_ms)) == (None if due_ms is None else from_ms(due_ms))


@given(st.from_type(Every) | st.from_type(Cron), st.integers(0, 7_000_000_000_000))
def test_due_times_lie_between_start_and_end(trigger: Every | Cron, after_ms: int) -> None:
    due = trigger.next_due(from_ms(after_ms))
    if due is not None:
        assert trigger.start is None or trigger.start <= due
        assert trigger.end is None or due <= trigger.end


@given(st.from_type(Every), st.integers(0, 4_000_000_000_000), st.lists(st.integers(0, 10**9), max_size=5))
def test_every_never_drifts(trigger: Every, accepted_ms: int, pauses: list[int]) -> None:
    try:
        trigger = trigger.anchored(accepted_ms)
    except InvalidJob:
        return  # it ends before it is accepted
    assert trigger.start is not None
    now_ms = accepted_ms
    for pause in pauses:  # however late each is asked for
        due_ms = trigger.next_ms(now_ms)
        if due_ms is None:
            return
        assert (from_ms(due_ms) - trigger.start) % trigger.interval == timedelta(0)
        now_ms = due_ms + pause


def test_every_is_due_at_its_start() -> None:
    start = datetime(2030, 1, 1, tzinfo=UTC)
    trigger = Every(timedelta(seconds=30), start, start + timedelta(seconds=60))
    assert asked(trigger, start - timedelta(days=1), start + timedelta(days=1)) == [
        start,
        start + timedelta(seconds=30),
        start + timedelta(seconds=60),
    ]


def test_a_once_is_due_once() -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    assert Once(at).next_ms(to_ms(at) - 1) == to_ms(at)
    assert Once(at).next_ms(to_ms(at)) is None


NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001 (what is refused)
AWARE = NAIVE.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Once(NAIVE), "trigger.at: .* has no time zone"),
        (lambda: Once("2030-01-01"), "trigger.at: .* has no time zone"),  # type: ignore[arg-type]
        (lambda: Once(AWARE.replace(year=1969)), "trigger.at: .* outside the years 1970 to 9000"),
        (lambda: Every(timedelta(milliseconds=999)), "trigger.every_s: 0.999 is less than 1"),
        (lambda: Every(timedelta(seconds=1, microseconds=1)), "trigger.every_s: .* no whole number of milli"),
        (lambda: Every(30), "trigger.every_s: 30 is no duration"),  # type: ignore[arg-type]
        (lambda: Every(timedelta(1), NAIVE), "trigger.start: .* has no time zone"),
        (lambda: Every(timedelta(1), AWARE, AWARE - MINUTE), "trigger.end: .* is before the start"),
        (lambda: Cron("* * * *"), "trigger.cron: .* has 4 fields; give five"),
        (lambda: Cron("* * * * * *"), "trigger.cron: .* six fields; seconds are done by an interval"),
        (lambda: Cron("61 * * * *"), "trigger.cron: .* is not a cron expression"),
        (lambda: Cron("R * * * *"), "trigger.cron: .* random or hashed field"),
        (lambda: Cron("@reboot"), "trigger.cron: '@reboot' is not one of @yearly"),
        (lambda: Cron(5), "trigger.cron: 5 is no text"),  # type: ignore[arg-type]
        (lambda: Cron(["*"]), "trigger.cron: .* is no text"),  # type: ignore[arg-type]
        (lambda: Cron("0," * 200 + "0 * * * *"), "trigger.cron: .* is no text of at most 256 characters"),
        (lambda: Cron("* * * * *", "Mars/Olympus"), "trigger.time_zone: .* is not an IANA time zone"),
        (lambda: Cron("* * * * *", "../etc/passwd"), "trigger.time_zone: .* is not an IANA time zone"),
        (lambda: Cron("* * * * *", None), "trigger.time_zone: None is no text"),  # type: ignore[arg-type]
        (lambda: Cron("* * * * *", end=NAIVE), "trigger.end: .* has no time zone"),
    ],
)
def test_a_wrong_trigger_says_where_and_what_to_do(make: object, says: str) -> None:
    with pytest.raises(InvalidJob, match=says):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("expression", ["0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *"])
def test_a_day_that_never_comes_is_never_due(expression: str) -> None:
    assert Cron(expression).next_due(AWARE) is None
