"""The process that performs runs: `python -m dueline.slot --fd N [--import MODULE …]`, started by an executor's guard.

The executor sends it a second socket over the first one, for what it is to perform: `dueline.frames` says what goes over which.

It lives long and performs one run after the other, since a process for each run would cost more than most runs. Of
Dueline it imports this package alone, so that nothing of the platform stands in the way of the user's modules.

    hello ──► take a run ──► perform ──► end what the run left behind ──► report ──┐
                   ▲            └──► its progress, meanwhile                        │
                   └────────────────────────────────────────────────────────────────┘

SIGTERM says that the present run's time is up: `TimedOut` is raised where the run stands, or a coroutine is cancelled where it
awaits. The guard kills what is still there 2 seconds later, and a slot in which a run timed out is not used again, since the
exception may have left things half done; so it doesn't matter if the signal comes a moment after the run's own end.

What ends between two runs is the processes. Threads, modules and globals of a function stay in its slot.
"""

import gc
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from argparse import ArgumentParser
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from types import CoroutineType, FrameType
from typing import TYPE_CHECKING, Any

from dueline import frames
from dueline.attempt import outcome_of, run_of
from dueline.capture import Capture
from dueline.errors import DuelineError, Unavailable
from dueline.log_lines import show_logging
from dueline.processes import adopt_orphans, end_descendants
from dueline.progress_sender import ProgressSender
from dueline.registry import Run, TimedOut, find, registered

if TYPE_CHECKING:
    from dueline.coroutines import CoroutineRun


#: SIGTERM's handler is set for each run.
_SIGNALS = (
    signal.SIGCHLD,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGPIPE,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


class Slot:
    """Performs the runs that arrive on a socket until it is closed."""

    def __init__(self, channel: socket.socket, runs: socket.socket, *, alone: bool) -> None:
        self._channel = channel
        self._runs = runs
        self._packet = memoryview(bytearray(frames.PACKET_LENGTH_MAX))
        #: Whether this process has a PID namespace to itself.
        self._alone = alone
        self._pid = os.getpid()
        self._folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._capture = Capture(frames.OUTPUT_LENGTH_MAX)
        #: How signals are handled that a run may handle differently.
        handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        self._handlers = {n: handler for n, handler in handlers.items() if handler is not None}
        self._blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._temporary = None if tempfile.tempdir is None else Path(tempfile.tempdir)
        self._progress = ProgressSender(channel.sendall)
        #: Whether a function is being performed, and may be interrupted.
        self._performing = False
        self._time_is_up = False
        #: What is awaited, when the function is a coroutine function.
        self._coroutine: CoroutineRun | None = None

    def serve(self) -> None:
        # A slot that was told to end takes no other run: it would be told so too.
        while not self._time_is_up and (record := self._take()) is not None:
            self._channel.sendall(frames.pack_report(self.perform(record)))

    def perform(self, record: bytes) -> frames.Report:
        """Perform the run of a ReadyRun's bytes. Whatever it does ends in a report, or with this process."""
        begun_s = time.monotonic()
        run = run_of(record, datetime.now(UTC))
        self._progress.begin(run)
        signal.signal(signal.SIGTERM, self._on_time_up)  # each time, as a run may have put its own in place
        outcome = outcome_of(run, self._call, __file__)
        if os.getpid() != self._pid:
            os._exit(1)  # the run forked, and the child came back from the function: it is not the slot
        self._set_right()
        end_descendants(alone=self._alone)
        _forget_fork_server()
        try:
            run.at_end.close()
        except Exception as error:
            outcome = outcome_of(run, partial(_fail, error), __file__)
        stdout, stderr, dropped = self._capture.end()
        return frames.Report(
            **outcome,
            exit_status=run.exit_status,
            progress=self._progress.end(run),
            stdout=stdout,
            stderr=stderr,
            bytes_dropped=dropped,
            lasting=time.monotonic() - begun_s > frames.QUICK_S,
        )

    def _call(self, run: Run) -> Any:
        function = find(run.executor_class)
        try:
            self._performing = True
            if self._time_is_up:
                raise TimedOut
            value = function(run)
            if isinstance(value, CoroutineType):
                value = self._complete(value)
        finally:
            self._performing = False
        if self._time_is_up:
            raise TimedOut  # the function swallowed it
        return value

    def _set_right(self) -> None:
        """Undo what a run did to this process, for the next."""
        for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
            signal.setitimer(timer, 0)
        for number, handler in self._handlers.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked)
        os.fchdir(self._folder)
        if self._temporary is not None and not self._temporary.is_dir():
            self._temporary.mkdir(parents=True)  # the run or the folder's keeper has removed it

    def _complete(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        from dueline.coroutines import CoroutineRun

        self._coroutine = CoroutineRun()
        try:
            return self._coroutine.complete(coroutine)
        finally:
            self._coroutine = None

    def _on_time_up(self, signum: int, frame: FrameType | None) -> None:
        self._time_is_up = True
        if self._performing and os.getpid() == self._pid:
            if self._coroutine is not None and self._coroutine.time_up():
                return
            raise TimedOut

    def _take(self) -> bytes | None:
        """The next run's record; None when the executor has closed the socket."""
        length = self._runs.recv_into(self._packet)
        if length > frames.NUMBER.size:
            return bytes(self._packet[frames.NUMBER.size : length])
        head = self._channel.recv(frames.NUMBER.size, socket.MSG_WAITALL) if length else b""
        if len(head) < frames.NUMBER.size:
            return None
        (length,) = frames.NUMBER.unpack(head)
        record = self._channel.recv(length, socket.MSG_WAITALL)
        return record if len(record) == length else None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(prog="dueline.slot", description="Performs runs. Started by an executor's guard.")
    parser.add_argument("--fd", type=int, required=True, help="a socket to the executor")
    parser.add_argument("--alone", action="store_true", help="in a PID namespace of its own")
    parser.add_argument("--temporary", help="the folder for temporary files, which is removed after the slot")
    parser.add_argument(
        "--import", dest="modules", action="append", default=[], help="registers executor classes"
    )
    options = parser.parse_args(arguments)
    os.set_inheritable(options.fd, False)
    adopt_orphans()
    tempfile.tempdir = options.temporary
    with socket.socket(fileno=options.fd) as channel, _runs_socket(channel) as runs:
        try:
            for module in ("dueline.builtin", *options.modules):
                _import(module)
        except DuelineError as error:
            channel.sendall(frames.pack_reply({"error": str(error)}))
            return
        if options.modules:
            show_logging()
        slot = Slot(channel, runs, alone=options.alone)
        gc.freeze()  # what the imports made stays: no collection need look at it again
        channel.sendall(frames.pack_reply({"classes": registered()}))
        slot.serve()


def _forget_fork_server() -> None:
    """What a run's multiprocessing had started to fork from was killed with the rest, and would be waited for in vain by the next."""
    module: Any = sys.modules.get("multiprocessing.forkserver")
    server: Any = getattr(module, "_forkserver", None)
    if getattr(server, "_forkserver_pid", None) is not None:
        with suppress(OSError):
            os.close(server._forkserver_alive_fd)
        server._forkserver_address = server._forkserver_alive_fd = server._forkserver_pid = None


def _fail(error: Exception, _run: Run) -> None:
    raise error


def _runs_socket(channel: socket.socket) -> socket.socket:
    """The socket that the executor sends first of all."""
    _, fds, _, _ = socket.recv_fds(channel, 1, 1, socket.MSG_CMSG_CLOEXEC)
    if not fds:
        sys.exit("the executor is gone")
    return socket.socket(fileno=fds[0])


def _import(module: str) -> None:
    try:
        import_module(module)
    except BaseException as error:
        where = f"it is looked for in {Path.cwd()}, PYTHONPATH and the environment of {sys.executable}"
        missing = isinstance(error, ModuleNotFoundError) and module.startswith(error.name or " ")
        why = f"there is no such module; {where}" if missing else f"it fails:\n{traceback.format_exc()}"
        raise Unavailable(f"--import {module}: {why}") from error


if __name__ == "__main__":
    main()
