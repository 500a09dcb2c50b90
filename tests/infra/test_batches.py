"""Batches stay below what Cassandra takes in one mutation, whatever the rows hold."""

from hypothesis import given
from hypothesis import strategies as st

from infra.cassandra import BATCH_BYTES_MAX, BATCH_ROWS_MAX, SHARED_BYTES_MAX, SHARING_MAX, Call, batches_of
from infra.statements import Statement

lengths = st.integers(0, SHARED_BYTES_MAX) | st.integers(0, 2 * BATCH_BYTES_MAX // 5)


def size_of(calls: list[Call]) -> int:
    return sum(len(values[2]) for _, values in calls)


@given(st.lists(st.lists(lengths, max_size=100), max_size=20))
def test_batches_hold_all_in_order_and_stay_within_their_bounds(homes: list[list[int]]) -> None:
    calls = [
        [(Statement.SAVE_ROW, (home, number, bytes(length))) for number, length in enumerate(rows)]
        for home, rows in enumerate(homes)
    ]
    batches = [list(batch) for batch in batches_of(calls)]
    for home, rows in enumerate(calls):
        assert [call for batch in batches for call in batch if call[1][0] == home] == rows
    for batch in batches:
        sharing = len({values[0] for _, values in batch})
        assert 1 <= sharing <= SHARING_MAX
        assert len(batch) <= (BATCH_ROWS_MAX if sharing == 1 else SHARING_MAX * SHARING_MAX)
        assert len(batch) == 1 or size_of(batch) <= (BATCH_BYTES_MAX if sharing == 1 else SHARED_BYTES_MAX)


def test_a_row_that_fills_a_batch_goes_alone() -> None:
    calls = [(Statement.SAVE_ROW, (0, number, bytes(BATCH_BYTES_MAX))) for number in range(3)]
    assert [len(batch) for batch in batches_of([calls])] == [1, 1, 1]


def test_partitions_with_a_row_each_share_batches() -> None:
    calls = [[(Statement.SAVE_ROW, (home, 0, bytes(100)))] for home in range(25)]
    assert [len(batch) for batch in batches_of(calls)] == [10, 10, 5]
