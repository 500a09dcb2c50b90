"""Sends what a slot's run reports to the executor, while the run goes on."""

import os
import signal
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from dueline.frames import PROGRESS_INTERVAL_S, pack_progress
from dueline.registry import Run, nowhere


class ProgressSender:
    """The latest report counts; its frames are `PROGRESS_INTERVAL_S` apart at least.

    A thread sends them. So what is reported just before a long silence arrives too, and TimedOut, which may be raised at any
    point of a report, neither cuts a frame in two nor leaves a lock behind: a report takes none.
    """

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._pid = os.getpid()
        self._latest = ""
        #: Whether there is something to send, and a run to send it of.
        self._is_new = self._is_open = False
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._sending = threading.Lock()
        threading.Thread(target=self._run, name="progress", daemon=True).start()

    def begin(self, run: Run) -> None:
        with self._sending:
            self._latest, self._is_new, self._is_open = "", False, True
        run.tell = self._report

    def end(self, run: Run) -> str:
        """What the run reported last. Nothing more of it is sent, whatever threads it has left behind."""
        run.tell = nowhere
        with self._sending:
            self._is_open = False
            return self._latest

    def _report(self, text: str | None) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError("progress is reported by the process of the run, not by one that it forked")
        if text is not None:
            self._latest = text
        self._is_new = True
        if self._wake.empty():
            self._wake.put(None)

    def _run(self) -> None:
        # A timeout's signal has to interrupt whatever the main thread waits for, so no other thread may take it.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            self._wake.get()
            with self._sending:
                if self._is_new and self._is_open:
                    self._is_new = False
                    try:
                        self._send(pack_progress(self._latest))
                    except OSError:
                        return  # the executor is gone, and this process about to follow
            time.sleep(PROGRESS_INTERVAL_S)
