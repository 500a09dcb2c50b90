"""From where in a shard's partition of jobs.runs its next owner has to read, to learn which attempts have ended.

That is the event of the first attempt that ended beyond the committed ready offsets; and it lies always a horizon behind the
end, so that a ready record that was emitted twice is known when it comes the second time.

Events are not looked at one by one. A mark, made once a second, says how far the log was and which ready records had been
taken by then. All that ends later lies behind it in the log; so once all that was taken before the mark is
committed, nothing before it is needed. For a new owner, all that its former one may have ended
counts as taken before its marks, whether or not it has been read by then.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from consumers.intake import Place

#: Longer than a scheduler tries to deliver a ready record (design 3.3).
HORIZON_S = 120.0


@dataclass(frozen=True, slots=True)
class _Mark:
    at_s: float
    #: Offset in jobs.runs: every event that was acknowledged later lies there or behind it.
    offset: int
    #: For each of the shard's ready partitions, the offset behind the last record taken.
    taken: Mapping[Place, int]


@dataclass(slots=True)
class _Shard:
    end: int
    #: As given to `Positions.hold`.
    unread: Mapping[Place, int]
    marks: deque[_Mark] = field(default_factory=deque)


class Positions:
    """The positions of all shards that are held."""

    def __init__(self) -> None:
        #: By shard. Read on the consumer's thread, before the offsets that are committed with it.
        self.positions: dict[int, int] = {}
        self._shards: dict[int, _Shard] = {}

    def hold(self, shard: int, position: int, end: int, unread: Mapping[Place, int]) -> None:
        """The shard is held; its former owner's position counts until it can be moved on.

        `unread`: up to where its ready partitions are to be read before all is known that its former owner may have ended.
        """
        self.positions[shard] = position
        self._shards[shard] = _Shard(end, unread)

    def reported(self, shard: int, offset: int) -> None:
        """An event of the shard was acknowledged at this offset. To be told before its ready record is finished."""
        if (state := self._shards.get(shard)) is not None:
            state.end = max(state.end, offset + 1)

    def mark(self, now_s: float, taken: Mapping[Place, int], committable: Mapping[Place, int]) -> None:
        """Set a mark in each shard, and move on to the last one before which nothing is needed."""
        for shard, state in self._shards.items():
            of_shard = {place: offset for place, offset in taken.items() if place[1] == shard}
            of_shard |= {place: max(end, of_shard.get(place, 0)) for place, end in state.unread.items()}
            state.marks.append(_Mark(now_s, state.end, of_shard))
            while state.marks and _is_passed(state.marks[0], now_s, committable):
                self.positions[shard] = state.marks.popleft().offset

    def forget(self, shards: Iterable[int]) -> None:
        for shard in shards:
            self.positions.pop(shard, None)
            self._shards.pop(shard, None)


def _is_passed(mark: _Mark, now_s: float, committable: Mapping[Place, int]) -> bool:
    return now_s - mark.at_s >= HORIZON_S and all(
        committable.get(place, 0) >= offset for place, offset in mark.taken.items()
    )
