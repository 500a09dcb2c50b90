"""An executor with a run of the worst kind, for a test that kills it: `python -m tests.consumers.doomed_executor`.

A line on its standard input is the lease that it takes, in seconds from then.
"""

import asyncio
import sys
from pathlib import Path

from consumers.cage import Protection
from consumers.slots import SlotPool
from dueline.clock import SystemClock
from tests.consumers.helpers import CLASSES, perform, ready


async def main(protection: str, marker: str, tell: str) -> None:
    pool = SlotPool(2, [CLASSES], protection=Protection[protection])
    await pool.start()
    task = asyncio.ensure_future(perform(pool, ready("leave-behind", marker=marker, tell=tell, s=100)))
    while not Path(tell).exists():  # then the process between the run and what it left behind is gone
        await asyncio.sleep(0.01)
    print(pool.guard_pid, flush=True)
    while lease := await asyncio.to_thread(sys.stdin.readline):
        until_s = SystemClock().elapsed_s() + float(lease)
        pool.lease(until_s)
        await pool.leased(until_s)
        print("leased", flush=True)
    await task


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
