"""What holds for triggers of every kind. Cron's rules are judged in test_cron.py, calendars in test_calendars.py."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueline.clock import from_ms, to_ms
from dueline.errors import InvalidJob
from dueline.triggers import Cron, Every, Once, Trigger

MINUTE = timedelta(minutes=1)


def asked(trigger: Trigger, after: datetime, until: datetime) -> list[datetime]:
    due = []
    while (moment := trigger.next_due(after)) is not None and moment <= until:
        assert moment > after
        due.append(moment)
        after = moment
    return due


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


@pytest.mark.parametrize(
    "trigger", [Every(timedelta(days=3_000_000)), Every(MINUTE), Cron("@daily", "Asia/Tokyo")]
)
def test_the_ends_of_the_calendar_are_no_accidents(trigger: Every | Cron) -> None:
    first = trigger.next_due(datetime.min.replace(tzinfo=UTC))
    assert first is not None
    assert first.year == 1970
    assert trigger.next_due(datetime.max.replace(tzinfo=UTC)) is None
    last = trigger.next_due(datetime(8999, 12, 31, tzinfo=UTC))
    assert last is None or last.year in (8999, 9000)


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
        (lambda: Every(timedelta(1), jitter=MINUTE * 1441), "trigger.jitter_s: 86460.0 must be 0 to 86400"),
        (lambda: Every(timedelta(1), jitter=-MINUTE), "trigger.jitter_s: -60.0 must be 0"),
        (lambda: Every(timedelta(1), jitter=5), "trigger.jitter_s: 5 is no duration"),  # type: ignore[arg-type]
        (lambda: Cron("@daily", excluding="x"), "trigger.excluding: 'x' must hold names"),  # type: ignore[arg-type]
        (
            lambda: Cron("@daily", excluding=("two words",)),
            "trigger.excluding: .* must hold names of calendars",
        ),
        (lambda: Cron("@daily", excluding=("x",) * 17), "trigger.excluding: there are 17; .* at most 16"),
        (lambda: Cron("* * * *"), "trigger.cron: .* has 4 fields; give five"),
        (lambda: Cron(5), "trigger.cron: 5 is no text"),  # type: ignore[arg-type]
        (lambda: Cron(["*"]), "trigger.cron: .* is no text"),  # type: ignore[arg-type]
        (lambda: Cron("* * * * *", "Mars/Olympus"), "trigger.time_zone: .* is not an IANA time zone"),
        (lambda: Cron("* * * * *", "../etc/passwd"), "trigger.time_zone: .* is not an IANA time zone"),
        (lambda: Cron("* * * * *", None), "trigger.time_zone: None is no text"),  # type: ignore[arg-type]
        (lambda: Cron("* * * * *", end=NAIVE), "trigger.end: .* has no time zone"),
    ],
)
def test_a_wrong_trigger_says_where_and_what_to_do(make: object, says: str) -> None:
    with pytest.raises(InvalidJob, match=says):
        make()  # type: ignore[operator]
