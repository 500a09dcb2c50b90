"""The executor's end of the line to one slot: its state, and what it says."""

import asyncio
import socket
from dataclasses import dataclass
from typing import Protocol, cast

from dueline.errors import Unavailable
from dueline.frames import BrokenFrame, Report, pack_request, reply_length, unpack_reply, unpack_report
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
        #: Set when it is to end; it gets no further run then.
        self.verdict: Verdict | None = None
        #: The wait status that the guard has told; None before, and for a slot that died with its guard.
        self.status: int | None = None
        self._exited = False
        self._connected = False
        self._pool = pool
        self._buffer = bytearray()
        self._reply_length: int | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def idle(self) -> bool:
        return self.key is None and self.verdict is None and self._connected and self.hello.done()

    def connect(self, channel: socket.socket) -> None:
        self._connected = True
        self._connecting = asyncio.ensure_future(
            asyncio.get_running_loop().create_unix_connection(lambda: self, sock=channel)
        )

    def begin(self, key: RunKey, record: bytes) -> "asyncio.Future[Report | None]":
        assert self._transport is not None
        assert self.end is None
        self.key = key
        self.end = asyncio.get_running_loop().create_future()
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
            if self._reply_length is None:
                self._reply_length = reply_length(self._buffer)
            if self._reply_length is None or len(self._buffer) < self._reply_length:
                return
            if len(self._buffer) > self._reply_length:
                raise BrokenFrame("it sends more than one reply")
            self._take(bytes(self._buffer))
        except BrokenFrame as error:
            self._pool.condemn(self, AttemptState.CRASHED, f"its process broke the protocol: {error}")
        self._buffer.clear()
        self._reply_length = None

    def connection_lost(self, error: Exception | None) -> None:
        self._connected = False
        if not self._exited:
            # Most likely it is dead, and the guard is about to say how; else it gets no second chance.
            asyncio.get_running_loop().call_later(HANG_UP_GRACE_S, self._pool.hung_up, self)
        self._check_gone()

    def _take(self, reply: bytes) -> None:
        if not self.hello.done():
            header, _, _ = unpack_reply(reply)
            if "error" in header:
                self.hello.set_exception(Unavailable(str(header["error"])))
            else:
                self.hello.set_result(tuple(header["classes"]))
        elif self.end is not None and not self.end.done():
            self.end.set_result(unpack_report(reply))
        else:
            raise BrokenFrame("it reports a run that it doesn't have")

    def _check_gone(self) -> None:
        if self._exited and not self._connected:
            if self.end is not None and not self.end.done():
                self.end.set_result(None)
            self._pool.gone(self)
