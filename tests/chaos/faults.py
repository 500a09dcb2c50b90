"""What is done to the platform. Each fault is a value: a plan is a list of them, and a seed makes the same list again."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from consumers.lease import LEASE_S
from dueline.errors import Unavailable
from infra.local.servers import Server
from tests.chaos.field import ROLES, Field
from tests.chaos.history import FAULTS, now_ns

#: Longer than a lease and shorter than a session of the schedulers' group; and longer than both.
STOP_SHORT_S, STOP_LONG_S = 5.0, LEASE_S + 30
#: Longer than a lease, and than the session of the executors' group.
CUT_S = 10.0
#: A process that is being started is waited for: it may need a server that is away too.
UP_LIMIT_S = 120.0
#: What tells a slot that performs a run from an idle one is how often it was put to sleep meanwhile.
LOOK_S = 0.1


class CalledOff(Exception):
    """The campaign is over before the fault had its target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that is done once."""

    #: What: see `_ACTIONS`.
    kind: str
    #: To which process, or server.
    target: str
    #: To which part of the process: see `_PARTS`.
    part: str = ""
    #: How long; 0 for what is done in an instant.
    for_s: float = 0.0

    @property
    def name(self) -> str:
        """What figures are given for: the kind, the role of its target, and the part."""
        role = self.target.rstrip("-0123456789")
        return f"{self.kind} {role} {self.part}".rstrip()

    def perform(self, field: Field) -> str:
        """Do it, undo it after its time, and write it down. Blocks for as long. Returns why it failed, if it did."""
        begun_ns, trouble = now_ns(), ""

        def begin() -> None:
            nonlocal begun_ns
            begun_ns = now_ns()

        try:
            _ACTIONS[self.kind](field, self, begin)
        except CalledOff:
            return ""
        except Unavailable as error:
            trouble = f"{self.name}: {error}"
        field.history.write(
            FAULTS,
            "fault",
            kind=self.name,
            target=self.target,
            begun_ns=begun_ns,
            until_ns=now_ns(),
            trouble=trouble,
        )
        return trouble


def every_kind(choose: random.Random, *, cuts: bool) -> list[Fault]:
    """A fault of each kind for each role, and each part of an executor, that it can meet, with targets by chance."""

    def one_of(role: str) -> str:
        return f"{role}-{choose.choice((1, 2))}"

    hit = [(role, "") for role in ROLES] + [("executor", part) for part in ("guard", "slot")]
    signals = {"sigkill": 0.0, "sigterm": 0.0, "sigstop": STOP_SHORT_S, "sigstop long": STOP_LONG_S}
    faults = [
        Fault(kind=kind, target=one_of(role), part=part, for_s=for_s)
        for kind, for_s in signals.items()
        for role, part in hit
    ]
    faults += [
        Fault(kind="sigstop long", target=one_of("executor"), part=part, for_s=STOP_LONG_S)
        for part in ("with guard", "with all")
    ]
    servers = ("kafka", "cassandra")
    faults += [Fault(kind=kind, target=server) for kind in ("restart", "crash") for server in servers]
    if cuts:
        faults += [
            Fault(kind=f"cut {server}", target=f"{role}-2", for_s=CUT_S)
            for server in servers
            for role in ("executor", "scheduler")
        ]
    return faults


# -- what they do --------------------------------------------------------------------------------------------------

#: Calls the function right before it does harm: until then it may have waited for its target.
Action = Callable[[Field, Fault, Callable[[], None]], None]


def _signalled(number: signal.Signals) -> Action:
    def act(field: Field, fault: Fault, begin: Callable[[], None]) -> None:
        pids = _pids(field, fault)
        begin()
        _send(number, pids)

    return act


def _stopped(field: Field, fault: Fault, begin: Callable[[], None]) -> None:
    """Stop processes, and have them go on after the fault's time, should they still be there."""
    pids = _pids(field, fault)
    begin()
    _pause(field, pids, fault.for_s)


def _cut(server: str) -> Action:
    """A relay that is stopped is a network that has gone silent."""

    def act(field: Field, fault: Fault, begin: Callable[[], None]) -> None:
        _worker(field, fault.target)
        begin()
        _pause(field, [field.relays(fault.target)[server]], fault.for_s)

    return act


def _restart(field: Field, fault: Fault, begin: Callable[[], None]) -> None:
    with _away(field, fault.target) as server:
        begin()
        server.stop()


def _crash(field: Field, fault: Fault, begin: Callable[[], None]) -> None:
    """SIGKILL a server. Its page cache stays: this is no power cut, which one copy would not survive whole."""
    with _away(field, fault.target) as server:
        begin()
        server.kill()
        server.stop()  # returns when it is gone


_ACTIONS: Mapping[str, Action] = {
    "sigkill": _signalled(signal.SIGKILL),
    "sigterm": _signalled(signal.SIGTERM),
    "sigstop": _stopped,
    "sigstop long": _stopped,
    "restart": _restart,
    "crash": _crash,
    "cut kafka": _cut("kafka"),
    "cut cassandra": _cut("cassandra"),
}

#: A server that comes back is not sent away in the same moment.
_AWAY: Mapping[str, Lock] = {"kafka": Lock(), "cassandra": Lock()}


@contextmanager
def _away(field: Field, name: str) -> Iterator[Server]:
    server: Server = field.kafka if name == "kafka" else field.cassandra
    with _AWAY[name]:
        if field.over.is_set():
            raise CalledOff
        yield server
        server.start()
        server.wait_until_up()


# -- to whom -------------------------------------------------------------------------------------------------------


def _busy_slot(field: Field, name: str) -> list[int]:
    """The slot that performs a run, if one does."""
    slots = field.slots(name)
    before = {pid: _sleeps(pid) for pid in slots}
    field.over.wait(LOOK_S)
    return sorted(slots, key=lambda pid: before[pid] - _sleeps(pid))[:1]


def _sleeps(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0  # it ended meanwhile
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def _guard(field: Field, name: str) -> list[int]:
    return [guard] if (guard := field.guard(name)) is not None else []


_PARTS: Mapping[str, Callable[[Field, str], Sequence[int]]] = {
    "": lambda field, name: field.tree(name)[:1],
    "guard": _guard,
    "slot": _busy_slot,
    "with guard": lambda field, name: [*field.tree(name)[:1], *_guard(field, name)],
    "with all": lambda field, name: field.tree(name),
}


def _pids(field: Field, fault: Fault) -> Sequence[int]:
    """What a fault meets. It has to be there: a process that doesn't serve is waited for."""
    give_up = time.monotonic() + UP_LIMIT_S
    while True:
        _worker(field, fault.target)
        if pids := _PARTS[fault.part](field, fault.target):
            return pids
        if field.over.wait(LOOK_S):
            raise CalledOff
        if time.monotonic() > give_up:
            raise Unavailable(f"{fault.target} has no {fault.part or 'process'} after {UP_LIMIT_S:.0f} s")


def _worker(field: Field, name: str) -> int:
    give_up = time.monotonic() + UP_LIMIT_S
    while (worker := field.worker(name)) is None:
        if field.over.wait(LOOK_S):
            raise CalledOff
        if time.monotonic() > give_up:
            raise Unavailable(f"{name} does not serve after {UP_LIMIT_S:.0f} s")
    return worker


def _pause(field: Field, pids: Sequence[int], for_s: float) -> None:
    _send(signal.SIGSTOP, pids)
    try:
        field.over.wait(for_s)
    finally:
        _send(signal.SIGCONT, pids)


def _send(number: signal.Signals, pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
