"""An executor with a run of the worst kind, for a test that kills it: `python -m tests.consumers.doomed_executor`.

A line on its standard input is the lease that it takes, in seconds from then.
"""

import asyncio
import sys

from consumers.cage import Protection
from consumers.slots import SlotPool
from dueline.clock import SystemClock
from tests.consumers.helpers import CLASSES, perform, pids_with, ready


async def main(protection: str, marker: str) -> None:
    pool = SlotPool(2, [CLASSES], protection=Protection[protection])
    await pool.start()
    task = asyncio.ensure_future(perform(pool, ready("leave-behind", marker=marker, s=100)))
    while not pids_with(marker):
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
