"""The guard: the small process that holds an executor's slots, `python -m consumers.guard`.

    executor ──► guard ──► (for each slot, see `consumers.cage`) init ──► slot

It exists because of what an executor is not: an executor has threads (of librdkafka), so it can't fork safely; it may
hang or be stopped, and its slots must be dealt with all the same. The guard has one thread, imports next to nothing
and does only this:

- `spawn` starts a slot and passes its socket to the executor, then lets it alone;
- `terminate` sends it SIGTERM, and kills it if it is still there 2 seconds later;
- `kill` kills it, with all below it;
- when a slot has ended, for whatever reason, and nothing of it is left, it says so;
- `lease` sets the time at which the kernel kills the guard, and so all below it, unless a later one comes first; the
  guard answers, because nothing may start that isn't under it (see `consumers.lease`);
- when the executor ends, for whatever reason, the guard ends, and the kernel sees to it that the slots do: that
  is the one thing that never depends on anybody's good will.

Commands and events are JSON objects in packets over a socket pair, in the order in which things happened.
"""

import json
import os
import selectors
import signal
import socket
import sys
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from consumers.cage import Caged, Protection, start, strongest_protection
from consumers.kernel_timer import KillTimer
from dueline.processes import die_with_parent

#: What a run gets to clean up at its timeout, between SIGTERM and SIGKILL.
GRACE_S = 2.0
#: Packets are an order of magnitude smaller.
PACKET_LENGTH_MAX = 4096


class Guard:
    """Obeys the commands that come over `control` until that is closed."""

    def __init__(self, control: socket.socket, modules: Sequence[str], protection: Protection) -> None:
        self._control = control
        self._modules = modules
        self._protection = protection
        self._slots: dict[int, Caged] = {}
        #: When a slot that was asked to end is killed, by CLOCK_MONOTONIC.
        self._deadlines: dict[int, float] = {}
        self._selector = selectors.DefaultSelector()
        self._timer = KillTimer()

    def serve(self) -> None:
        self._selector.register(self._control, selectors.EVENT_READ)
        self._tell({"event": "ready", "protection": self._protection})
        while True:
            for key, _ in self._selector.select(self._patience_s()):
                if key.fileobj is not self._control:
                    self._bury(key.fd, key.data)
                elif packet := self._control.recv(PACKET_LENGTH_MAX):
                    self._obey(json.loads(packet))
                else:
                    return
            self._kill_overdue()

    def end_all(self) -> None:
        for caged in self._slots.values():
            caged.kill()
        for caged in self._slots.values():
            caged.reap()

    def _obey(self, command: dict[str, Any]) -> None:
        if command["do"] == "lease":
            self._timer.set(command["until_s"])
            self._tell({"event": "leased", "until_s": command["until_s"]})
            return
        name = command["slot"]
        match command["do"]:
            case "spawn":
                self._spawn(name, command["temporary"])
            case "terminate" if name in self._slots:
                self._slots[name].ask()
                self._deadlines[name] = time.monotonic() + GRACE_S
            case "kill" if name in self._slots:
                self._slots[name].kill()

    def _spawn(self, name: int, temporary: str) -> None:
        try:
            ours, caged, pidfd = self._start(temporary)
        except OSError as error:
            # No more processes or descriptors, most likely; the executor tries again later.
            print(f"can't start a slot: {error}", file=sys.stderr)
            self._tell({"event": "exited", "slot": name, "status": os.EX_OSERR << 8})
            return
        with ours:
            self._slots[name] = caged
            self._selector.register(pidfd, selectors.EVENT_READ, name)
            self._tell({"event": "spawned", "slot": name, "pid": caged.pid}, ours)

    def _start(self, temporary: str) -> tuple[socket.socket, Caged, int]:
        """A new slot: the executor's end of its channel, and what to see its end by. Raises OSError, with nothing left open."""
        ours, theirs = socket.socketpair()
        channel = theirs.detach()
        argv = [sys.executable, "-m", "dueline.slot", "--fd", str(channel), "--temporary", temporary]
        argv += ["--alone"] if self._protection.namespaces else []
        argv += [argument for module in self._modules for argument in ("--import", module)]
        try:
            caged = start(argv, channel=channel, protection=self._protection)
            try:
                return ours, caged, os.pidfd_open(caged.pid)
            except OSError:
                caged.kill()
                caged.reap()
                raise
        except OSError:
            ours.close()
            raise

    def _bury(self, pidfd: int, name: int) -> None:
        self._selector.unregister(pidfd)
        os.close(pidfd)
        self._deadlines.pop(name, None)
        self._tell({"event": "exited", "slot": name, "status": self._slots.pop(name).reap()})

    def _patience_s(self) -> float | None:
        if not self._deadlines:
            return None
        return max(0.0, min(self._deadlines.values()) - time.monotonic())

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for name in [name for name, deadline in self._deadlines.items() if deadline <= now]:
            del self._deadlines[name]
            self._slots[name].kill()

    def _tell(self, event: dict[str, Any], *attached: socket.socket) -> None:
        socket.send_fds(self._control, [json.dumps(event).encode()], [each.fileno() for each in attached])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(prog="consumers.guard", description="Holds an executor's slots. Started by it.")
    parser.add_argument("--fd", type=int, required=True, help="a socket to the executor")
    parser.add_argument("--parent", type=int, required=True, help="the executor's pid")
    parser.add_argument("--folder", required=True, help="where the slots start")
    parser.add_argument(
        "--protection", type=Protection, help="weaker than what the kernel allows, to try it out"
    )
    parser.add_argument("--import", dest="modules", action="append", default=[], help="for the slots")
    options = parser.parse_args(arguments)
    die_with_parent()
    if os.getppid() != options.parent:
        return  # it died before the line above
    # Whoever stops a whole group of processes means the executor, which ends its runs in order and then the guard.
    # A handler that does nothing, since what is ignored here would be ignored in the slots.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    os.chdir(options.folder)
    os.set_inheritable(options.fd, False)
    with socket.socket(fileno=options.fd) as control:
        guard = Guard(control, options.modules, options.protection or strongest_protection())
        try:
            guard.serve()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the executor ended while it was being told something
        finally:
            guard.end_all()


if __name__ == "__main__":
    main()
