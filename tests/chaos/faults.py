"""What is done to the platform. Each fault is a value: a plan is a list of them, and a seed makes the same list again."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock

from consumers.lease import LEASE_S
from infra.local.servers import Server
from tests.chaos.field import ROLES, Field
from tests.chaos.history import FAULTS, now_ns

#: Shorter than any session or lease lets a process lose what it owns, and longer than both.
STOP_SHORT_S, STOP_LONG_S = 5.0, LEASE_S + 30
#: Longer than a lease, and than the session of a group.
CUT_S = 10.0
#: A process that is being started is waited for.
UP_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that is done once."""

    #: What: see `_ACTIONS`.
    kind: str
    #: To which process, or server.
    target: str
    #: How long; 0 for what is done in an instant.
    for_s: float = 0.0

    @property
    def name(self) -> str:
        """What figures are given for: the kind, and of which role its target is."""
        return f"{self.kind} {self.target.rstrip('-0123456789')}"

    def perform(self, field: Field) -> None:
        """Do it, undo it after its time, and write it down. Blocks for as long."""
        begun_ns = now_ns()
        _ACTIONS[self.kind](field, self)
        field.history.write(
            FAULTS, "fault", kind=self.name, target=self.target, begun_ns=begun_ns, until_ns=now_ns()
        )


def every_kind(choose: random.Random, *, cuts: bool) -> list[Fault]:
    """A fault of each kind for each role that it can meet, with targets by chance."""

    def one_of(role: str) -> str:
        return f"{role}-{choose.choice((1, 2))}"

    faults = [Fault(kind=kind, target=one_of(role)) for kind in ("sigkill", "sigterm") for role in ROLES]
    faults += [Fault(kind="sigstop", target=one_of(role), for_s=STOP_SHORT_S) for role in ROLES]
    faults += [Fault(kind="sigstop long", target=one_of(role), for_s=STOP_LONG_S) for role in ROLES]
    faults += [
        Fault(kind=kind, target=one_of("executor"))
        for kind in ("sigkill guard", "sigkill slot", "sigterm slot")
    ]
    faults += [Fault(kind="sigstop guard long", target=one_of("executor"), for_s=STOP_LONG_S)]
    faults += [Fault(kind="sigstop tree long", target=one_of("executor"), for_s=STOP_LONG_S)]
    faults += [
        Fault(kind=kind, target=server) for kind in ("restart", "crash") for server in ("kafka", "cassandra")
    ]
    if cuts:
        faults += [
            Fault(kind="cut kafka", target=f"{role}-2", for_s=CUT_S) for role in ("executor", "scheduler")
        ]
        faults += [Fault(kind="cut cassandra", target="scheduler-2", for_s=CUT_S)]
    return faults


# -- what they do --------------------------------------------------------------------------------------------------


def _sigkill(field: Field, fault: Fault) -> None:
    _send(signal.SIGKILL, [_worker(field, fault.target)])


def _sigterm(field: Field, fault: Fault) -> None:
    _send(signal.SIGTERM, [_worker(field, fault.target)])


def _sigkill_guard(field: Field, fault: Fault) -> None:
    _worker(field, fault.target)
    _send(signal.SIGKILL, [pid for pid in [field.guard(fault.target)] if pid is not None])


def _to_slot(number: signal.Signals) -> Callable[[Field, Fault], None]:
    def act(field: Field, fault: Fault) -> None:
        _worker(field, fault.target)
        _send(number, field.slots(fault.target)[:1])

    return act


def _stopped(pids: Callable[[Field, str], Sequence[int]]) -> Callable[[Field, Fault], None]:
    """Stop processes, and have them go on after the fault's time, should they still be there."""

    def act(field: Field, fault: Fault) -> None:
        _worker(field, fault.target)
        stopped = pids(field, fault.target)
        _send(signal.SIGSTOP, stopped)
        time.sleep(fault.for_s)
        _send(signal.SIGCONT, stopped)

    return act


def _cut(server: str) -> Callable[[Field, Fault], None]:
    def act(field: Field, fault: Fault) -> None:
        _worker(field, fault.target)
        relays = [field.relays(fault.target)[server]]
        _send(signal.SIGSTOP, relays)
        time.sleep(fault.for_s)
        _send(signal.SIGCONT, relays)

    return act


#: A server that comes back is not sent away in the same moment.
_AWAY: Mapping[str, Lock] = {"kafka": Lock(), "cassandra": Lock()}


def _restart(field: Field, fault: Fault) -> None:
    with _away(field, fault.target) as server:
        server.stop()


def _crash(field: Field, fault: Fault) -> None:
    """SIGKILL a server. Its page cache stays: this is no power cut, which one copy would not survive whole."""
    with _away(field, fault.target) as server:
        server.kill()
        server.stop()  # returns when it is gone


class _away:
    def __init__(self, field: Field, name: str) -> None:
        self._server: Server = field.kafka if name == "kafka" else field.cassandra
        self._lock = _AWAY[name]

    def __enter__(self) -> Server:
        self._lock.acquire()
        return self._server

    def __exit__(self, *_: object) -> None:
        try:
            self._server.start()
            self._server.wait_until_up()
        finally:
            self._lock.release()


_ACTIONS: Mapping[str, Callable[[Field, Fault], None]] = {
    "sigkill": _sigkill,
    "sigterm": _sigterm,
    "sigkill guard": _sigkill_guard,
    "sigkill slot": _to_slot(signal.SIGKILL),
    "sigterm slot": _to_slot(signal.SIGTERM),
    "sigstop": _stopped(lambda field, name: field.tree(name)[:1]),
    "sigstop long": _stopped(lambda field, name: field.tree(name)[:1]),
    "sigstop guard long": _stopped(lambda field, name: list(_with_guard(field, name))),
    "sigstop tree long": _stopped(lambda field, name: field.tree(name)),
    "restart": _restart,
    "crash": _crash,
    "cut kafka": _cut("kafka"),
    "cut cassandra": _cut("cassandra"),
}


def _with_guard(field: Field, name: str) -> Iterator[int]:
    yield from field.tree(name)[:1]
    if (guard := field.guard(name)) is not None:
        yield guard


def _worker(field: Field, name: str) -> int:
    """The pid of a process that serves; one that doesn't is waited for."""
    field.processes[name].wait_until_up(UP_LIMIT_S)
    worker = field.worker(name)
    return worker if worker is not None else _worker(field, name)


def _send(number: signal.Signals, pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
