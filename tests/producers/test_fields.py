"""What people type for instants and durations."""

from datetime import timedelta

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from producers.cli import main
from producers.cli.fields import Duration


@given(st.integers(0, 99), st.integers(0, 23), st.integers(0, 59), st.integers(0, 999))
def test_the_parts_of_a_duration_add_up(days: int, hours: int, minutes: int, milliseconds: int) -> None:
    text = f"{days}d{hours}h{minutes}m{milliseconds}ms"
    wanted = timedelta(days=days, hours=hours, minutes=minutes, milliseconds=milliseconds)
    assert abs(Duration().convert(text, None, None) - wanted) < timedelta(microseconds=10)


@given(st.integers(0, 10**6))
def test_a_plain_number_is_seconds(seconds: int) -> None:
    assert Duration().convert(str(seconds), None, None) == timedelta(seconds=seconds)


@pytest.mark.parametrize("within", ["0", "2m"])
def test_the_time_for_an_acknowledgement_has_bounds(within: str) -> None:
    result = CliRunner().invoke(main, ["submit", "--within", within, "--", "true"])
    assert result.exit_code == 2
    assert "'--within': must be more than 0 and at most 60s" in result.stderr
