"""What the machine must have before a server starts, and one sentence that says what to do for each that it lacks."""

import os
import random
import re
import shutil
import socket
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path

from dueline.errors import Unavailable

JAVA_VERSION = 17
"""The one version that both Kafka 4.3 and Cassandra 5.0 support."""

FREE_BYTES_MIN = 2 * 1024**3
"""Cassandra's commit log may grow to 1 GiB before it flushes; below twice that a start would only fail later."""


def find_java() -> Path:
    """The `java` to start servers with: that of JAVA_HOME, else the one on the PATH."""
    home = os.environ.get("JAVA_HOME")
    found = Path(home, "bin", "java") if home else Path(shutil.which("java") or "")
    if not os.access(found, os.X_OK) or not found.is_file():
        where = f"in JAVA_HOME ({home})" if home else "on the PATH"
        raise Unavailable(
            f"there is no Java {where}: install JDK {JAVA_VERSION} (on Debian and Ubuntu: apt install "
            f"openjdk-{JAVA_VERSION}-jdk-headless) or set JAVA_HOME to one"
        )
    answer = subprocess.run([found, "-version"], capture_output=True, text=True, timeout=30)
    version = re.search(r'version "(\d+)', answer.stderr)
    if version is None or int(version[1]) != JAVA_VERSION:
        is_what = f"Java {version[1]}" if version else "no Java that tells its version"
        raise Unavailable(
            f"{found} is {is_what}, and Cassandra 5.0 needs JDK {JAVA_VERSION}: set JAVA_HOME to a JDK {JAVA_VERSION}"
        )
    return found


def find_maven() -> Path:
    """The `mvn` that fetches the servers' jars."""
    found = shutil.which("mvn")
    if found is None:
        raise Unavailable(
            "there is no Maven (mvn) on the PATH, which fetches Kafka and Cassandra: install it "
            "(on Debian and Ubuntu: apt install maven)"
        )
    return Path(found)


def check_disk(folder: Path) -> None:
    """Refuse to start on a disk that is nearly full."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < FREE_BYTES_MIN:
        raise Unavailable(
            f"the disk of {folder} has {free / 1024**3:.1f} GiB free, and Kafka and Cassandra need "
            f"{FREE_BYTES_MIN // 1024**3} GiB: free some space, or set DUELINE_DATA to a folder on another disk"
        )


def check_port(port: int, setting: str) -> None:
    """Refuse to start where somebody else listens."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            holder = port_holder(port)
            raise Unavailable(
                f"port {port} cannot be used ({f'process {holder} has it' if holder else error.strerror}): "
                f"stop that, or set {setting} to a free port"
            ) from None


def port_holder(port: int) -> str | None:
    """The process that listens on a port, as `pid (name)`, where the system lets us see it."""
    inode = _listening_inode(port)
    for descriptor in Path("/proc").glob("[0-9]*/fd/*") if inode else ():
        try:
            if str(descriptor.readlink()) == f"socket:[{inode}]":
                process = descriptor.parent.parent
                return f"{process.name} ({(process / 'comm').read_text().strip()})"
        except OSError:
            continue  # it has ended since, or belongs to somebody else
    return None


def _listening_inode(port: int) -> str | None:
    listen = "0A"  # the state's number in /proc/net/tcp
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            fields = line.split()
            if fields[3] == listen and int(fields[1].rpartition(":")[2], 16) == port:
                return fields[9]
    return None


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now, all different.

    They lie below those that the system gives to outgoing connections, so that a server which is down for a moment
    finds its port free when it comes back.
    """
    with ExitStack() as held:
        return [_hold_free_port(held) for _ in range(count)]


def _hold_free_port(held: ExitStack) -> int:
    while True:
        port = random.randrange(20_000, 32_000)
        with suppress(OSError):
            held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return port
