"""Cron against what its module's docstring promises, over the clock changes above all.

Two judges: an oracle that walks through every minute, and cronsim, which reads expressions independently and has a way
of its own with time zones. Where they are meant to differ it says so.
"""

import os
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, available_timezones

import pytest
from cronsim import CronSim
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dueline.cron import CRON_WORDS, first_shown, next_fire_ms
from dueline.errors import InvalidJob
from dueline.triggers import Cron
from tests.dueline.cron_oracle import DAY, MINUTE, Shown, changes, fires, walk

ZERO, HOUR = timedelta(0), timedelta(hours=1)

#: Zones, and a day (UTC) on which their clocks are set in some way that is easily got wrong.
CHANGES = (
    ("Europe/Berlin", "2027-03-28"),
    ("Europe/Berlin", "2027-10-31"),
    ("America/New_York", "2027-03-14"),
    ("America/New_York", "2027-11-07"),
    ("Australia/Lord_Howe", "2027-10-02"),  # by half an hour
    ("Australia/Lord_Howe", "2027-04-03"),
    ("Europe/Dublin", "2027-03-28"),  # winter time is the exception, and its DST negative
    ("Europe/Dublin", "2027-10-31"),
    ("Africa/Casablanca", "2027-02-07"),  # set back for Ramadan, which moves through the year
    ("Africa/Casablanca", "2027-03-14"),
    ("Africa/El_Aaiun", "2030-01-06"),
    ("Antarctica/Troll", "2027-03-28"),  # by two hours
    ("Antarctica/Troll", "2027-10-31"),
    ("Pacific/Apia", "2011-12-30"),  # a whole day is left out
    ("Pacific/Apia", "2012-04-01"),
    ("Pacific/Kwajalein", "1993-08-21"),  # and here
    ("Pacific/Kiritimati", "1994-12-31"),
    ("America/Sao_Paulo", "2018-11-04"),  # at midnight: the day begins at one
    ("America/Sao_Paulo", "2018-02-18"),  # from midnight: 23:00 comes twice
    ("Africa/Cairo", "2027-04-30"),
    ("Africa/Cairo", "2027-10-28"),
    ("America/Havana", "2027-03-14"),
    ("America/Havana", "2027-11-07"),  # from one: midnight comes twice
    ("Asia/Gaza", "2027-10-30"),
    ("America/Scoresbysund", "2024-03-31"),  # summer time began and the zone changed
    ("America/Caracas", "2007-12-09"),  # half an hour, for good
    ("Asia/Pyongyang", "2018-05-04"),
    ("Asia/Kathmandu", "1985-12-31"),  # a quarter of an hour
    ("Europe/Moscow", "2010-03-28"),
    ("Europe/Volgograd", "2020-12-26"),
    ("Asia/Kolkata", "2027-03-28"),  # never
    ("UTC", "2027-03-28"),
)

every_minute = st.sampled_from(("*", "*/7", "*/15", "*/30"))
minutes = st.sampled_from(("0", "30", "15,45", "1,59", "10-20/5", "5/20", "7-7", "59/5"))
hours = st.sampled_from(("0", "1", "2", "3", "1-3", "23", "0,12", "22-23", "1/5", "0-6", "9-9", "23/2"))
wild_hours = st.sampled_from(("*/2", "*/3", "0-23"))
days = st.sampled_from(("*", "*", "*", "1", "1-1", "28-31", "14", "30", "*/2"))
months = st.sampled_from(("*", "*", "2-4", "OCT,11,dec", "*/3"))
weekdays = st.sampled_from(("*", "*", "*", "0", "7", "MON-FRI", "6,0", "5-7", "sun", "*/2"))
dates = st.tuples(days, months, weekdays).map(" ".join)
star = st.just("*")
expressions = st.tuples(minutes | every_minute, hours | wild_hours | star, dates).map(" ".join)
#: Those that say the same to cronsim: it takes a minute of `*` for a wildcard, and makes nothing up for `*/2`.
plain_expressions = st.tuples(minutes, hours, dates) | st.tuples(minutes | every_minute, star, dates)


@st.composite
def zone_changes(draw: st.DrawFn) -> tuple[str, datetime]:
    """Any zone, and a day on which its clocks are set; since 1973, as some offsets had seconds before."""
    zone, year = draw(st.sampled_from(sorted(available_timezones()))), draw(st.integers(1973, 2050))
    found = next((days for later in range(year, year + 50) if (days := changes(zone, later))), ())
    assume(found)
    return zone, draw(st.sampled_from(found))


#: How many examples each of the searches tries; 5,000 take half an hour.
EXAMPLES = int(os.environ.get("DUELINE_EXAMPLES", "30"))


@cache
def days_around(zone: str, day: str) -> list[Shown]:
    """The minutes of the day on which a change falls, and of half a day before and after it."""
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    return list(walk(zone, start - DAY / 2, start + 3 * DAY / 2))


def asked(text: str, zone: str, after: datetime, until: datetime) -> list[datetime]:
    """The due times in a span, each asked for with the one before it."""
    cron = Cron(text, zone)
    found = []
    while (due := cron.next_due(after)) is not None and due <= until:
        assert due > after
        found.append(due)
        after = due
    return found


@given(st.sampled_from(CHANGES), expressions)
@settings(max_examples=EXAMPLES)
def test_it_fires_when_the_clock_says_so_around_hard_changes(change: tuple[str, str], text: str) -> None:
    minute_by_minute = days_around(*change)
    first, last = minute_by_minute[0][0] - MINUTE, minute_by_minute[-1][0]
    assert asked(text, change[0], first, last) == fires(text, minute_by_minute)


@given(zone_changes(), expressions)
@settings(max_examples=EXAMPLES)
def test_it_fires_when_the_clock_says_so_in_any_zone(zone_change: tuple[str, datetime], text: str) -> None:
    zone, change = zone_change
    first, last = change - DAY / 2, change + 3 * DAY / 2
    assert asked(text, zone, first, last) == fires(text, list(walk(zone, first, last)))


@given(st.sampled_from(CHANGES), expressions, st.integers(0, 2 * 86_400_000 - 60_000))
@settings(max_examples=EXAMPLES)
def test_it_answers_alike_wherever_it_is_asked(change: tuple[str, str], text: str, at_ms: int) -> None:
    minute_by_minute = days_around(*change)
    after = minute_by_minute[0][0] + timedelta(milliseconds=at_ms)
    expected = next((fire for fire in fires(text, minute_by_minute) if fire > after), None)
    answer = Cron(text, change[0]).next_due(after)
    if expected is not None:
        assert answer == expected
    else:
        assert answer is None or answer > minute_by_minute[-1][0]


@pytest.mark.parametrize(
    ("zone", "year"), [("Europe/Berlin", 2027), ("Australia/Lord_Howe", 2026), ("Africa/Casablanca", 2030)]
)
def test_it_fires_when_the_clock_says_so_for_a_year(zone: str, year: int) -> None:
    first, last = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    minute_by_minute = list(walk(zone, first, last))
    for text in ("30 2 * * *", "*/20 1-3 * * 0", "7 * * */3 SAT"):
        assert asked(text, zone, first, last) == fires(text, minute_by_minute)


@pytest.mark.parametrize(
    ("expression", "after", "due"),
    [
        # left out: at the end of the gap
        ("30 2 * * *", "2027-03-28T00:00:00+01:00", "2027-03-28T03:00:00+02:00"),
        ("0,30 2 * * *", "2027-03-28T03:00:00+02:00", "2027-03-29T02:00:00+02:00"),  # … several are one
        ("30 2,3 * * *", "2027-03-28T03:00:00+02:00", "2027-03-28T03:30:00+02:00"),
        ("0 */2 * * *", "2027-03-28T00:00:00+01:00", "2027-03-28T03:00:00+02:00"),
        ("30 * * * *", "2027-03-28T01:30:00+01:00", "2027-03-28T03:30:00+02:00"),  # every hour: an hour later
        ("*/30 * * * *", "2027-03-28T01:30:00+01:00", "2027-03-28T03:00:00+02:00"),
        # repeated: the first
        ("30 2 * * *", "2027-10-31T00:00:00+02:00", "2027-10-31T02:30:00+02:00"),
        ("30 2 * * *", "2027-10-31T02:30:00+02:00", "2027-11-01T02:30:00+01:00"),
        ("*/30 2 * * *", "2027-10-31T02:30:00+02:00", "2027-11-01T02:00:00+01:00"),
        ("30 * * * *", "2027-10-31T02:30:00+02:00", "2027-10-31T02:30:00+01:00"),  # a wildcard hour: both
        ("0 */2 * * *", "2027-10-31T02:00:00+02:00", "2027-10-31T02:00:00+01:00"),
        ("0 0-23 * * *", "2027-10-31T02:00:00+02:00", "2027-10-31T02:00:00+01:00"),
        ("30 1 * * *", "2027-10-31T23:00:00+01:00", "2027-11-01T01:30:00+01:00"),  # the day after is as ever
        ("@daily", "2027-03-28T00:00:00+01:00", "2027-03-29T00:00:00+02:00"),
        ("0 0 29 2 *", "2027-01-01T00:00:00+01:00", "2028-02-29T00:00:00+01:00"),
    ],
)
def test_the_rules_in_berlin(expression: str, after: str, due: str) -> None:
    answer = Cron(expression, "Europe/Berlin").next_due(datetime.fromisoformat(after))
    assert answer == datetime.fromisoformat(due)
    assert answer.tzinfo is UTC


def test_a_day_that_is_left_out_fires_when_it_is_over() -> None:
    last_hour = datetime(2011, 12, 30, 9, tzinfo=UTC)  # 23:00 on the 29th, before the 31st
    assert Cron("0 12 30 12 *", "Pacific/Apia").next_due(last_hour) == last_hour + HOUR


# -- other judges ------------------------------------------------------------------------------------------------------


@given(zone_changes(), plain_expressions.map(" ".join))
@settings(max_examples=EXAMPLES)
def test_it_agrees_with_cronsim_about_clocks_that_are_set_by_hours(
    zone_change: tuple[str, datetime], text: str
) -> None:
    zone, change = zone_change
    info = ZoneInfo(zone)
    first, last = (change - DAY / 2).astimezone(info), (change + 3 * DAY / 2).astimezone(info)
    assume((first.utcoffset() or ZERO) % HOUR == (last.utcoffset() or ZERO) % HOUR)
    theirs = (fire.astimezone(UTC) for fire in CronSim(text, first))
    assert asked(text, zone, first, last) == list(takewhile(lambda fire: fire <= last, theirs))


@given(expressions, st.datetimes(datetime(1973, 1, 1), datetime(2050, 1, 1)))  # noqa: DTZ001 (the zone follows)
@settings(max_examples=EXAMPLES)
def test_it_agrees_with_cronsim_about_expressions(text: str, wall: datetime) -> None:
    """Where no clocks are set."""
    due = after = wall.replace(tzinfo=UTC)
    for theirs in islice(CronSim(text, after), 5):
        found = Cron(text).next_due(due)
        assert found == theirs
        due = found


# -- the language ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "dates"),
    [
        ("0 0 L * *", ["03-31", "04-30", "05-31"]),
        ("0 0 * * L5", ["03-26", "04-30"]),
        ("0 0 * * MON#2", ["03-08", "04-12"]),
        ("0 0 1-7 * SUN", ["03-06", "03-07", "03-14"]),  # either
        ("0 0 */2 * SUN", ["03-07", "03-21"]),  # both: the day begins with a *
        ("0 0 * jan,Jul mon-fri", ["07-01", "07-02", "07-05"]),
        ("0 0 * * SAT-MON", ["03-06", "03-07", "03-08", "03-13"]),  # a range over the end
        ("0 0 31 2 SUN", ["02-06", "02-13"]),  # a day that never comes hides no other
        ("@weekly", ["03-07", "03-14"]),
        ("@monthly", ["04-01"]),
        ("@yearly", ["01-01"]),
        ("  0\t0  1 * * ", ["04-01"]),
    ],
)
def test_what_an_expression_may_say(expression: str, dates: list[str]) -> None:
    after = datetime(2027, 3, 5, 7, 13, tzinfo=UTC)
    for expected in dates:
        due = Cron(expression).next_due(after)
        assert due is not None
        assert f"{due:%m-%d %H:%M}" == f"{expected} 00:00"
        after = due


@pytest.mark.parametrize(
    ("expression", "same"),
    [
        ("0 9-9 * * *", "0 9 * * *"),
        ("59/5 23/2 * 12/1 *", "59 23 * 12 *"),
        ("0 22-4/3 * * *", "0 22,1,4 * * *"),
        ("0 21-3/2 30-2 * *", "0 21,23,1,3 30,31,1,2 * *"),
        ("0 0 * NOV-feb/2 fri-MON/2", "0 0 * 11,1 5,0"),
        ("0 0 1-1 * 7-7", "0 0 1 * 0"),
        ("0 0 * * 7-2/1", "0 0 * * 0,1,2"),
    ],
)
def test_ranges_and_steps_are_what_they_look_like(expression: str, same: str) -> None:
    start = datetime(2027, 1, 1, tzinfo=UTC)
    found = asked(expression, "UTC", start, start + 400 * DAY)
    assert found == asked(same, "UTC", start, start + 400 * DAY)
    assert found


@pytest.mark.parametrize("word", CRON_WORDS)
def test_a_word_is_short_for_its_expression(word: str) -> None:
    after = datetime(2027, 3, 5, 7, 13, tzinfo=UTC)
    assert Cron(word).next_due(after) == Cron(CRON_WORDS[word]).next_due(after)


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("* * * *", "has 4 fields; give five, or a word"),
        ("", "has 0 fields"),
        ("* * * * * *", "six fields; seconds are done by an interval"),
        ("61 * * * *", "not a cron expression: '61' is no minute; give 0 to 59"),
        ("0 24 * * *", "'24' is no hour; give 0 to 23"),
        ("0 0 0 * *", "'0' is no day of month; give 1 to 31 or L"),
        ("0 0 * 13 *", "'13' is no month; give 1 to 12 or JAN to DEC"),
        ("0 0 * * Monday", "'Monday' is no day of week; give 0 to 7 or SUN to SAT"),
        ("*/0 * * * *", r"'\*/0' is no minute"),
        ("R * * * *", "'R' is no minute; a random or hashed field"),
        ("H(0-29)/10 * * * *", "a random or hashed field"),
        ("0~59 * * * *", "a random or hashed field"),
        ("@reboot", "'@reboot' is not one of @yearly"),
        ("@Daily", "'@Daily' is not one of @yearly"),
        ("0," * 200 + "0 * * * *", "no text of at most 256 characters"),
    ],
)
def test_what_is_no_expression_says_why(expression: str, says: str) -> None:
    with pytest.raises(InvalidJob, match=f"trigger.cron: .*{says}"):
        Cron(expression)


@given(st.text(alphabet="*0123456789,-/LW#MONJAN@ ?~\u00b2\u0660", max_size=20) | st.text(max_size=12))
@settings(max_examples=5 * EXAMPLES)
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        due = Cron(text, "Europe/Berlin").next_due(datetime(2027, 1, 1, tzinfo=UTC))
    except InvalidJob:
        return
    assert due is None or due.second == 0


@pytest.mark.parametrize("expression", ["0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 */30 2 MON#5"])
def test_a_day_that_never_comes_is_never_due(expression: str) -> None:
    assert Cron(expression).next_due(datetime(2030, 1, 1, tzinfo=UTC)) is None


def test_the_first_midnight_of_a_day() -> None:
    """Where midnight is left out, where it comes twice, and where it is as ever."""
    for zone, midnight, shown in (
        ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00"),
        ("America/Havana", "2027-11-07", "2027-11-07T04:00"),
        ("Europe/Berlin", "2027-03-28", "2027-03-27T23:00"),
    ):
        wall = datetime.fromisoformat(midnight)
        assert first_shown(wall, ZoneInfo(zone)) == datetime.fromisoformat(shown).replace(tzinfo=UTC)


def test_a_question_mark_leaves_the_day_to_the_other_field() -> None:
    for open_day, expression in (("? * MON", "* * MON"), ("15 * ?", "15 * *")):
        after_ms = 0
        for _ in range(3):
            fire_ms = next_fire_ms(f"0 0 {expression}", "UTC", after_ms)
            assert fire_ms is not None
            assert next_fire_ms(f"0 0 {open_day}", "UTC", after_ms) == fire_ms
            after_ms = fire_ms
