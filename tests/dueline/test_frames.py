"""What a slot says is not trusted: whatever it is, it makes a report, a progress, or a BrokenFrame."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueline.frames import (
    BrokenFrame,
    Report,
    pack_progress,
    pack_reply,
    pack_report,
    reply_length,
    unpack_news,
)
from dueline.progress import PROGRESS_LENGTH_MAX
from dueline.states import AttemptState
from tests.dueline.conftest import json_values, progresses, texts

reports = st.builds(
    Report,
    state=st.sampled_from([AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.TIMED_OUT]),
    exit_status=st.none() | st.integers(-64, 255),
    result=texts,
    error=texts,
    reason=texts,
    final=st.booleans(),
    retry_ms=st.none() | st.integers(0, 10**12),
    progress=progresses,
    bytes_dropped=st.integers(0, 10**12),
    stdout=st.binary(max_size=40),
    stderr=st.binary(max_size=40),
)
NAMES = [*Report.__slots__, "other"]


@given(reports)
def test_a_report_survives(report: Report) -> None:
    packed = pack_report(report)
    assert reply_length(packed) == len(packed)
    assert unpack_news(packed) == report


@given(progresses)
def test_a_progress_survives(progress: str) -> None:
    assert unpack_news(pack_progress(progress)) == progress


@given(st.dictionaries(st.sampled_from(NAMES), json_values, max_size=5) | json_values, st.booleans())
def test_what_is_neither_is_refused(header: Any, is_report: bool) -> None:
    if is_report and isinstance(header, dict):
        header["state"] = "FAILED"
    with suppress(BrokenFrame):
        assert isinstance(unpack_news(pack_reply(header)), Report | str)


@pytest.mark.parametrize("progress", ["{", "[NaN]", '"' + "x" * PROGRESS_LENGTH_MAX + '"', "[" * 9999, [], 0])
def test_a_progress_that_views_could_not_show_is_refused(progress: Any) -> None:
    for header in ({"progress": progress}, {"state": "FAILED", "progress": progress}):
        with pytest.raises(BrokenFrame):
            unpack_news(pack_reply(json.loads(json.dumps(header))))


@pytest.mark.parametrize("name", ["result", "error", "reason", "progress"])
def test_half_a_surrogate_pair_is_refused(name: str) -> None:
    with pytest.raises(BrokenFrame):
        unpack_news(pack_reply({"state": "FAILED", name: '"\udc80"'}))
