"""Whose turn it is at this executor: hands waiting runs out to its slots, and sees to it that a suspect has nothing beside it."""

from collections.abc import Collection

from consumers.backlog import Backlog, Taken


class Turns:
    """The backlog, and how many slots are free for it.

    A suspect (`consumers.findings`) whose turn has come waits until all slots are free, and then has them all: meanwhile
    nothing else begins. That costs the others up to the timeout of what runs and of the suspect, at most five times a run.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._free = slots
        self._backlog = Backlog()
        #: The suspect whose turn it is, waiting or performed.
        self._suspect: Taken | None = None
        self._suspect_performed = False

    @property
    def running(self) -> int:
        """How many runs are performed."""
        return self._slots - self._free

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
        while self._free:
            if self._suspect is not None:
                if self._suspect_performed or self._free < self._slots:
                    return None
                self._suspect_performed = True
                self._free -= 1
                return self._suspect
            taken = self._backlog.next(now_ms)
            if taken is None:
                return None
            if not taken.past.suspicious:
                self._free -= 1
                return taken
            self._suspect = taken
        return None

    def ended(self, taken: Taken) -> None:
        """The run is performed no more."""
        self._free += 1
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
