"""The position in jobs.runs: a successor that reads from there misses nothing that it must know, however runs end."""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from consumers.account import Account
from consumers.positions import HORIZON_S, Positions

PLACES = [("jobs.ready.high", 3), ("jobs.ready.low", 3)]


@dataclass(frozen=True)
class Report:
    """An event in jobs.runs, and the ready record that it is about."""

    place: tuple[str, int]
    ready_offset: int
    at_s: float


class Shard:
    """An executor's bookkeeping of one shard, and the log that it writes."""

    def __init__(self) -> None:
        self.account = Account()
        self.positions = Positions()
        self.positions.hold(3, 0, 0, {})
        self.log: list[Report] = []
        self.open: list[tuple[tuple[str, int], int]] = []
        self.next = dict.fromkeys(PLACES, 0)
        self.now_s = 1000.0
        #: What the owners before have committed.
        self.committed = dict.fromkeys(PLACES, 0)

    def take(self, place: tuple[str, int]) -> None:
        self.account.take(place, self.next[place])
        self.open.append((place, self.next[place]))
        self.next[place] += 1

    def finish(self, index: int) -> None:
        if self.open:
            place, offset = self.open.pop(index % len(self.open))
            if not any((report.place, report.ready_offset) == (place, offset) for report in self.log):
                self.log.append(Report(place, offset, self.now_s))
                self.positions.reported(3, len(self.log) - 1)
            self.account.finish(place, offset)

    def take_over(self, wait_s: float) -> None:
        """Another executor goes on with what is committed; what else had ended it learns from the log."""
        self.now_s += wait_s
        unread = {place: end for place, end in self.next.items() if end > self.committed_at(place)}
        self.committed = {place: self.committed_at(place) for place in PLACES}
        position = self.positions.positions[3]
        self.account, self.positions, self.open = Account(), Positions(), []
        self.positions.hold(3, position, len(self.log), unread)
        self.next = dict(self.committed)

    def committed_at(self, place: tuple[str, int]) -> int:
        return max(self.committed[place], self.account.committable.get(place, 0))

    def mark(self, pause_s: float) -> None:
        self.now_s += pause_s
        self.positions.mark(self.now_s, self.account.taken, self.account.committable)

    def missed(self) -> Sequence[Report]:
        """What a successor would not read though it must: beyond the committed offsets, or within the horizon."""
        unread = self.log[: self.positions.positions[3]]
        return [
            report
            for report in unread
            if report.ready_offset >= self.committed_at(report.place) or self.now_s - report.at_s < HORIZON_S
        ]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.sampled_from(PLACES)),
        st.tuples(st.just("finish"), st.integers(0, 20)),
        st.tuples(st.just("mark"), st.floats(0, 90)),
        st.tuples(st.just("take_over"), st.floats(0, 10)),
    ),
    max_size=60,
)


@given(steps)
def test_a_successor_misses_nothing(steps: list[tuple[str, object]]) -> None:
    shard = Shard()
    for step, value in steps:
        getattr(shard, step)(value)
        assert shard.missed() == []


def test_it_moves_on_when_all_is_finished() -> None:
    shard = Shard()
    for _ in range(10):
        shard.take(PLACES[0])
        shard.finish(0)
    shard.mark(1)
    shard.mark(HORIZON_S + 1)
    assert shard.positions.positions[3] == 10


def test_what_a_former_owner_has_ended_holds_it_back_until_it_is_read() -> None:
    shard = Shard()
    shard.take(PLACES[0])
    shard.take(PLACES[0])
    shard.finish(1)
    shard.take_over(1)
    shard.take(PLACES[0])
    shard.finish(0)
    shard.mark(1)
    shard.mark(HORIZON_S)
    assert shard.positions.positions[3] == 0
    shard.take(PLACES[0])
    shard.finish(0)
    shard.mark(1)
    assert shard.positions.positions[3] == 2


def test_a_long_run_holds_it_back() -> None:
    shard = Shard()
    shard.take(PLACES[0])
    for _ in range(5):
        shard.take(PLACES[0])
        shard.finish(1)
        shard.mark(HORIZON_S)
    assert shard.positions.positions[3] <= 1
    shard.finish(0)
    shard.mark(HORIZON_S)
    shard.mark(HORIZON_S)
    assert shard.positions.positions[3] == 6


def test_the_former_owner_s_position_counts_until_then() -> None:
    positions = Positions()
    positions.hold(3, 17, 40, {})
    positions.mark(0, {}, {})
    assert positions.positions == {3: 17}
    positions.mark(HORIZON_S, {}, {})
    assert positions.positions == {3: 40}
    positions.forget([3])
    assert positions.positions == {}
