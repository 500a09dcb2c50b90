"""The executor's account: which ready records it has taken, which are finished, and where no more should be taken."""

from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field

from consumers.backlog import Taken
from consumers.intake import Place
from consumers.offsets import Completion
from dueline.address import CONTROL
from dueline.runs import RunKey

#: Jobs of one topic and partition whose runs wait: enough to keep every slot busy between two fetches, and few enough that
#: an executor which joins finds work left. Not runs: thousands of one job, say of a backfill, are performed one after the other, and
#: would keep those of all others away. A paused partition is resumed at the lower bound; the two lie apart because
#: pausing throws away what was fetched.
WAITING_MAX, WAITING_RESUMED = 1_000, 250
#: Bytes of the records of runs that wait: decoded they take up several times as much.
WAITING_BYTES_MAX = 8 << 20
#: Offsets between the commit and the last run taken: what a successor may have to read again. With a hundred million jobs a day on
#: eight shards, a run of five minutes at the begin of these has some 15,000 behind it at its end.
SPAN_MAX = 20_000
#: How long the key of a finished run is remembered: beyond the time in which its record may come a second time.
REMEMBERED_MS = 120_000


@dataclass(slots=True)
class _Partition:
    """What was taken of one topic and partition."""

    completion: Completion = field(default_factory=Completion)
    #: How many runs of each job wait.
    waiting: dict[str, int] = field(default_factory=dict)
    #: The lengths of their records by offset, and the sum of these.
    lengths: dict[int, int] = field(default_factory=dict)
    bytes: int = 0


class Account:
    """Taken and finished records, by topic and partition. What is public is read on the consumer's thread, too."""

    def __init__(self) -> None:
        #: The offset below which all is finished.
        self.committable: dict[Place, int] = {}
        #: The partitions of which no more should be taken now; replaced, never changed.
        self.full: frozenset[Place] = frozenset()
        #: The offset behind the last record taken.
        self.taken: dict[Place, int] = {}
        self._partitions: defaultdict[Place, _Partition] = defaultdict(_Partition)
        self._open: dict[RunKey, int] = {}
        #: Keys of finished runs with the time until which they are remembered, oldest first. In a plain dict, to find the oldest
        #: is to pass by all that were deleted before it.
        self._finished: OrderedDict[RunKey, int] = OrderedDict()

    def take(self, place: Place, offset: int) -> None:
        """A record was read."""
        completion = self._partitions[place].completion
        completion.take(offset)
        self.taken[place] = offset + 1
        self.committable[place] = completion.committable or 0

    def pass_over(self, place: Place, offset: int) -> None:
        """A record was read that asks for nothing, or for nothing more."""
        self.take(place, offset)
        self.finish(place, offset)

    def knows(self, key: RunKey, now_ms: int) -> bool:
        """Whether the attempt is in hand, or finished lately: then this record is its second, and is to be passed over."""
        return key in self._open or self._finished.get(key, 0) > now_ms

    def wait(self, taken: Taken) -> None:
        """The run waits for a slot."""
        self.open(taken.key, taken.partition)
        partition, job_id = self._partitions[taken.place], taken.run.job_id
        partition.waiting[job_id] = partition.waiting.get(job_id, 0) + 1
        partition.lengths[taken.offset] = length = len(taken.record)
        partition.bytes += length
        self._update_full(taken.place, partition)

    def open(self, key: RunKey, shard: int) -> None:
        """An attempt is in hand."""
        self._open[key] = shard

    def begin(self, taken: Taken) -> None:
        """The run waits no more."""
        partition, job_id = self._partitions[taken.place], taken.run.job_id
        partition.waiting[job_id] -= 1
        if not partition.waiting[job_id]:
            del partition.waiting[job_id]
        partition.bytes -= partition.lengths.pop(taken.offset)
        self._update_full(taken.place, partition)

    def finish(self, place: Place, offset: int) -> None:
        """All that a record asked for is durable."""
        if (partition := self._partitions.get(place)) is not None:  # its shard may be given up by now
            partition.completion.finish(offset)
            self.committable[place] = partition.completion.committable or 0
            self._update_full(place, partition)

    def remember(self, key: RunKey, now_ms: int) -> None:
        """An attempt is finished."""
        self._open.pop(key, None)
        self._finished[key] = now_ms + REMEMBERED_MS
        self._finished.move_to_end(key)
        while next(iter(self._finished.values())) < now_ms:
            self._finished.popitem(last=False)

    def forget(self, shards: set[int]) -> None:
        """Drop what belongs to shards that were given up; what had finished stays remembered."""
        for place in [place for place in self._partitions if place[1] in shards]:
            del self._partitions[place]
            self.committable.pop(place, None)
            self.taken.pop(place, None)
        self._open = {key: shard for key, shard in self._open.items() if shard not in shards}
        self.full = frozenset(place for place in self.full if place[1] not in shards)

    def _update_full(self, place: Place, partition: _Partition) -> None:
        if place[0] == CONTROL:
            return  # a cancel waits for nobody
        was_full = place in self.full
        full = (
            len(partition.waiting) >= (WAITING_RESUMED if was_full else WAITING_MAX)
            or partition.bytes >= (WAITING_BYTES_MAX // 4 if was_full else WAITING_BYTES_MAX)
            or partition.completion.span >= SPAN_MAX
        )
        if full != was_full:
            self.full = self.full | {place} if full else self.full - {place}
