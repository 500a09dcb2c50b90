"""Keeps what a run prints: file descriptors 1 and 2 of its process, and of all that inherit them.

Each is a pipe. A thread reads them while the run is on, so that nobody who writes has to wait; what is left at the
run's end is read by the main thread. Up to a limit in all it is kept, beyond it counted.
"""

import fcntl
import io
import os
import select
import signal
import sys
import threading
from contextlib import suppress

_CHUNK = 1 << 16
#: The pipes' own ends lie above the low numbers that programs like to close and reuse.
_FD_MIN = 100


class Capture:
    """Takes over descriptors 1 and 2 for the rest of the process's life."""

    def __init__(self, length_max: int) -> None:
        self._length_max = length_max
        self._lock = threading.Lock()
        self._readers, self._writers = zip(_pipe(), _pipe(), strict=True)
        self._kept = {reader: bytearray() for reader in self._readers}
        self._dropped = 0
        self._texts = (_text_of(sys.stdout, 1), _text_of(sys.stderr, 2))
        self._restore()
        threading.Thread(target=self._drain, name="output", daemon=True).start()

    def end(self) -> tuple[bytes, bytes, int]:
        """Standard output, standard error and the number of bytes dropped since the last call.

        All other processes of the run must have ended, or else what they still write counts as the next run's.
        """
        present = (sys.stdout, sys.stderr)
        self._restore()  # before the flush, or what is still buffered would have nowhere to go
        for text in (*present, *self._texts):
            with suppress(Exception):  # the run may have put anything in its place
                text.flush()
        with self._lock:
            for reader in self._readers:
                while self._read(reader):
                    pass
            stdout, stderr = (bytes(kept) for kept in self._kept.values())
            dropped, self._dropped = self._dropped, 0
            for reader, kept in self._kept.items():
                if kept:
                    self._kept[reader] = bytearray()
        return stdout, stderr, dropped

    def _restore(self) -> None:
        """Set right what a run closed, redirected or replaced."""
        for fd, writer in enumerate(self._writers, start=1):
            os.dup2(writer, fd)
        if any(map(_is_closed, self._texts)):
            self._texts = (_text_of(None, 1), _text_of(None, 2))
        sys.stdout, sys.stderr = self._texts

    def _read(self, reader: int) -> bool:
        """Read what is there, a chunk at most. False if there was nothing."""
        try:
            data = os.read(reader, _CHUNK)
        except BlockingIOError:
            return False
        room = self._length_max - sum(map(len, self._kept.values()))
        self._kept[reader] += data[:room]
        self._dropped += max(0, len(data) - room)
        return True

    def _drain(self) -> None:
        # A timeout's signal has to interrupt whatever the main thread waits for, so no other thread may take it.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        poll = select.poll()
        for reader in self._readers:
            poll.register(reader, select.POLLIN)
        while True:
            # One chunk of each in turn: a stream that is written without pause must not starve the other.
            for reader, _ in poll.poll():
                with self._lock:
                    self._read(reader)


def _pipe() -> tuple[int, int]:
    low_ends = os.pipe()
    reader, writer = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FD_MIN) for fd in low_ends)
    for fd in low_ends:
        os.close(fd)
    os.set_blocking(reader, False)
    return reader, writer


def _text_of(present: object, fd: int) -> io.TextIOWrapper:
    """A stream on the descriptor that takes any text. The present one is kept if it can be: loggers may hold it."""
    if isinstance(present, io.TextIOWrapper):
        present.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=fd == 2)
        return present
    return io.TextIOWrapper(
        open(fd, "wb", closefd=False), "utf-8", "backslashreplace", line_buffering=fd == 2
    )


def _is_closed(text: io.TextIOBase) -> bool:
    try:
        return text.closed
    except ValueError:  # the run has detached its buffer
        return True
