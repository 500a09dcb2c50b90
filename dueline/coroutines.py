"""Performs coroutine functions: a fresh event loop for each run. Loaded with the first of them, as asyncio takes 20 ms."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from dueline.registry import TimedOut


class CoroutineRun:
    """A coroutine that is awaited to its end. The tasks that it leaves behind are cancelled then."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self._time_is_up = False

    def complete(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """What the coroutine returns or raises; TimedOut for one that was cancelled because its time is up."""
        runner = asyncio.Runner()
        try:
            value, error = runner.run(self._end_of(coroutine))
        finally:
            if not self._time_is_up:  # or it would wait for threads, of which nobody knows when they end
                runner.close()
        if isinstance(error, asyncio.CancelledError) and self._time_is_up:
            raise TimedOut().with_traceback(error.__traceback__)
        if error is not None:
            raise error
        return value

    def time_up(self) -> bool:
        """Cancel the coroutine where it awaits. False if TimedOut has to be raised instead: code runs that awaits nothing.

        Called by a signal's handler, so at any moment of the loop's life.
        """
        self._time_is_up = True
        task = self._task
        if task is None or task.done():
            return False
        loop = task.get_loop()
        current = asyncio.current_task(loop)
        if current is not task:
            loop.call_soon_threadsafe(task.cancel)
        return current is None

    async def _end_of(self, coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
        """The coroutine's value or error; as a value, since a SystemExit would break out of the loop."""
        self._task = asyncio.current_task()
        end: tuple[Any, BaseException | None]
        try:
            end = await coroutine, None
        except BaseException as error:
            end = None, error
        if self._time_is_up:
            left = asyncio.all_tasks() - {self._task}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        return end
