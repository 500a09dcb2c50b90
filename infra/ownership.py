"""What an executor says of a shard with the offsets that it commits: the metadata of the shard's `jobs.ready.high`, a JSON object.

    {"v": 1, "owner": "executor-…", "epoch": 7, "lease_ms": 3000, "state": "held", "runs": 4711}

The shard's next owner reads it (`consumers.lease` says what for), and whoever trims `jobs.runs`, which is still needed from `runs` on.
"""

import json
from dataclasses import dataclass, replace

#: The longest lease that any executor may have: what a new owner waits if it can't read what the former one had.
LEASE_MAX_S = 10.0
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """What the metadata says."""

    #: The executor's id; empty when that can't be read.
    owner: str = ""
    epoch: int = 0
    lease_s: float = LEASE_MAX_S
    #: Whether its owner gave it up, and does nothing for it any more.
    released: bool = False
    #: From where in the shard's partition of jobs.runs a new owner has to read.
    position: int = 0
    #: Whether it was found. What was committed without it, or with what can't be read, counts as held.
    known: bool = True

    def to_text(self) -> str:
        fields = {
            "v": _VERSION,
            "owner": self.owner,
            "epoch": self.epoch,
            "lease_ms": round(self.lease_s * 1000),
            "state": "released" if self.released else "held",
            "runs": self.position,
        }
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str | None) -> "Ownership":
        """Never fails: the caution that is due where nothing can be read is to wait and to read all."""
        try:
            fields = json.loads(text or "")
            if fields["v"] != _VERSION:
                return UNKNOWN
            found = cls(
                owner=str(fields["owner"]),
                epoch=_whole(fields["epoch"]),
                lease_s=_whole(fields["lease_ms"]) / 1000,
                released={"released": True, "held": False}[fields["state"]],
                position=_whole(fields["runs"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            return UNKNOWN
        return found if 0 < found.lease_s <= LEASE_MAX_S else replace(UNKNOWN, epoch=found.epoch)


UNKNOWN = Ownership(known=False)


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no whole number from 0")
    return value
