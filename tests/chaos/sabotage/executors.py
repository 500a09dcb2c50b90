"""Mistakes in executors."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from consumers import claim, intake, lease
from consumers.backlog import Taken
from consumers.guard_link import GuardLink
from consumers.output_store import _Container
from consumers.performer import Performer
from infra.ownership import LEASE_MAX_S
from tests.chaos.sabotage.mistake import Mistake, replace

#: The longest that an executor may have: twice the session of its group.
LONG_LEASE_S = LEASE_MAX_S
PAGE = 4096


def commit_before_output() -> None:
    """A record counts as finished when its run begins, as where acknowledging means having received.

    The next commit passes over it. If the executor dies then, the run is cut, and its record is never read again.
    """

    def change(perform: Callable[..., Any]) -> Callable[..., Any]:
        async def perform_committed(self: Performer, taken: Taken) -> None:
            self._account.finish(taken.place, taken.offset)
            await perform(self, taken)

        return perform_committed

    replace(Performer, "_perform", change)


def output_not_atomic() -> None:
    """Outputs are written through a buffer in the process, and what lies in that counts as written.

    Its bytes reach the file in whole pages, wherever that cuts an output in two. If the executor dies before, outputs whose
    addresses were reported are missing, or there in part.
    """

    def change_append(_: object) -> Callable[..., Any]:
        def append(self: Any, data: bytes) -> None:
            if self._end == 0:
                self._buffer = bytearray()
            self._buffer += data
            self._end += len(data)
            whole = len(self._buffer) // PAGE * PAGE
            os.write(self._fd, self._buffer[:whole])
            del self._buffer[:whole]

        return append

    def change_close(close: Callable[..., Any]) -> Callable[..., Any]:
        def flush_and_close(self: Any) -> None:
            os.write(self._fd, self._buffer)
            close(self)

        return flush_and_close

    replace(_Container, "_append", change_append)
    replace(_Container, "close", change_close)


def no_lease_wait() -> None:
    """A new owner begins as soon as it has its shards: the group has given them to nobody else, after all.

    A stopped executor is expelled when its session ends. Its runs go on until its lease does.
    """
    replace(claim, "wait_s", lambda _: lambda found: 0.0)


def long_lease() -> None:
    """No mistake: the lease of a cluster whose coordinators fail over slowly. Safety doesn't depend on the session."""
    for module in (lease, intake):
        replace(module, "LEASE_S", lambda _: LONG_LEASE_S)


def no_guard() -> None:
    """The executor watches its lease by itself, and ends its slots with it: nothing is asked of the kernel.

    An executor that is stopped watches nothing. Its slots, which are not stopped, perform on beside the next owner's.
    """

    def change(_: object) -> Callable[..., Any]:
        def say_that_it_is_set(self: GuardLink, until_s: float | None) -> None:
            event = {"event": "leased", "until_s": until_s}
            self._loop.call_soon_threadsafe(partial(self._on_event, event, None))

        return say_that_it_is_set

    replace(GuardLink, "lease", change)


MISTAKES: Mapping[str, Mistake] = {
    "commit-before-output": commit_before_output,
    "output-not-atomic": output_not_atomic,
    "no-lease-wait": no_lease_wait,
    "long-lease": long_lease,
    "no-guard": no_guard,
}
