"""The lease: why no two executors perform runs of one shard at the same time.

Overview
--------
Kafka gives each shard to one member of the executors' group, but a member that was paused goes on when its shards have
long moved. So an executor may perform runs of a shard only while it holds a lease on it, and the lease rides on what it
does anyway: twice a second it commits its offsets, synchronously, on the one thread that calls its consumer. The
coordinator takes a commit from members only, and a member loses nothing without either having given it up or being none
any more. So each success proves that, when the commit was sent, nobody else had been given the shard.

The lease ends without anybody's help: the guard, whose children the slots are, has a timer in the kernel that kills
it (`consumers.kernel_timer`), set anew by each success. An executor that finds its lease ended exits, to be started anew.

States of a shard at an executor
--------------------------------

    not ours ──assigned──► claimed ──waited──► held ──revoked──► draining ──► released, not ours
                              │                 ▲ │                  │
                              │   every success ╰─╯ of a commit      │ unanswered: stays `held` in the metadata
                              ╰──revoked──► not ours, the metadata is left as it was found

    claimed    Its ready runs are read and kept. Nothing is committed, so the metadata stays the former owner's. If
               that says `released`, or nothing was ever committed, there is no wait; else the wait below.
    held       Begins with a commit of `held` under the next epoch, then OwnerStarted(epoch) in the shard's partition of
               jobs.runs, then that partition is read up to there, and the guard has answered that its timer is set.
               Only then runs start, without those that the log shows as ended.
    draining   Takes nothing more in; what runs has its drain time, in which commits of `held` go on. Then they leave it
               out and the rest is killed: what can't be killed before the lease has run out, the kernel kills.
               When nothing of it runs and what ended is written, `released` is committed.

The trust window
----------------

    lease ends at   sent(c) + LEASE_S          c: the executor's last successful commit with the shard
    new runs from   assigned + max(LEASE_S, lease duration in the metadata)

`sent` is taken before the commit is sent, `assigned` when the new owner hears of its assignment. The coordinator accepts c
before it gives the shard away, so sent(c) <= assigned, and the new owner's wait ends after the old one's lease, whose
duration is in the metadata. Both are measured as durations on one machine's CLOCK_BOOTTIME; no two clocks are compared.
An executor has one kernel timer: for the shard of its whose lease ends first.

What stands in the log
----------------------
The metadata of the shard's committed `jobs.ready.high` offset, as `infra.ownership` has it. Its `runs` is a position in the
shard's partition of jobs.runs (`consumers.positions`): nothing before it is needed to know what became of ready records that are
not committed. A new owner reads that partition from there to its own OwnerStarted, and the ready topics from the committed
offsets. The epoch is one more than the highest in metadata and partition.

A ready record that was performed to its end has an event of that, and is passed over. One that has an event RUNNING or
INTERRUPTED is performed again, as the next attempt. One without any may have been begun, since short runs are reported by
their end alone: if the shard was not released, it begins only when RUNNING is acknowledged. What begins so and never ends
counts against the run, however its executor was lost: `consumers.findings` has the rule.

Failures
--------
    executor killed                    its guard dies with it; the wait counts from the next assignment all the same
    executor stopped, hung, swapped    no commits, so the kernel kills its guard, which is dead when others begin
    executor and guard stopped         a kernel timer's SIGKILL ends stopped processes too
    all of it stopped                  likewise, all below the guard; but where PID namespaces aren't allowed, a stopped init
                                       can kill its slot only when it is woken up (`consumers.cage`)
    cut off from Kafka                 no commits succeed: as when stopped. A member cut off keeps what it has fetched,
                                       which is why membership alone proves nothing
    fenced (UNKNOWN_MEMBER_ID)         the lease ends at once, the executor exits
    STALE_MEMBER_EPOCH                 meets healthy members in a rebalance: sent again, extends nothing meanwhile
    woken up after its lease           its slots are dead. What it still says bears a lower epoch and comes after the new
                                       owner's OwnerStarted: readers of jobs.runs pass it over. What it said before that
                                       is read by the new owner, and holds
    `released` unanswered              the next owner waits, for nothing
    metadata unreadable                taken as held for LEASE_MAX_S
    the clock is set                   CLOCK_BOOTTIME doesn't move
    the whole machine sleeps           CLOCK_BOOTTIME goes on, and the timer fires at the wake-up, before or after
                                       a run has done a little more: the one hole (a virtual machine paused by its host
                                       doesn't even know), and a side effect outside can't be fenced at all
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from dueline.errors import DuelineError
from infra.ownership import Ownership

LEASE_S = 3.0


class LeaseEnded(DuelineError):
    """This executor may perform nothing any more, since its shards may have other owners; it has to start anew."""


def wait_s(found: Ownership | None) -> float:
    """How long a new owner waits from its assignment. None: nothing was ever committed."""
    if found is None or found.released:
        return 0.0
    return max(LEASE_S, found.lease_s)


@dataclass(slots=True)
class Leases:
    """The leases of an executor, by shard. Times are seconds on CLOCK_BOOTTIME."""

    _until_s: dict[int, float] = field(default_factory=dict)
    _revoked: bool = False

    @property
    def until_s(self) -> float | None:
        """When the first of them ends; None while no shard is held."""
        return min(self._until_s.values(), default=None)

    def extend(self, shards: Iterable[int], sent_s: float) -> None:
        """A commit with these shards, held without interruption since before it was sent, was successful.

        A lease that has ended is not extended: what it protected is dead already.
        """
        if self.ended(sent_s):
            return
        for shard in shards:
            self._until_s[shard] = max(self._until_s.get(shard, 0.0), sent_s + LEASE_S)

    def give_up(self, shards: Iterable[int]) -> None:
        """Nothing of these shards runs any more."""
        for shard in shards:
            self._until_s.pop(shard, None)

    def end(self) -> None:
        """The group knows this member no more."""
        self._revoked = True

    def ended(self, now_s: float) -> bool:
        return self._revoked or ((until_s := self.until_s) is not None and now_s >= until_s)
