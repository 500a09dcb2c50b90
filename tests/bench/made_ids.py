"""Ids of jobs that follow from a seed and a time, so that the same seed gives the same shards again."""

import random
from uuid import UUID


def made_id(choose: random.Random, now_ms: int) -> str:
    """A UUIDv7 of that time."""
    bits = choose.getrandbits(74)
    return str(UUID(int=now_ms << 80 | 0x7 << 76 | (bits >> 62) << 64 | 0b10 << 62 | bits & (1 << 62) - 1))
