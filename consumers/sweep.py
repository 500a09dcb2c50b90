"""One timer for many things that are watched: starting and cancelling one for each would cost more than looking at all."""

import asyncio
from collections.abc import Callable

#: How late what is watched may be noticed.
SWEEP_S = 0.05


class Sweep:
    """Calls `look` every so often, for as long as that says that there is something to look at."""

    def __init__(self, interval_s: float, look: Callable[[], bool]) -> None:
        self._interval_s = interval_s
        self._look = look
        self._timer: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """There is something to look at."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        if self._look():
            self.wake()
