"""The executor's end of the line to one slot: its state, what it has in hand, and what it says."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, cast

from consumers.sweep import SWEEP_S
from dueline.clock import Clock
from dueline.errors import Unavailable
from dueline.frames import (
    NUMBER,
    PACKET_LENGTH_MAX,
    PROGRESS_INTERVAL_S,
    BrokenFrame,
    Report,
    pack_run,
    reply_length,
    unpack_news,
    unpack_reply,
)
from dueline.runs import ReadyRun, RunKey
from dueline.states import AttemptState

#: For the guard to report a death, from the moment in which the dead process's connection breaks.
HANG_UP_GRACE_S = 0.5
#: Numbers of runs begin anew behind this one; far more than lie in a slot's socket.
NUMBER_MAX = (1 << 32) - 1


class NotBegun(Exception):
    """No slot had room for a run, or it was taken back before its slot had taken it: nothing of it has run."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a slot is being ended, and so how its run ends if the slot reports nothing any more."""

    state: AttemptState
    reason: str


@dataclass(slots=True, eq=False, kw_only=True)
class Handed:
    """A run that was handed to a slot."""

    number: int
    key: RunKey
    timeout_ms: int
    #: Called with what it reports until its end: its progress, as far as that is known.
    heard: Callable[[str], None]
    #: How it ends: by a report, or None when the slot has died. Raises NotBegun.
    end: asyncio.Future[Report | None]
    #: Whether it may wait for others in its slot, and others for it. Else it is not taken back.
    shares: bool
    #: When it was handed over, by CLOCK_BOOTTIME.
    handed_s: float
    #: When it was its turn, as far as we know: by the wall clock, and by CLOCK_BOOTTIME. 0 before.
    begun_ms: int = 0
    begun_s: float = 0.0
    #: How far it is, as it said last; empty before.
    progress: str = ""
    reports: int = 0

    @property
    def deadline_s(self) -> float:
        return self.begun_s + self.timeout_ms / 1000


class Owner(Protocol):
    """Who holds the slot, and is told what it can't say itself."""

    def condemn(self, slot: "SlotLink", state: AttemptState, reason: str) -> None:
        """It has to be killed."""

    def ending(self, slot: "SlotLink") -> None:
        """It is dead, or its connection broke: it gets no further run."""

    def hung_up(self, slot: "SlotLink") -> None:
        """Its connection broke a while ago, and nobody has reported its death since."""

    def reported(self, slot: "SlotLink", report: Report) -> Report:
        """The run that it had has ended; how that counts."""

    def gone(self, slot: "SlotLink", *, was_busy: bool) -> None:
        """It is dead, with all that was in it, and with a run if it was busy."""


class SlotLink(asyncio.Protocol):
    """One slot, and the connection to it."""

    def __init__(self, pool: Owner, name: int, clock: Clock) -> None:
        self.name = name
        #: The classes that it has, once it is up.
        self.hello: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
        #: The run that it performs, and behind it those that wait for it.
        self.handed: deque[Handed] = deque()
        #: Whether it is kept for a run that is to be handed to it.
        self.kept = False
        #: Set when it is to end; it gets no further run then.
        self.verdict: Verdict | None = None
        #: The wait status that the guard has told; None before, and for a slot that died with its guard.
        self.status: int | None = None
        self._exited = self._gone = False
        self._connected = False
        self._pool = pool
        self._clock = clock
        self._number = 0
        # The slot's own end stays open here: by it a run is taken back.
        self._runs, self._taken = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._runs.setblocking(False)
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    @property
    def idle(self) -> bool:
        return not (self.handed or self.kept) and self._serves

    def has_room(self, depth: int) -> bool:
        """Whether a run may wait for it behind those that it has, `depth` of them at most with that."""
        if not (0 < len(self.handed) < depth and self._serves):
            return False
        first = self.handed[0]
        return first.shares and self._clock.elapsed_s() - first.begun_s < SWEEP_S

    @property
    def _serves(self) -> bool:
        return self.verdict is None and self._connected and not self._exited and self.hello.done()

    def connect(self, channel: socket.socket) -> None:
        with suppress(OSError):  # it is dead already, as we are about to hear
            socket.send_fds(channel, [b"\0"], [self._taken.fileno()])
        self._connected = True
        self._connecting = asyncio.ensure_future(
            asyncio.get_running_loop().create_unix_connection(lambda: self, sock=channel)
        )

    def hand(self, run: ReadyRun, record: bytes, heard: Callable[[str], None], *, shares: bool) -> Handed:
        """Hand a run over."""
        assert self._transport is not None
        self._number = self._number % NUMBER_MAX + 1
        handed = Handed(
            number=self._number,
            key=run.key,
            timeout_ms=run.timeout_ms,
            heard=heard,
            end=asyncio.get_running_loop().create_future(),
            shares=shares,
            handed_s=self._clock.elapsed_s(),
        )
        self.handed.append(handed)
        self._begin_first()
        packet, rest = pack_run(handed.number, record)
        with suppress(BrokenPipeError, ConnectionResetError):  # it is dead, as we are about to hear
            self._runs.send(packet)
        if rest:
            self._transport.write(rest)
        return handed

    def take_back(self) -> None:
        """Take back the runs that it has not taken yet; each of them raises NotBegun."""
        if self._taken.fileno() < 0:
            return  # it is gone, and this was done
        by_number = {handed.number: handed for handed in self.handed}
        while packet := self._next_packet():
            handed = by_number.get(NUMBER.unpack_from(packet)[0])
            if handed is None or not handed.shares:
                continue  # something in the slot has reported it before its time, or it ends with its slot
            self.handed.remove(handed)
            if not handed.end.done():
                handed.end.set_exception(NotBegun())
        self._begin_first()  # it may have taken one when the first had just come back

    def _next_packet(self) -> bytes:
        try:
            return self._taken.recv(PACKET_LENGTH_MAX, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Let go of its sockets, but for the one that the event loop has."""
        self._runs.close()
        self._taken.close()

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
        if not self.handed:
            raise BrokenFrame("it reports a run that it doesn't have")
        news = unpack_news(reply)
        if isinstance(news, str):
            self._take_progress(self.handed[0], news)
            return
        if self._buffer and len(self.handed) == 1:
            raise BrokenFrame("it sends more than one report")
        handed = self.handed.popleft()
        self._begin_first()
        report = self._pool.reported(self, news)
        if not handed.end.done():
            handed.end.set_result(report)

    def _begin_first(self) -> None:
        """It is the turn of the run that comes first, unless it has been already."""
        if self.handed and not (first := self.handed[0]).begun_ms:
            first.begun_ms, first.begun_s = self._clock.now_ms(), self._clock.elapsed_s()

    def _take_progress(self, handed: Handed, progress: str) -> None:
        # Counted from the time at which it can have begun, as any number may lie in the socket while our loop was busy.
        handed.reports += 1
        if handed.reports > 2 + (self._clock.elapsed_s() - handed.handed_s) / PROGRESS_INTERVAL_S:
            raise BrokenFrame("it reports progress too often")
        handed.progress = progress or handed.progress
        handed.heard(handed.progress)

    def _check_gone(self) -> None:
        self._pool.ending(self)
        if not self._exited or self._connected or self._gone:
            return
        self._gone = True
        self.take_back()  # what it had not taken is not lost with it
        was_busy = bool(self.handed)
        while self.handed:
            if not (end := self.handed.popleft().end).done():
                end.set_result(None)
        self.close()
        self._pool.gone(self, was_busy=was_busy)
