"""Takes shards over from their former owner: waits out its lease, and learns what it had done from the log.

    read jobs.runs ──► wait ──► commit `held`, epoch + 1 ──► OwnerStarted acknowledged ──► read the rest ──► timer set
     (meanwhile)

What stands before OwnerStarted in the partition is all that any former owner can say: an attempt that ended there has
ended, and is not performed again. One that the log shows as running or interrupted is performed again, as the next attempt
(`consumers.findings`). A former owner that did not release the shard may have been lost by one of its own runs, of which
nothing is said yet, as short runs are reported by their end alone. So those that it may have begun, which are the records that
the ready topics held when its lease had ended, start only when Kafka has acknowledged that they do.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from consumers.account import SPAN_MAX
from consumers.claim import Claim
from consumers.findings import Findings
from consumers.intake import Place
from dueline.address import CONTROL, READY, RUNS
from dueline.clock import Clock
from dueline.codec import decode_cancel_order, encode_owner_started
from dueline.commands import CancelOrder
from dueline.errors import UndecodableRecord
from dueline.runs import OwnerStarted
from infra.log_reader import answered, ends_of, read_to_end
from infra.publisher import Placed, Record
from infra.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A shard that is held from now on."""

    claim: Claim
    epoch: int
    findings: Findings
    #: The ends of its ready partitions, below which the former owner may have begun runs without saying so; empty if it
    #: gave the shard up in good order.
    doubtful: Mapping[Place, int]
    #: In those of its ready partitions that hold records which are to be read, the ends of what the former owner may have ended.
    unread: Mapping[Place, int]
    #: The cancels that lie in its partition of jobs.control, with their offsets: its runs begin when they are known.
    cancels: Sequence[tuple[int, CancelOrder]] = ()


class TakeOver:
    """How it is done; what it needs of others is passed in."""

    def __init__(
        self,
        settings: Settings,
        executor: str,
        clock: Clock,
        *,
        #: Commit `held` for the claims, under these epochs: see `Intake.hold`.
        hold: Callable[[Mapping[Claim, int]], Awaitable[None]],
        deliver: Callable[[Sequence[Record]], Awaitable[Sequence[Placed]]],
        #: Return when the kernel's timer is known to be set for this time or a later one.
        leased: Callable[[float], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._executor = executor
        self._clock = clock
        self._hold = hold
        self._deliver = deliver
        self._leased = leased

    async def run(self, claims: Sequence[Claim]) -> Sequence[Held]:
        """Take over shards that can be had at about the same time; those that went away meanwhile are left out."""
        findings = {claim.shard: Findings(claim.position) for claim in claims}
        await self._read(findings)
        await asyncio.sleep(max(claim.starts_s for claim in claims) - self._clock.elapsed_s())
        ends = await self._ends([claim.shard for claim in claims])
        epochs = {claim: _next_epoch(claim, findings[claim.shard]) for claim in claims}
        await self._hold(epochs)
        until_s = {claim: claim.held.result() for claim in claims}
        claims = [claim for claim in claims if until_s[claim] is not None]
        if not claims:
            return []
        await self._deliver([self._announcement(claim.shard, epochs[claim]) for claim in claims])
        await self._read({claim.shard: findings[claim.shard] for claim in claims})
        cancels = await answered(lambda: _cancels(self._settings, claims))
        await self._leased(max(until_s[claim] or 0.0 for claim in claims))
        return [
            Held(
                claim=claim,
                epoch=epochs[claim],
                findings=findings[claim.shard],
                doubtful={} if claim.found is None or claim.found.released else _of(claim, ends),
                unread={
                    place: min(end, claim.begins.get(place[0], 0) + 2 * SPAN_MAX)  # with what it had fetched
                    for place, end in _of(claim, ends).items()
                },
                cancels=cancels[claim.shard],
            )
            for claim in claims
        ]

    def _announcement(self, shard: int, epoch: int) -> Record:
        started = OwnerStarted(shard=shard, epoch=epoch, executor=self._executor, at_ms=self._clock.now_ms())
        return Record(RUNS, None, encode_owner_started(started), shard)

    async def _read(self, findings: Mapping[int, Findings]) -> None:
        await answered(lambda: _read_on(self._settings, findings))

    async def _ends(self, shards: Sequence[int]) -> Mapping[Place, int]:
        places = [(topic, shard) for shard in shards for topic in READY.values()]
        return await answered(lambda: ends_of(self._settings, places))


def _of(claim: Claim, ends: Mapping[Place, int]) -> Mapping[Place, int]:
    """The ends of its ready partitions behind what is to be read."""
    return {
        (topic, shard): end
        for (topic, shard), end in ends.items()
        if shard == claim.shard and end > claim.begins.get(topic, 0)
    }


def _next_epoch(claim: Claim, findings: Findings) -> int:
    return max(claim.found.epoch if claim.found else 0, findings.succession.epoch) + 1


def _cancels(settings: Settings, claims: Sequence[Claim]) -> Mapping[int, list[tuple[int, CancelOrder]]]:
    """By shard, what jobs.control holds from where it will be read; foreign records are left to who reads it."""
    found: dict[int, list[tuple[int, CancelOrder]]] = {claim.shard: [] for claim in claims}
    starts = {(CONTROL, claim.shard): claim.begins.get(CONTROL, 0) for claim in claims}
    for message in read_to_end(settings, starts):
        with suppress(UndecodableRecord):
            order = decode_cancel_order(message.value() or b"")
            found[message.partition() or 0].append((message.offset() or 0, order))
    return found


def _read_on(settings: Settings, findings: Mapping[int, Findings]) -> None:
    starts = {(RUNS, shard): found.next_offset for shard, found in findings.items()}
    for message in read_to_end(settings, starts):
        findings[message.partition() or 0].add(message.offset() or 0, message.value() or b"")
