"""One timer looks for as long as there is something to look at."""

import asyncio

from consumers.sweep import Sweep


async def test_it_looks_until_it_is_told_to_stop_and_again_when_it_is_woken() -> None:
    looks: list[int] = []
    enough = asyncio.Event()

    def look() -> bool:
        looks.append(len(looks))
        if len(looks) % 3:
            return True
        enough.set()
        return False

    sweep = Sweep(0.001, look)
    for round_ in (1, 2):
        sweep.wake()
        sweep.wake()  # it is awake already
        await enough.wait()
        enough.clear()
        assert len(looks) == 3 * round_
