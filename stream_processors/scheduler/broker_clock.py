"""The time by which runs are emitted.

A machine whose clock is ahead would emit runs early, and an early run cannot be taken back. So the time is that of the
machine, but never later than what the brokers' stamps allow: the latest stamp on a record of this process, plus the
time since then by a clock that nobody sets, plus a second for clocks that differ a little.
"""

import asyncio

from dueline.clock import Clock, SystemClock

ALLOWED_AHEAD_MS = 1_000


class BrokerClock:
    """A Clock that stands at the epoch until `heard` has been called once."""

    def __init__(self, machine: Clock | None = None) -> None:
        self._machine = machine or SystemClock()
        self._limit_at_zero_ms: float | None = None
        self._known = asyncio.Event()

    async def known(self) -> None:
        """Wait until the brokers have been heard."""
        await self._known.wait()

    def heard(self, stamp_ms: int) -> None:
        """The brokers have stamped a record of this process just now."""
        limit = stamp_ms + ALLOWED_AHEAD_MS - self._machine.elapsed_s() * 1000
        if self._limit_at_zero_ms is None or limit > self._limit_at_zero_ms:
            self._limit_at_zero_ms = limit
        self._known.set()

    def now_ms(self) -> int:
        if self._limit_at_zero_ms is None:
            return 0
        return min(self._machine.now_ms(), int(self._limit_at_zero_ms + self._machine.elapsed_s() * 1000))

    def elapsed_s(self) -> float:
        return self._machine.elapsed_s()
