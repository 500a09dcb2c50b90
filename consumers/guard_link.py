"""The executor's end of the line to its guard."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from consumers.cage import Protection
from consumers.guard import PACKET_LENGTH_MAX
from dueline.errors import Unavailable

#: Takes an event of the guard's, and the socket that came with it; None when the guard is gone.
EventHandler = Callable[[dict[str, Any] | None, socket.socket | None], None]


class GuardLink:
    """Starts a guard, and takes commands to it and events from it. All in the main thread, whose end ends the guard."""

    def __init__(
        self, modules: Sequence[str], on_event: EventHandler, protection: Protection | None = None
    ) -> None:
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        argv = [sys.executable, "-m", "consumers.guard", "--fd", str(theirs.fileno())]
        argv += ["--parent", str(os.getpid()), "--folder", str(Path.cwd())]
        argv += [f"--protection={protection}"] if protection else []
        argv += [argument for module in modules for argument in ("--import", module)]
        with theirs:
            self._process = subprocess.Popen(
                argv,
                # Where our packages lie, since the folder in which the executor was started may have others of these names.
                cwd=Path(__file__).parent.parent,
                stdin=subprocess.DEVNULL,
                stdout=2,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # a ^C in the terminal is the executor's to handle
            )
        self._loop.add_reader(self._control, self._receive)

    @property
    def pid(self) -> int:
        return self._process.pid

    def spawn(self, slot: int, temporary: Path) -> None:
        self._send("spawn", slot=slot, temporary=str(temporary))

    def terminate(self, slot: int) -> None:
        self._send("terminate", slot=slot)

    def kill(self, slot: int) -> None:
        self._send("kill", slot=slot)

    def lease(self, until_s: float | None) -> None:
        """When the kernel is to kill the guard and all below it. May be called on any thread."""
        self._send("lease", until_s=until_s)

    async def close(self) -> None:
        """End the guard and all its slots; they are dead when this returns."""
        self._hang_up()
        await asyncio.to_thread(self._process.wait)

    def _send(self, verb: str, **details: str | float | None) -> None:
        if self._control.fileno() < 0:
            return  # the guard is gone, and the slot with it
        try:
            self._control.send(json.dumps({"do": verb, **details}).encode())
        except (BrokenPipeError, ConnectionResetError):
            pass  # the reader will find out
        except BlockingIOError as error:
            # The line takes hundreds of commands. Whoever holds a guard that doesn't read has to give up.
            raise Unavailable(f"the guard (pid {self.pid}) does not answer; restart the executor") from error

    def _receive(self) -> None:
        try:
            packet, fds, _, _ = socket.recv_fds(self._control, PACKET_LENGTH_MAX, 1)
        except BlockingIOError:
            return
        except ConnectionResetError:
            packet, fds = b"", []
        if packet:
            self._on_event(json.loads(packet), socket.socket(fileno=fds[0]) if fds else None)
        else:
            self._hang_up()
            self._on_event(None, None)

    def _hang_up(self) -> None:
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control)
            self._control.close()
