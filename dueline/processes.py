"""What Linux offers to make sure that nothing of a run outlives it, as far as the standard library leaves it out."""

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(by: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send `by` to this process when the *thread* that forked it ends."""
    _prctl(_PR_SET_PDEATHSIG, by)


def adopt_orphans() -> None:
    """Make descendants whose parent ends children of this process, so that it can find and reap them all."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


@contextmanager
def timer_slack(slack_ns: int) -> Iterator[None]:
    """Let timers fire later by up to `slack_ns`, in this thread and in all that it starts meanwhile; 0 changes nothing."""
    _prctl(_PR_SET_TIMERSLACK, slack_ns)
    try:
        yield
    finally:
        _prctl(_PR_SET_TIMERSLACK, 0)  # what the thread began with


def end_descendants(*, alone: bool) -> None:
    """Kill and reap all descendants of this process, which must have called `adopt_orphans`.

    `alone` says that this process is the only one of its PID namespace which is to live, beside the namespace's
    init: then one call kills all others. Elsewhere they are looked up in /proc, again and again until none is left.
    """
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return  # an adopter without children has no descendants
        if alone:
            with suppress(ProcessLookupError):  # a thread of the run may have reaped its last child meanwhile
                os.kill(-1, signal.SIGKILL)
        else:
            for pid in descendants(os.getpid()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):  # a thread of the run may wait for the same child, and be quicker
            os.waitpid(-1, 0)


def descendants(of: int) -> list[int]:
    """The pids below a process, as /proc shows them now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text("utf-8", "replace")
            except OSError:
                continue  # it ended meanwhile
            # The program's name, in parentheses, may hold anything; behind it come the state and the parent.
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    unseen = [of]
    while unseen:
        below = children.get(unseen.pop(), [])
        found += below
        unseen += below
    return found


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # a real-time one


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
