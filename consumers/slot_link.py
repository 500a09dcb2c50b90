"""The executor's end of the line to one slot: its state, and what it says."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from dueline.errors import Unavailable
from dueline.frames import (
    PROGRESS_INTERVAL_S,
    BrokenFrame,
    Report,
    pack_request,
    reply_length,
    unpack_news,
    unpack_reply,
)
from dueline.runs import RunKey
from dueline.states import AttemptState

#: For the guard to report a death, from the moment in which the dead process's connection breaks.
HANG_UP_GRACE_S = 0.5


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a slot is being ended, and so how its run ends if the slot reports nothing any more."""

    state: AttemptState
    reason: str


class Owner(Protocol):
    """Who holds the slot, and is told what it can't say itself."""

    def condemn(self, slot: "SlotLink", state: AttemptState, reason: str) -> None:
        """It has to be killed."""

    def hung_up(self, slot: "SlotLink") -> None:
        """Its connection broke, and nobody has reported its death since."""

    def gone(self, slot: "SlotLink") -> None:
        """It is dead, with all that was in it."""


class SlotLink(asyncio.Protocol):
    """One slot, and the connection to it."""

    def __init__(self, pool: Owner, name: int) -> None:
        loop = asyncio.get_running_loop()
        self.name = name
        #: The classes that it has, once it is up.
        self.hello: asyncio.Future[tuple[str, ...]] = loop.create_future()
        #: The run that it performs.
        self.key: RunKey | None = None
        #: The time that it has, and when that is up, by CLOCK_BOOTTIME.
        self.timeout_ms, self.deadline_s = 0, 0.0
        #: How that ends: by a report, or None when the slot has died.
        self.end: asyncio.Future[Report | None] | None = None
        #: How far that is, as it said last; empty before.
        self.progress = ""
        #: Set when it is to end; it gets no further run then.
        self.verdict: Verdict | None = None
        #: The wait status that the guard has told; None before, and for a slot that died with its guard.
        self.status: int | None = None
        self._exited = False
        self._connected = False
        self._pool = pool
        self._heard: Callable[[str], None]
        self._began_s, self._reports = 0.0, 0
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    @property
    def idle(self) -> bool:
        return self.key is None and self.verdict is None and self._connected and self.hello.done()

    def connect(self, channel: socket.socket) -> None:
        self._connected = True
        self._connecting = asyncio.ensure_future(
            asyncio.get_running_loop().create_unix_connection(lambda: self, sock=channel)
        )

    def begin(
        self, key: RunKey, record: bytes, heard: Callable[[str], None]
    ) -> "asyncio.Future[Report | None]":
        """Hand a run over. `heard` is called with what it reports until its end: its progress, as far as that is known."""
        assert self._transport is not None
        assert self.end is None
        loop = asyncio.get_running_loop()
        self.key, self._heard = key, heard
        self.progress, self._reports, self._began_s = "", 0, loop.time()
        self.end = loop.create_future()
        self._transport.write(pack_request(record))
        return self.end

    def release(self) -> None:
        self.key = self.end = None

    def exited(self, status: int | None) -> None:
        """The guard says that it is dead. What it sent before may still be on its way."""
        self.status, self._exited = status, True
        self._check_gone()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            while (length := reply_length(self._buffer)) is not None and length <= len(self._buffer):
                reply, self._buffer = self._buffer[:length], self._buffer[length:]
                self._take(reply)
        except BrokenFrame as error:
            self._buffer.clear()
            self._pool.condemn(self, AttemptState.CRASHED, f"its process broke the protocol: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self._connected = False
        if not self._exited:
            # Most likely it is dead, and the guard is about to say how; else it gets no second chance.
            asyncio.get_running_loop().call_later(HANG_UP_GRACE_S, self._pool.hung_up, self)
        self._check_gone()

    def _take(self, reply: bytearray) -> None:
        if not self.hello.done():
            header, _, _ = unpack_reply(reply)
            if "error" in header:
                self.hello.set_exception(Unavailable(str(header["error"])))
            else:
                self.hello.set_result(tuple(header["classes"]))
            return
        if self.end is None or self.end.done():
            raise BrokenFrame("it reports a run that it doesn't have")
        news = unpack_news(reply)
        if isinstance(news, str):
            self._take_progress(news)
        elif self._buffer:
            raise BrokenFrame("it sends more than one report")
        else:
            self.end.set_result(news)

    def _take_progress(self, progress: str) -> None:
        # Counted from the begin, as any number of them may lie in the socket while our loop was busy.
        self._reports += 1
        if self._reports > 2 + (asyncio.get_running_loop().time() - self._began_s) / PROGRESS_INTERVAL_S:
            raise BrokenFrame("it reports progress too often")
        self.progress = progress or self.progress
        self._heard(self.progress)

    def _check_gone(self) -> None:
        if self._exited and not self._connected:
            if self.end is not None and not self.end.done():
                self.end.set_result(None)
            self._pool.gone(self)
