"""The cancels that an executor has been told of: which runs they end, and when each of them has done all it can.

An order on `jobs.control` says up to where the ready topics may hold runs that it is for. When the records below are finished, so
is the order, and only then its offset may be committed. Whoever takes the shard over before that reads it again.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from consumers.intake import Place
from dueline.address import READY
from dueline.commands import CancelOrder
from dueline.runs import ReadyRun


@dataclass(frozen=True, slots=True)
class _Standing:
    order: CancelOrder
    #: Where the order itself lies.
    place: Place
    offset: int

    def is_done(self, finished: Mapping[Place, int]) -> bool:
        shard = self.place[1]
        return all(
            finished.get((READY[priority], shard), 0) >= end for priority, end in self.order.ready.items()
        )


class Cancels:
    """The orders that are not done."""

    def __init__(self) -> None:
        self._standing: defaultdict[str, list[_Standing]] = defaultdict(list)
        #: Orders that the log is known to hold, and that are still to be taken: by place and offset.
        self._foreseen: dict[tuple[Place, int], CancelOrder] = {}

    def __bool__(self) -> bool:
        return bool(self._standing or self._foreseen)

    def foresee(self, order: CancelOrder, place: Place, offset: int) -> None:
        """Heed an order of a shard that is taken over before it is taken: its runs would begin without that."""
        self._foreseen[place, offset] = order

    def take(self, order: CancelOrder, place: Place, offset: int) -> None:
        self._foreseen.pop((place, offset), None)
        self._standing[order.job_id].append(_Standing(order, place, offset))

    def reason(self, run: ReadyRun) -> str | None:
        """Why a run must not start or go on, if it mustn't."""
        orders = [standing.order for standing in self._standing.get(run.job_id, ())]
        orders += [order for order in self._foreseen.values() if order.job_id == run.job_id]
        return next((order.reason for order in orders if run.version < order.version), None)

    def settle(self, finished: Mapping[Place, int]) -> Iterable[tuple[Place, int]]:
        """The places of orders that are done, which are dropped. `finished`: by place, the offset below which all is."""
        done: list[tuple[Place, int]] = []
        for job_id, orders in list(self._standing.items()):
            left: list[_Standing] = []
            for standing in orders:
                if standing.is_done(finished):
                    done.append((standing.place, standing.offset))
                else:
                    left.append(standing)
            if left:
                self._standing[job_id] = left
            else:
                del self._standing[job_id]
        return done

    def forget(self, shards: Collection[int]) -> None:
        """Drop what belongs to shards that were given up."""
        self._foreseen = {at: order for at, order in self._foreseen.items() if at[0][1] not in shards}
        for job_id, orders in list(self._standing.items()):
            if orders[0].place[1] in shards:
                del self._standing[job_id]
