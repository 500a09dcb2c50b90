"""Calendars: the dates that triggers leave out, against a walk through all due times."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dueline.calendars import Calendar
from dueline.clock import from_ms, to_ms
from dueline.errors import InvalidJob
from dueline.job import Job
from dueline.json_form import calendar_from_json
from dueline.triggers import Cron, Every, Trigger

CHRISTMAS = Calendar("christmas", [date(2027, 12, 25), date(2027, 12, 26)])
BERLIN = Calendar("berlin", CHRISTMAS.dates, "Europe/Berlin")
START = datetime(2027, 12, 24, tzinfo=UTC)
#: Around changes of clocks at midnight, where a day has no midnight or two, and where a day is left out.
AROUND = (
    ("Europe/Berlin", date(2027, 10, 31)),
    ("America/Sao_Paulo", date(2018, 11, 4)),
    ("America/Havana", date(2027, 11, 7)),
    ("Atlantic/Azores", date(2027, 10, 31)),
    ("Pacific/Apia", date(2011, 12, 31)),
    ("UTC", date(2027, 1, 1)),
)


def days_due(trigger: Trigger, calendar: Calendar, count: int) -> list[str]:
    after, found = START, []
    for _ in range(count):
        due = trigger.next_due(after, {calendar.name: calendar})
        assert due is not None
        found.append(f"{due:%d %H:%M}")
        after = due
    return found


def test_the_dates_are_those_of_the_time_zone_of_the_trigger() -> None:
    every_six_hours = Cron("30 */6 * * *", "Europe/Berlin", excluding=("christmas",))
    assert days_due(every_six_hours, CHRISTMAS, 5) == [
        "24 05:30",
        "24 11:30",
        "24 17:30",
        "26 23:30",
        "27 05:30",
    ]


def test_an_interval_has_days_in_utc() -> None:
    every_twelve_hours = Every(timedelta(hours=12), START, excluding=("christmas",))
    assert days_due(every_twelve_hours, CHRISTMAS, 3) == ["24 12:00", "27 00:00", "27 12:00"]


def test_a_calendar_may_say_where_its_dates_are() -> None:
    hourly = Cron("0 * * * *", "America/New_York", excluding=("berlin",))
    assert days_due(hourly, BERLIN, 25)[21:] == ["24 22:00", "26 23:00", "27 00:00", "27 01:00"]


def test_a_change_of_the_calendar_changes_the_due_times() -> None:
    trigger = Cron("@daily", excluding=("christmas",))
    assert days_due(trigger, CHRISTMAS, 1) == ["27 00:00"]
    assert days_due(trigger, Calendar("christmas", ()), 1) == ["25 00:00"]


def test_without_calendars_nothing_is_left_out() -> None:
    assert Cron("@daily", excluding=("christmas",)).next_due(START) == START + timedelta(days=1)


def test_a_calendar_that_is_not_there_is_named() -> None:
    with pytest.raises(
        InvalidJob, match="there is no calendar 'christmas'; send it before the jobs that name it"
    ):
        Cron("@daily", excluding=("christmas",)).next_due(START, {})


def test_one_whose_every_date_is_left_out_is_never_due() -> None:
    trigger = Cron("0 0 25 12 *", end=datetime(2028, 1, 1, tzinfo=UTC), excluding=("christmas",))
    job = Job(id="a", executor_class="command", triggers=(trigger,))
    with pytest.raises(InvalidJob, match=r"never due after its acceptance.*calendars"):
        job.first_ms(to_ms(START), {"christmas": CHRISTMAS})


@given(
    st.sampled_from(AROUND),
    st.sampled_from(("*/20 * * * *", "0 */5 * * *", "30 23 * * *", "0 0 * * *")),
    st.frozensets(st.integers(-1, 2), max_size=5),
    st.booleans(),
)
@settings(max_examples=40)
def test_what_is_left_is_what_lies_on_no_date(
    around: tuple[str, date], expression: str, offsets: frozenset[int], own_zone: bool
) -> None:
    zone, day = around
    calendar = Calendar("c", [day + timedelta(days=n) for n in offsets], zone if own_zone else None)
    trigger = Cron(expression, zone, excluding=("c",))
    first = datetime.combine(day, datetime.min.time(), UTC) - timedelta(days=2)
    last = first + timedelta(days=5)
    everything, left = [], []
    moment = first
    while (moment := trigger.next_due(moment) or last) < last:
        everything.append(moment)
    moment = first
    while (moment := trigger.next_due(moment, {"c": calendar}) or last) < last:
        left.append(moment)
    assert left == [due for due in everything if due.astimezone(ZoneInfo(zone)).date() not in calendar.dates]


def test_a_run_is_left_out_when_all_that_are_due_leave_it_out() -> None:
    calendars = {"christmas": CHRISTMAS}
    noon_ms = to_ms(datetime(2027, 12, 25, 12, tzinfo=UTC))
    leaves_out, insists = Cron("0 * * * *", excluding=("christmas",)), Cron("0 12 * * *")
    job = Job(executor_class="command", triggers=(leaves_out, insists))
    assert job.excluded_by(noon_ms, calendars) is None
    assert job.excluded_by(noon_ms + 3_600_000, calendars) == "christmas"
    assert job.excluded_by(to_ms(START), calendars) is None
    assert job.next_ms(noon_ms, calendars) == to_ms(datetime(2027, 12, 26, 12, tzinfo=UTC))


@given(
    st.from_type(Every) | st.from_type(Cron), st.integers(0, 7_000_000_000_000), st.dates(date(1970, 1, 1))
)
@settings(max_examples=60)
def test_run_by_run_the_same_is_left_out(trigger: Every | Cron, after_ms: int, day: date) -> None:
    """What `next_ms` leaves out is what `excluded_by` names, asked for one due time after the other."""
    calendars = {name: Calendar(name, [day]) for name in ("holidays-de", "holidays-us", "stock-taking")}
    job = Job(executor_class="command", triggers=(trigger,))
    for _ in range(3):
        due_ms = job.next_ms(after_ms)
        while due_ms is not None and job.excluded_by(due_ms, calendars):
            due_ms = job.next_ms(due_ms)
        assert due_ms == job.next_ms(after_ms, calendars)
        if due_ms is None:
            break
        after_ms = due_ms


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"calendar": "two words", "dates": []}, "calendar: 'two words' must be 1 to 200 letters"),
        ({"dates": []}, "calendar: None must be"),
        ({"calendar": "c"}, "dates: None must be a list of dates"),
        ({"calendar": "c", "dates": ["25.12.2027"]}, "dates: '25.12.2027' is no date, such as 2030-12-25"),
        ({"calendar": "c", "dates": [], "time_zone": "Mars"}, "time_zone: 'Mars' is not an IANA time zone"),
        (
            {"calendar": "c", "dates": [], "colour": 1},
            "calendar.colour: is not known; known are calendar, dates",
        ),
    ],
)
def test_a_wrong_calendar_says_where_and_what_to_do(source: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidJob, match=f"^{says}"):
        calendar_from_json(source)


@pytest.mark.parametrize("dates", ["2027-12-25", [START], [from_ms(0)], 5, ["2027-12-25"]])
def test_dates_are_dates(dates: Any) -> None:
    with pytest.raises(InvalidJob, match=r"dates: .* must hold dates only"):
        Calendar("c", dates)


def test_there_is_a_limit_to_dates() -> None:
    with pytest.raises(InvalidJob, match="dates: there are 10001; a calendar has at most 10000"):
        Calendar("c", [START.date() + timedelta(days=n) for n in range(10_001)])
