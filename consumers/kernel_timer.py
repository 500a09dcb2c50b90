"""A timer in the kernel that kills this process at a set time, whatever state it is in then.

`timer_create(CLOCK_BOOTTIME)` with SIGKILL: the kernel sends the signal itself, so it also ends a process that was
stopped by SIGSTOP, hangs, or was swapped out, and the clock goes on while the machine sleeps. The time is an instant and
no duration: a command that its receiver reads late must not lengthen what it says. A timer is not inherited by children.
"""

import ctypes
import os
import signal
import time

_SIGEV_SIGNAL = 0
_TIMER_ABSTIME = 1
_NS = 10**9


class _SignalEvent(ctypes.Structure):
    """`struct sigevent`, 64 bytes."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("padding", ctypes.c_char * 48),
    )


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    """`struct itimerspec`; an interval of zero fires once, a value of zero disarms."""

    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class KillTimer:
    """SIGKILL to this process at the time set last. Raises OSError where the kernel doesn't allow it."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = ctypes.c_void_p()
        event = _SignalEvent(signo=signal.SIGKILL, notify=_SIGEV_SIGNAL)
        clock = ctypes.c_int(time.CLOCK_BOOTTIME)
        self._check(self._libc.timer_create(clock, ctypes.byref(event), ctypes.byref(self._timer)))

    def set(self, until_s: float | None) -> None:
        """The end by CLOCK_BOOTTIME, in the place of the one before; None for none. A past one is now."""
        nanoseconds = 0 if until_s is None else max(1, round(until_s * _NS))
        spec = _TimerSpec(value=_Timespec(*divmod(nanoseconds, _NS)))
        self._check(
            self._libc.timer_settime(self._timer, ctypes.c_int(_TIMER_ABSTIME), ctypes.byref(spec), None)
        )

    def _check(self, result: int) -> None:
        if result:
            errno = ctypes.get_errno()
            raise OSError(errno, os.strerror(errno))
