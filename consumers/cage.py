"""Starts a slot such that nothing of it can outlive it.

    guard ──► init ──► slot ──► whatever the runs start

The init waits for the slot and does nothing else. Where the kernel allows it, it is the init of a PID namespace: when
it dies, for whatever reason, the kernel kills all that is in there, whoever called setsid, forked twice or ignores
signals. Elsewhere it adopts all orphans below it and hunts them down in /proc, which a process that forks faster than
it is found could evade; `Protection` says which it is.

Both init and slot ask the kernel to be told when their parent dies, so that nothing outlives the guard either.
"""

import ctypes
import os
import signal
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dueline.processes import adopt_orphans, die_with_parent, end_descendants

_CLONE3 = 435  # the same number on every architecture
_CLONE_ARGS = struct.Struct("=11Q")
_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID = 0x20000, 0x10000000, 0x20000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_SLAVE = 2, 4, 8, 0x4000, 0x80000

# The GIL stays held over a call, as in os.fork: a child must not wake up waiting for it.
_libc = ctypes.PyDLL(None, use_errno=True)


class Protection(StrEnum):
    """What keeps a run's processes from outliving it, the strongest first."""

    NAMESPACES = "PID namespaces"
    USER_NAMESPACES = "PID namespaces of a plain user"
    SUBREAPERS = "subreapers and process groups; PID namespaces are not allowed here"

    @property
    def namespaces(self) -> bool:
        return self is not Protection.SUBREAPERS


_CLONE_FLAGS = {
    Protection.NAMESPACES: _CLONE_NEWPID | _CLONE_NEWNS,
    Protection.USER_NAMESPACES: _CLONE_NEWPID | _CLONE_NEWNS | _CLONE_NEWUSER,
    Protection.SUBREAPERS: 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caged:
    """A slot in its cage, as the guard sees it."""

    #: Of the init.
    pid: int
    #: The init writes the slot's wait status here.
    status: int
    protection: Protection

    def ask(self) -> None:
        """SIGTERM to the slot: its run's time is up."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End the slot and all below it."""
        # Without a namespace the init has to live to do the hunting.
        self._send(signal.SIGKILL if self.protection.namespaces else signal.SIGHUP)

    def reap(self) -> int:
        """Wait for the init, which has ended or is about to; the slot's wait status. All below it is dead then."""
        os.waitpid(self.pid, 0)
        status = os.read(self.status, 4)
        os.close(self.status)
        return (
            int.from_bytes(status) if status else signal.SIGKILL
        )  # an init that was killed could say nothing

    def _send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


def strongest_protection() -> Protection:
    """The best that the kernel allows to this process."""
    return next((each for each in Protection if is_allowed(each)), Protection.SUBREAPERS)


def is_allowed(protection: Protection) -> bool:
    """Whether the kernel allows it to this process. Finds out by trying."""
    try:
        caged = start(["/bin/true"], channel=os.open(os.devnull, os.O_RDONLY), protection=protection)
    except OSError:
        return False
    return caged.reap() == 0


def start(argv: Sequence[str], *, channel: int, protection: Protection) -> Caged:
    """Start a slot, which inherits the descriptor `channel` (closed here) and the standard ones, and nothing else."""
    try:
        reader, writer = os.pipe()
        try:
            pid = _clone(_CLONE_FLAGS[protection])
            if pid == 0:
                _init(argv, channel, writer, protection)
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
    finally:
        os.close(channel)
    return Caged(pid=pid, status=reader, protection=protection)


def _clone(flags: int) -> int:
    """fork with the flags of clone: 0 in the child, its pid in the parent. The process must have one thread only."""
    arguments = _CLONE_ARGS.pack(flags, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0)
    pid: int = _libc.syscall(_CLONE3, arguments, len(arguments))
    if pid < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return pid


def _init(argv: Sequence[str], channel: int, status: int, protection: Protection) -> None:
    """The life of an init. Never returns."""
    # Blocked signals wait to be taken, also those that an init without handlers would never get.
    signals = {signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        # A namespace dies with its init, whoever kills that. Elsewhere the init is to hear of the guard's end.
        die_with_parent(signal.SIGKILL if protection.namespaces else signal.SIGHUP)
        adopt_orphans()
        os.setsid()
        _close_all_but(channel, status)
        if protection is Protection.USER_NAMESPACES:
            _keep_own_ids()
        if protection.namespaces:
            _mount_own_proc()
        slot = os.fork()
        if slot == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            _become(argv, channel)
        os.close(channel)
        ended = _watch(slot, signals)
        with suppress(
            BrokenPipeError
        ):  # a guard that is dead asks no more; what the run left behind is killed all the same
            os.write(status, ended.to_bytes(4))
        end_descendants(alone=protection.namespaces)
    finally:
        os._exit(1)


def _watch(slot: int, signals: set[signal.Signals]) -> int:
    """Pass on what the guard asks, and bury the dead, until the slot has ended; its wait status."""
    while True:
        number = signal.sigwait(signals)
        if number == signal.SIGTERM:
            os.kill(slot, signal.SIGTERM)
        elif number == signal.SIGHUP:
            os.kill(slot, signal.SIGKILL)
        pid = -1
        while pid:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == slot:
                return status


def _become(argv: Sequence[str], channel: int) -> None:
    """Turn into the slot. Never returns."""
    try:
        die_with_parent()
        os.set_inheritable(channel, True)
        os.execv(argv[0], list(argv))
    finally:
        os._exit(127)


def _close_all_but(*kept: int) -> None:
    """Leave standard input, output and error, and what is named: no lock or port is to be held by a run."""
    for fd in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if fd > 2 and fd not in kept:
            with suppress(OSError):  # the one that the listing itself used
                os.close(fd)


def _keep_own_ids() -> None:
    """Be in the new user namespace who one is outside of it."""
    for file, text in (
        ("setgroups", "deny"),  # the kernel's condition for the last line
        ("uid_map", f"{_IDS[0]} {_IDS[0]} 1"),
        ("gid_map", f"{_IDS[1]} {_IDS[1]} 1"),
    ):
        Path(f"/proc/self/{file}").write_text(text)


_IDS = os.geteuid(), os.getegid()


def _mount_own_proc() -> None:
    """Let /proc show the namespace's own pids, or programs that look themselves up would find others.

    Some containers don't allow it. Then /proc shows pids that mean something else inside: a nuisance, no danger.
    """
    _libc.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None)  # what is mounted here is to stay here
    _libc.mount(b"proc", b"/proc", b"proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, None)
