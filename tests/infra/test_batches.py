"""Batches stay below what Cassandra takes in one mutation, whatever the rows hold."""

from hypothesis import given
from hypothesis import strategies as st

from infra.cassandra import BATCH_BYTES_MAX, BATCH_ROWS_MAX, pieces_of
from infra.statements import Statement


@given(st.lists(st.integers(0, 2 * BATCH_BYTES_MAX // 5), max_size=200))
def test_pieces_keep_order_and_bounds(lengths: list[int]) -> None:
    calls = [(Statement.SAVE_ROW, (number, bytes(length))) for number, length in enumerate(lengths)]
    pieces = list(pieces_of(calls))
    assert [call for piece in pieces for call in piece] == calls
    for piece in pieces:
        assert 0 < len(piece) <= BATCH_ROWS_MAX
        assert len(piece) == 1 or sum(len(values[1]) for _, values in piece) <= BATCH_BYTES_MAX


def test_a_row_that_fills_a_batch_goes_alone() -> None:
    calls = [(Statement.SAVE_ROW, (bytes(BATCH_BYTES_MAX),))] * 3
    assert [len(piece) for piece in pieces_of(calls)] == [1, 1, 1]
