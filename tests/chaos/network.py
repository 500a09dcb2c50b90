"""A process in a network of its own, from which each server can be cut off: `python -m tests.chaos.network MODULE [ARGUMENT …]`.

    namespace:  the process ──► 127.0.0.1:9092 ─┐        ┌──► 127.0.0.1:9092   outside
                                                ├ relays ┤
                            ──► 127.0.0.1:9042 ─┘        └──► 127.0.0.1:9042

The process is put into a network namespace, in which only relays listen, at the very addresses that the servers have
outside; so no client has to be told, and what Kafka advertises holds. A relay that is stopped is a network that has gone
silent: what was sent stays unanswered, and nobody is told that anybody is gone. The relays end with the process.
"""

import asyncio
import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from dueline.processes import die_with_parent
from infra.settings import Settings, load_settings

CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_CHUNK = 1 << 16


def can_be_cut() -> bool:
    """Whether this machine allows network namespaces."""
    child = os.fork()
    if child == 0:
        try:
            _enter_namespace()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def relays_of(pid: int, settings: Settings) -> dict[str, int]:
    """The pids of the relays of a process, by server."""
    found: dict[str, int] = json.loads(_file(settings, pid).read_text())
    return found


def main(arguments: Sequence[str]) -> None:
    settings = load_settings()
    servers = {"kafka": _address(settings.kafka), "cassandra": _address(settings.cassandra)}
    # The relays stay outside; the sockets on which they listen come from inside.
    lines = {name: socket.socketpair() for name in servers}
    relays = {name: _start_relay(lines[name][1], address) for name, address in servers.items()}
    _enter_namespace()
    for name, address in servers.items():
        with socket.create_server(address, backlog=128) as listening:
            socket.send_fds(lines[name][0], [b"x"], [listening.fileno()])
    file = _file(settings, os.getpid())
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(relays))
    os.execv(sys.executable, [sys.executable, "-u", "-m", *arguments])


def _file(settings: Settings, pid: int) -> Path:
    return settings.data / "run" / f"relays-{pid}.json"


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.partition(":")
    return host, int(port)


def _start_relay(line: socket.socket, address: tuple[str, int]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        die_with_parent()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _, descriptors, _, _ = socket.recv_fds(line, 1, 1)
        asyncio.run(_relay(socket.socket(fileno=descriptors[0]), address))
    finally:
        os._exit(1)


async def _relay(listening: socket.socket, address: tuple[str, int]) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*address)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(connected, sock=listening)
    await server.serve_forever()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while chunk := await source.read(_CHUNK):
            sink.write(chunk)
            await sink.drain()
    finally:
        sink.close()


def _enter_namespace() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNET) != 0:
        if libc.unshare(CLONE_NEWNET | CLONE_NEWUSER) != 0:
            raise OSError(ctypes.get_errno(), "no network namespace is allowed here")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack("16xh14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


if __name__ == "__main__":
    main(sys.argv[1:])
