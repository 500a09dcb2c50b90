"""Cuts: a process in a network of its own reaches both servers, and each can be silenced alone."""

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from infra.settings import Settings
from tests.chaos.network import can_be_cut, relays_of

pytestmark = pytest.mark.skipif(not can_be_cut(), reason="no network namespace is allowed here")


@contextmanager
def server(answer: bytes) -> Iterator[str]:
    """One that answers each word of its one client so."""

    def serve() -> None:
        with suppress(OSError):  # nobody came
            answer_all(listening.accept()[0])

    def answer_all(client: socket.socket) -> None:
        with client:
            while client.recv(64):
                client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as thread:
        thread.submit(serve)
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)  # a relay that is killed early has not come yet, and never will


@contextmanager
def messenger(settings: Settings) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "tests.chaos.network", "tests.chaos.messenger"]
    environment = {**os.environ, **settings.environment()}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert heard(process) == "connected"
            yield process
        finally:
            process.kill()


def test_a_cut_silences_one_server_until_it_is_healed(tmp_path: Path) -> None:
    with server(b"one") as kafka, server(b"two") as cassandra:
        settings = Settings(data=tmp_path, kafka=kafka, cassandra=cassandra)
        with messenger(settings) as process:
            relays = relays_of(process.pid, settings)
            for cut, other, answer, others in (
                ("kafka", "cassandra", "one", "two"),
                ("cassandra", "kafka", "two", "one"),
            ):
                os.kill(relays[cut], signal.SIGSTOP)
                ask(process, cut)
                ask(process, other)
                assert heard(process) == f"{other} {others}"  # it was asked later, and answered first
                os.kill(relays[cut], signal.SIGCONT)
                assert heard(process) == f"{cut} {answer}"


def test_relays_end_with_their_process(tmp_path: Path) -> None:
    with server(b"one") as kafka, server(b"two") as cassandra:
        settings = Settings(data=tmp_path, kafka=kafka, cassandra=cassandra)
        with messenger(settings) as process:
            handles = [os.pidfd_open(pid) for pid in relays_of(process.pid, settings).values()]
            process.kill()
            for handle in handles:
                select.select([handle], [], [])  # readable when it has ended
                os.close(handle)


def ask(process: "subprocess.Popen[str]", name: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{name}\n")
    process.stdin.flush()


def heard(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
