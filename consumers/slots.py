"""The executor's slots: a fixed number of long-lived processes, each of which performs one run at a time.

    starting ──hello──► idle ──► busy ──report──► idle …
        │                │         │
        │                │         ├─ timeout: SIGTERM, 2 s, SIGKILL ──► TIMED_OUT
        │                │         ├─ cancel: SIGTERM, 2 s, SIGKILL ───► CANCELLED
        │                │         ├─ interrupt: SIGKILL ──────────────► INTERRUPTED
        └────────────────┴─────────┴─ ended by itself ────────────────► CRASHED
                                              each of these four: gone, replaced by a new slot

Where runs are quick, as the last ones were, some wait for a slot that is busy, in its socket (`dueline.frames`): then neither
the slot nor the executor has to be woken up for each of them. As soon as one takes longer, those that wait are taken back.
Nothing waits here but there: what finds no room, as slots have died or runs take long, waits where it can be cancelled or be
too late, and where those that are to go first can.

An attempt has ended only when nothing of it is left: with its slot's report, which the slot sends after killing what
the run left behind, or when the guard says that the slot is dead with all below it. Nothing else ends one, however
long it takes, since the next attempt may start then.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any

from consumers.cage import Protection
from consumers.guard import GRACE_S
from consumers.guard_link import GuardLink
from consumers.slot_link import Handed, NotBegun, SlotLink, Verdict
from consumers.sweep import SWEEP_S, Sweep
from consumers.temporary import TemporaryFolder, remove, remove_left_behind
from dueline.clock import Clock, SystemClock
from dueline.errors import Unavailable
from dueline.frames import PACKED_LENGTH_MAX, Report
from dueline.processes import signal_name
from dueline.runs import ReadyRun, RunKey
from dueline.states import AttemptState

log = logging.getLogger(__name__)

#: Users' modules may load models and the like when they are imported; beyond this something hangs.
START_TIMEOUT_S = 60.0
#: Pause before a replacement is started again which didn't come up: doubled when all slots have failed so, up to the maximum.
RESTART_PAUSE_S, RESTART_PAUSE_MAX_S, DOUBLINGS_MAX = 0.5, 30.0, 6
#: Where so many runs on end were quick, so many are handed to one slot at once.
QUICK_RUNS, DEPTH = 100, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Report):
    """How an attempt ended, and what it left: by its slot's report, or found out here."""

    #: When it was handed to its slot, and when it was known that nothing of it runs any more.
    started_ms: int
    ended_ms: int


class SlotPool:
    """Performs runs in slots. Used on the event loop of the main thread, since the guard dies with its thread."""

    def __init__(
        self,
        slots: int,
        imports: Sequence[str] = (),
        clock: Clock | None = None,
        #: Weaker than what the kernel allows, to try it out.
        protection: Protection | None = None,
    ) -> None:
        self._size = slots
        self._imports = tuple(imports)
        self._protection = protection
        self._clock = clock or SystemClock()
        #: Called when there is room again, since a slot has come up.
        self.room_again: Callable[[], None] = lambda: None
        self._slots: dict[int, SlotLink] = {}
        #: Those of them that get no run: they are still to come up, or are to end.
        self._off: set[SlotLink] = set()
        self._names = 0
        #: Those that were idle; the last used is the next: its memory is the warmest.
        self._idle: list[SlotLink] = []
        self._sweep = Sweep(SWEEP_S, self._look_over)
        #: How many runs on end were quick.
        self._quick_runs = 0
        self._failed_starts = 0
        self._leased_until_s: float | None = None
        self._leased = asyncio.Event()
        self._started = False
        self._closing = False

    @property
    def free(self) -> int:
        """How many runs could start at once."""
        return sum(slot.idle for slot in self._slots.values())

    @property
    def running(self) -> int:
        """How many runs are performed right now."""
        return sum(bool(slot.handed) for slot in self._slots.values())

    @property
    def capacity(self) -> int:
        """How many runs may be in its hands at once, those that wait behind others in a busy slot included."""
        on = len(self._slots) - len(self._off)
        return on * self._depth + sum(len(slot.handed) for slot in self._off)

    @property
    def _depth(self) -> int:
        return DEPTH if self._quick_runs >= QUICK_RUNS else 1

    @property
    def guard_pid(self) -> int:
        return self._guard.pid

    async def start(self) -> tuple[str, ...]:
        """Start the guard and all slots; the names of the executor classes that they have.

        Raises Unavailable if a module can't be imported; everything has been stopped again then.
        """
        loop = asyncio.get_running_loop()
        #: Done when the guard is gone and all slots with it, though nobody closed the pool: the executor has to end.
        self.lost: asyncio.Future[None] = loop.create_future()
        #: What keeps runs from leaving processes behind; the guard finds out.
        self.protection: asyncio.Future[Protection] = loop.create_future()
        # Each slot has its own folder in here for temporary files: a run that is killed can't remove its own.
        self._temporary = TemporaryFolder()
        self._guard = GuardLink(self._imports, self._on_event, self._protection)
        slots = [self._spawn() for _ in range(self._size)]
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                hellos = await asyncio.gather(*(slot.hello for slot in slots))
        except TimeoutError:
            await self.close()
            raise Unavailable(
                f"the slots did not start within {START_TIMEOUT_S:g} s; does an imported module "
                f"({', '.join(self._imports) or 'none'}) wait for something?"
            ) from None
        except Unavailable:
            await self.close()
            raise
        self._started = True
        # Nobody waits for it, not even the end of this process.
        Thread(target=remove_left_behind, name="left behind", daemon=True).start()
        log.info("%d slots are up, protected by %s", self._size, await self.protection)
        return hellos[0] if hellos else ()

    async def perform(
        self,
        run: ReadyRun,
        record: bytes,
        heard: Callable[[str], None] = lambda progress: None,
        *,
        announce: Callable[[], Awaitable[None]] | None = None,
    ) -> Outcome:
        """Perform an attempt in a slot that has room. `record` is the ReadyRun's bytes.

        Always ends in an outcome, or raises NotBegun: then nothing of it has run, and it may be asked for again when there is
        room. Nobody waits here for a slot, out of reach of cancels and of those that are to go first.
        `heard` is called when the run reports, with its progress so far.
        `announce` is awaited when it has a slot, before it begins. Such a run has its slot alone, and isn't taken back from it.

        To cancel this is to interrupt the run, but leaves nobody who knows when it has ended: use `interrupt`.
        """
        shares = announce is None and len(record) <= PACKED_LENGTH_MAX
        slot = self._take_slot(shares=shares)
        if announce is not None:
            await self._announced(slot, announce)
        handed = slot.hand(run, record, heard, shares=shares)
        self._sweep.wake()
        try:
            report = await handed.end
        except asyncio.CancelledError:
            self.condemn(slot, AttemptState.INTERRUPTED, "the executor gave it up")
            raise
        started_ms = handed.begun_ms
        ended_ms = started_ms + round((self._clock.elapsed_s() - handed.begun_s) * 1000)
        if report is None:
            state, reason, exit_status = _how_it_died(slot)
            return Outcome(
                state=state,
                started_ms=started_ms,
                ended_ms=ended_ms,
                exit_status=exit_status,
                error=reason,
                reason=reason,
                progress=handed.progress,
            )
        told = {name: getattr(report, name) for name in Report.__slots__}
        return Outcome(**told, started_ms=started_ms, ended_ms=ended_ms)

    def interrupt(self, key: RunKey, reason: str = "its executor had to give it up") -> bool:
        """Kill a run now. Its `perform` returns INTERRUPTED when nothing of it is left. False if it isn't running."""
        slot = self._slot_of(key)
        if slot is not None:
            self.condemn(slot, AttemptState.INTERRUPTED, reason)
        return slot is not None

    def cancel(self, key: RunKey, reason: str) -> bool:
        """Tell a run to end. Its `perform` returns CANCELLED when nothing of it is left. False if it isn't running."""
        slot = self._slot_of(key)
        if slot is not None and slot.verdict is None:
            self._sentence(slot, AttemptState.CANCELLED, reason)
            self._guard.terminate(slot.name)
        return slot is not None

    def lease(self, until_s: float | None) -> None:
        """When the kernel is to kill the guard and all slots, by CLOCK_BOOTTIME; None for never. On any thread."""
        self._guard.lease(until_s)

    async def leased(self, until_s: float) -> None:
        """Return when the kernel is known to do so at that time or later: what starts now doesn't outlive the lease."""
        while self._leased_until_s is None or self._leased_until_s < until_s:
            self._leased.clear()
            await self._leased.wait()

    async def close(self, drain_s: float = 0) -> None:
        """Let running runs end for `drain_s`, interrupt those that don't, and end all slots and the guard."""
        self._closing = True
        running = [handed.end for slot in self._slots.values() for handed in slot.handed]
        if running and drain_s > 0:
            await asyncio.wait(running, timeout=drain_s)
        for slot in self._slots.values():
            if slot.handed:
                self.condemn(slot, AttemptState.INTERRUPTED, "its executor stopped")
        if running:
            await asyncio.wait(running)
        await self._guard.close()
        for slot in list(self._slots.values()):
            slot.exited(None)
            slot.close()
        await asyncio.to_thread(self._temporary.remove)

    def _take_slot(self, *, shares: bool) -> SlotLink:
        """An idle slot, or one in which the run may wait for others. Raises NotBegun if there is none."""
        while self._idle:
            if (slot := self._idle.pop()).idle:
                return slot
        if self._depth > 1:
            if shares and (roomy := [slot for slot in self._slots.values() if slot.has_room(self._depth)]):
                return min(roomy, key=lambda slot: len(slot.handed))
            # More were begun than find room: a slot has a run that takes long, or is not to share.
            self._quick_runs = 0
        raise NotBegun

    async def _announced(self, slot: SlotLink, announce: Callable[[], Awaitable[None]]) -> None:
        """Keep an idle slot for a run that is announced meanwhile. Raises NotBegun if it has died."""
        slot.kept = True
        try:
            await announce()
        except BaseException:
            self._idle.append(slot)
            raise
        finally:
            slot.kept = False
        if not slot.idle:
            raise NotBegun

    def _slot_of(self, key: RunKey) -> SlotLink | None:
        """The slot that performs a run; None if none does, or that isn't known yet. A run that waits for it is taken back."""
        for slot in self._slots.values():
            for handed in slot.handed:
                if handed.key == key:
                    return slot if self._has_alone(slot, handed) else None
        return None

    def _has_alone(self, slot: SlotLink, handed: Handed) -> bool:
        """Whether a slot has this run alone, once those that wait are taken back. If not, it has just begun or ended one."""
        if len(slot.handed) > 1:
            self._take_back(slot)
        return len(slot.handed) == 1 and slot.handed[0] is handed

    def _take_back(self, slot: SlotLink) -> None:
        slot.take_back()
        if slot.idle:
            self._idle.append(slot)

    def _spawn(self) -> SlotLink:
        self._names += 1
        folder = self._folder_of(self._names)
        folder.mkdir()
        slot = self._slots[self._names] = SlotLink(self, self._names, self._clock)
        self._off.add(slot)
        slot.hello.add_done_callback(lambda hello: self._up(slot, hello))
        self._guard.spawn(slot.name, folder)
        return slot

    def _check_start(self, slot: SlotLink) -> None:
        if slot.name in self._slots and not slot.hello.done():
            self.condemn(slot, AttemptState.CRASHED, f"it was not up after {START_TIMEOUT_S:g} s")

    def _folder_of(self, name: int) -> Path:
        return self._temporary.path / str(name)

    def _up(self, slot: SlotLink, hello: "asyncio.Future[tuple[str, ...]]") -> None:
        if hello.cancelled():
            return
        if (error := hello.exception()) is None:
            self._failed_starts = 0
            if slot.idle:
                self._off.discard(slot)
                self._idle.append(slot)
                self.room_again()
            return
        self._failed_starts += 1
        if self._started:
            log.error("slot %d did not start: %s", slot.name, error)

    def reported(self, slot: SlotLink, report: Report) -> Report:
        """The run of a slot has ended; how that counts."""
        if slot.verdict is not None:
            self._guard.kill(slot.name)  # it may have been told to end in the very moment in which it had
            if slot.verdict.state is AttemptState.CANCELLED:
                report = _cancelled(report, slot.verdict.reason)
        elif report.state is AttemptState.TIMED_OUT:
            # Nobody here has sent it SIGTERM, and its time is not up: it was ended from outside, as by any other signal.
            report = replace(
                report, state=AttemptState.CRASHED, reason="its process was sent SIGTERM by somebody else"
            )
            self.condemn(slot, AttemptState.CRASHED, report.reason)
        elif slot.idle:
            self._idle.append(slot)
        self._quick_runs = 0 if report.lasting else self._quick_runs + 1
        return report

    def gone(self, slot: SlotLink, *, was_busy: bool) -> None:
        """A slot is dead, with all that was in it."""
        if self._slots.pop(slot.name, None) is None:
            return
        self._off.discard(slot)
        self._idle = [idle for idle in self._idle if idle is not slot]
        if not slot.hello.done():
            _, reason, _ = _how_it_died(slot)
            slot.hello.set_exception(Unavailable(f"a slot ended while it started: {reason}"))
        elif not was_busy and slot.verdict is None and not self._closing:
            log.warning("slot %d had no run and died: %s", slot.name, _how_it_died(slot)[1])
        if self._closing or self.lost.done():
            return
        # In a thread, since a run may leave a great many files.
        asyncio.get_running_loop().run_in_executor(None, remove, self._folder_of(slot.name))
        self._replace_later()

    def _replace_later(self) -> None:
        doublings = min(self._failed_starts // self._size, DOUBLINGS_MAX)
        pause_s = min(RESTART_PAUSE_S * 2**doublings, RESTART_PAUSE_MAX_S) if self._failed_starts else 0
        asyncio.get_running_loop().call_later(pause_s, self._replace)

    def _replace(self) -> None:
        if self._closing or self.lost.done():
            return
        try:
            slot = self._spawn()
        except OSError as error:  # no space for its folder, or no descriptor for its sockets
            log.error("no slot can be started: %s", error)
            self._failed_starts += 1
            self._replace_later()
        else:
            asyncio.get_running_loop().call_later(START_TIMEOUT_S, self._check_start, slot)

    def condemn(self, slot: SlotLink, state: AttemptState, reason: str) -> None:
        """Kill a slot; its run, if it has one and doesn't report in this moment, ends like this."""
        slot.take_back()
        self._sentence(slot, state, reason)
        self._guard.kill(slot.name)

    def _sentence(self, slot: SlotLink, state: AttemptState, reason: str) -> None:
        """A slot is to end, and so is its run unless that was said before."""
        slot.verdict = slot.verdict or Verdict(state, reason)
        if slot.name in self._slots:
            self._off.add(slot)

    def ending(self, slot: SlotLink) -> None:
        if slot.name in self._slots:
            self._off.add(slot)

    def hung_up(self, slot: SlotLink) -> None:
        if slot.name in self._slots:
            self.condemn(slot, AttemptState.CRASHED, "its process closed the connection to the executor")

    def _look_over(self) -> bool:
        """Tell runs whose time is up to end, and take back those that wait for one that goes on. Whether any run has time left."""
        now_s = self._clock.elapsed_s()
        performing = [slot for slot in self._slots.values() if slot.handed and slot.verdict is None]
        for slot in performing:
            handed = slot.handed[0]
            if len(slot.handed) > 1 and now_s - handed.begun_s > SWEEP_S:
                self._quick_runs = 0
                self._take_back(slot)
            if handed.deadline_s <= now_s and self._has_alone(slot, handed):
                seconds = handed.timeout_ms / 1000
                reason = f"timed out after {seconds:g} s, and killed as it did not end {GRACE_S:g} s later"
                self._sentence(slot, AttemptState.TIMED_OUT, reason)
                self._guard.terminate(slot.name)
        return any(slot.handed and slot.verdict is None for slot in performing)

    def _on_event(self, event: dict[str, Any] | None, channel: socket.socket | None) -> None:
        if event is None:
            self._on_guard_gone()
        elif event["event"] == "ready":
            self.protection.set_result(Protection(event["protection"]))
        elif event["event"] == "spawned":
            assert channel is not None
            self._slots[event["slot"]].connect(channel)
        elif event["event"] == "leased":
            self._leased_until_s = event["until_s"]
            self._leased.set()
        elif event["event"] == "exited":
            self._slots[event["slot"]].exited(event["status"])

    def _on_guard_gone(self) -> None:
        log.error("the guard (pid %d) is gone, and all slots with it", self._guard.pid)
        self.lost.set_result(None)
        for slot in list(self._slots.values()):
            self._sentence(slot, AttemptState.INTERRUPTED, "the guard of its executor died")
            slot.exited(None)


def _cancelled(report: Report, reason: str) -> Report:
    """What a run reports that was told to end: unless it had succeeded, however it took that."""
    if report.state is AttemptState.SUCCEEDED:
        return report
    return replace(
        report, state=AttemptState.CANCELLED, reason=reason, error=reason, final=False, retry_ms=None
    )


def _how_it_died(slot: SlotLink) -> tuple[AttemptState, str, int | None]:
    """State, reason and exit status of a run whose slot is dead and said nothing."""
    if slot.verdict is not None:
        return slot.verdict.state, slot.verdict.reason, None
    if slot.status is None:
        return AttemptState.INTERRUPTED, "its executor stopped", None
    code = os.waitstatus_to_exitcode(slot.status)
    how = f"was ended by {signal_name(-code)}" if code < 0 else f"ended by itself with exit status {code}"
    return AttemptState.CRASHED, f"its process {how}", code
