"""Whose turn it is at this executor: hands waiting runs out to its slots, and sees to it that a suspect has nothing beside it."""

from collections.abc import Callable, Collection

from consumers.backlog import Backlog, Taken


class Turns:
    """The backlog, and how many of its runs are in the hands of the slots.

    A suspect (`consumers.findings`) whose turn has come waits until there is none, and then has all slots: meanwhile nothing
    else begins. That costs the others up to the timeout of what runs and of the suspect, at most five times a run.
    """

    def __init__(self, capacity: Callable[[], int]) -> None:
        #: How many runs the slots take now.
        self._capacity = capacity
        #: How many runs are performed, or wait for a slot that is busy.
        self.running = 0
        self._backlog = Backlog()
        #: The suspect whose turn it is, waiting or performed.
        self._suspect: Taken | None = None
        self._suspect_performed = False

    def take_skipped(self) -> list[Taken]:
        """The runs that were left out by their overlap policy since this was asked before."""
        skipped, self._backlog.skipped = self._backlog.skipped, []
        return skipped

    def take_displaced(self) -> set[str]:
        """The jobs whose performed run has to make room for the next one."""
        displaced, self._backlog.displaced = self._backlog.displaced, set()
        return displaced

    def add(self, taken: Taken) -> None:
        """The run waits for its turn."""
        self._backlog.add(taken)

    def next(self, now_ms: int) -> Taken | None:
        """The run whose turn it is, from now on performed; None if none may begin."""
        while self.running < self._capacity():
            if self._suspect is not None:
                if self.running:
                    return None
                self._suspect_performed = True
                self.running += 1
                return self._suspect
            taken = self._backlog.next(now_ms)
            if taken is None:
                return None
            if not taken.past.suspicious:
                self.running += 1
                return taken
            self._suspect = taken
        return None

    def ended(self, taken: Taken) -> None:
        """The run is performed no more."""
        self.running -= 1
        self._backlog.ended(taken)
        if taken is self._suspect:
            self._suspect, self._suspect_performed = None, False

    def drop(self, shards: Collection[int]) -> None:
        """Forget what waits of shards that are given up; their next owner reads it again."""
        self._backlog.drop(shards)
        suspect = self._suspect
        if suspect is not None and not self._suspect_performed and suspect.partition in shards:
            self._suspect = None
            self._backlog.ended(suspect)
