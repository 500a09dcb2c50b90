"""Ends a process that hangs: one whose event loop doesn't turn any more, and one that doesn't come to its end.

The former does nothing, and yet may pass for a healthy one: threads of its own, or of its clients, go on and say that it is
there. What watches it is a thread, which counts its own ticks: a process that was stopped has missed none when it goes on.
"""

import asyncio
import faulthandler
import logging
import os
import threading
import time
from collections.abc import Callable

from dueline.errors import DuelineError

log = logging.getLogger(__name__)

TICK_S = 1.0
#: Ticks without a turn after which the process ends. A turn takes milliseconds; a machine that is short of memory or has
#: far too much to do makes it seconds.
TICKS_MAX = 30
#: Of a process that has to start anew: EX_SOFTWARE.
EXIT_STATUS = 70


def watch(loop: asyncio.AbstractEventLoop, failed: Callable[[BaseException], None]) -> None:
    """Call `failed`, on another thread, when the loop has not turned for `TICKS_MAX` ticks. The stacks go to stderr before."""
    threading.Thread(target=_watch, args=(loop, failed), name="watchdog", daemon=True).start()


def end_within(limit_s: float) -> None:
    """End the process by force if it is still there after so long: called when it has been told to stop.

    What it has not done then is done by whoever comes next, as if it had been killed.
    """
    timer = threading.Timer(limit_s, _end, [limit_s])
    timer.daemon = True
    timer.start()


def _end(limit_s: float) -> None:
    log.critical("it did not stop within %g s; ended by force", limit_s, extra={"action": "stop_hangs"})
    faulthandler.dump_traceback()
    os._exit(EXIT_STATUS)


def _watch(loop: asyncio.AbstractEventLoop, failed: Callable[[BaseException], None]) -> None:
    turned, missed = threading.Event(), 0
    while missed < TICKS_MAX:
        turned.clear()
        try:
            loop.call_soon_threadsafe(turned.set)
        except RuntimeError:
            return  # the loop is closed, and the process about to end
        if turned.wait(TICK_S):
            missed = 0
            time.sleep(TICK_S)
        else:
            missed += 1
    faulthandler.dump_traceback()
    failed(DuelineError(f"the event loop has not turned for {missed * TICK_S:g} s"))
