"""A shard that was assigned to this executor, on its way to being held: see the states in `consumers.lease`."""

import asyncio
from dataclasses import dataclass, field

from consumers.lease import wait_s
from infra.ownership import Ownership


@dataclass(slots=True, eq=False, kw_only=True)
class Claim:
    """One assignment of one shard. Another assignment of it is another claim. Changed on the consumer's thread alone."""

    shard: int
    #: When we heard of it, by CLOCK_BOOTTIME.
    assigned_s: float
    #: Done when a commit has said `held`: the end of the lease that it began; None if the shard went away before.
    held: "asyncio.Future[float | None]"
    #: What the former owner has left; None if there never was one. Known once it was looked up.
    found: Ownership | None = None
    looked_up: bool = False
    #: The offset of each topic from which we read. That of the high one is committed until something of it is finished.
    begins: dict[str, int] = field(default_factory=dict)
    #: Under which epoch we hold it; 0 as long as we don't, and its metadata is not ours to change.
    epoch: int = 0

    @property
    def starts_s(self) -> float:
        """When the former owner's lease has ended."""
        return self.assigned_s + wait_s(self.found)

    @property
    def position(self) -> int:
        """From where in the shard's partition of jobs.runs its new owner reads; all of it where nothing is known."""
        return self.found.position if self.found is not None else 0
