"""What a run may report of its progress, and what others may call one."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueline.progress import PROGRESS_LENGTH_MAX, checked_progress, progress_text
from tests.dueline.conftest import json_values


@given(json_values)
def test_any_json_value_is_a_progress(value: Any) -> None:
    text = progress_text(value)
    assert json.loads(text) == value
    assert checked_progress(text) == text


@pytest.mark.parametrize(
    "value", [object(), float("nan"), "\udc80", "x" * PROGRESS_LENGTH_MAX, "é" * (PROGRESS_LENGTH_MAX // 2)]
)
def test_what_is_no_json_or_too_long_is_refused(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        progress_text(value)


@given(st.text() | st.sampled_from(["NaN", "1e999", '"\\ud800"', "[" * 60_000, " " * 64_001, "9" * 5000]))
def test_what_others_call_a_progress_is_one_or_a_value_error(text: str) -> None:
    try:
        checked = checked_progress(text)
    except ValueError:
        return
    assert checked == "" or progress_text(json.loads(checked)) == checked
