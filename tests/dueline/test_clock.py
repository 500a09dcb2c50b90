"""Lone pieces begin at once, and many begin an interval apart."""

from hypothesis import given
from hypothesis import strategies as st

from dueline.clock import ManualClock, Pace


def test_a_lone_piece_never_waits() -> None:
    clock = ManualClock(5_000)
    pace = Pace(0.02, clock)
    for _ in range(3):
        assert pace.pause_s() == 0
        clock.advance(20)


@given(st.lists(st.integers(0, 50), min_size=2))
def test_pieces_begin_an_interval_apart_and_no_later_than_they_must(gaps_ms: list[int]) -> None:
    clock = ManualClock(1_000)
    pace = Pace(0.02, clock)
    last_ms: int | None = None
    for gap_ms in gaps_ms:
        clock.advance(gap_ms)
        asked_ms = clock.now_ms()
        clock.advance(round(pace.pause_s() * 1000))
        assert clock.now_ms() == (asked_ms if last_ms is None else max(asked_ms, last_ms + 20))
        last_ms = clock.now_ms()
