"""What may be committed while records finish in any order."""

from hypothesis import given
from hypothesis import strategies as st

from consumers.offsets import Completion

offset_lists = st.sets(st.integers(0, 100), min_size=1, max_size=12).map(sorted)


def test_nothing_is_known_before_the_first_record() -> None:
    completion = Completion()
    assert completion.committable is None
    assert completion.span == 0


@given(offset_lists, st.data())
def test_everything_below_the_commit_is_finished_and_nothing_finished_is_held_back(
    offsets: list[int], data: st.DataObject
) -> None:
    completion = Completion()
    left, taken, finished = list(offsets), list[int](), set[int]()
    while left or len(finished) < len(taken):
        unfinished = [offset for offset in taken if offset not in finished]
        if left and (not unfinished or data.draw(st.booleans(), label="take")):
            taken.append(left.pop(0))
            completion.take(taken[-1])
        else:
            offset = data.draw(st.sampled_from(unfinished), label="finish")
            finished.add(offset)
            completion.finish(offset)
        unfinished = [offset for offset in taken if offset not in finished]
        assert completion.committable == (min(unfinished) if unfinished else taken[-1] + 1)
        assert completion.span == (taken[-1] + 1 - min(unfinished) if unfinished else 0)
    assert completion.committable == offsets[-1] + 1


@given(offset_lists, st.randoms())
def test_nothing_is_kept_of_what_is_finished(offsets: list[int], random: object) -> None:
    completion = Completion()
    for offset in offsets:
        completion.take(offset)
    shuffled = list(offsets)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for offset in shuffled:
        completion.finish(offset)
    assert not completion._open
    assert not completion._finished
