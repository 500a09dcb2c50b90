"""Tells the log of the runs that go on: that one has started, unless it ends soon, and how far it says that it is."""

from collections.abc import Callable
from functools import partial

from consumers.backlog import Taken
from consumers.reporter import Reporter
from consumers.sweep import SWEEP_S, Sweep
from dueline.clock import Clock
from dueline.runs import RunKey

#: A run that ends sooner is reported by its end alone.
STARTED_AFTER_S = 0.25
#: Between two events of a run's progress: what a run has to do again, at most, of which the executor is lost.
PROGRESS_TOLD_S = 5.0


class Bulletin:
    """The runs that are performed, as far as there is something to tell of them. On the event loop."""

    def __init__(self, reporter: Reporter, clock: Clock, progress_told_s: float = PROGRESS_TOLD_S) -> None:
        self._reporter = reporter
        self._clock = clock
        #: Runs whose start was not told, with when it was and when it is to be told, by CLOCK_BOOTTIME.
        self._untold: dict[RunKey, tuple[Taken, int, float]] = {}
        self._starts = Sweep(SWEEP_S, self._tell_starts)
        #: Runs that have reported since they were told of, with when they began and how far they are.
        self._reported: dict[RunKey, tuple[Taken, int, str]] = {}
        self._progress = Sweep(progress_told_s, self._tell_progress)

    def begin(self, taken: Taken, started_ms: int) -> Callable[[str], None]:
        """A run is in the slots' hands from now on. What is returned is to be called with what it reports until its end."""
        if not taken.announced:
            self._untold[taken.run.key] = taken, started_ms, self._clock.elapsed_s() + STARTED_AFTER_S
            self._starts.wake()
        return partial(self._report, taken, started_ms)

    def end(self, taken: Taken) -> None:
        """It is performed no more, and its end will be told."""
        self._untold.pop(taken.run.key, None)
        self._reported.pop(taken.run.key, None)

    def _report(self, taken: Taken, started_ms: int, progress: str) -> None:
        self._reported[taken.run.key] = taken, started_ms, progress
        self._progress.wake()

    def _tell_starts(self) -> bool:
        """Tell of the runs that go on. Whether there are more that may."""
        now_s = self._clock.elapsed_s()
        for key, (taken, started_ms, tell_s) in list(self._untold.items()):
            if tell_s <= now_s:
                del self._untold[key]
                self._reporter.started(taken, started_ms)
        return bool(self._untold)

    def _tell_progress(self) -> bool:
        """Tell how far runs are, but of none whose start was not told: that would take its progress back. Whether any is left."""
        now_ms = self._clock.now_ms()
        for key, (taken, started_ms, progress) in list(self._reported.items()):
            if key not in self._untold:
                del self._reported[key]
                self._reporter.reported(taken, started_ms, now_ms, progress)
        return bool(self._reported)
