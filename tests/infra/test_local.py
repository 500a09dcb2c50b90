"""What local servers need, and the one sentence that says what to do where it is missing."""

import os
import shutil
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dueline.errors import Unavailable
from infra.local.checks import check_disk, check_port, find_java
from infra.local.jars import jars_of
from infra.local.servers import KafkaServer
from infra.settings import Settings


def executable(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def own_settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path / "data", cache=tmp_path / "cache", kafka_port=1, kafka_controller_port=2)


def test_no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"no Java on the PATH: install JDK 17"):
        find_java()


def test_java_home_without_a_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(Unavailable, match=f"no Java in JAVA_HOME \\({tmp_path}\\)"):
        find_java()


@pytest.mark.parametrize(
    ("answer", "is_what"), [('openjdk version "21.0.2"', "Java 21"), ("hello", "no Java that")]
)
def test_a_java_of_another_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str, is_what: str
) -> None:
    executable(tmp_path / "bin" / "java", f"echo '{answer}' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(Unavailable, match=f"is {is_what}.*set JAVA_HOME to a JDK 17"):
        find_java()


def test_the_java_of_java_home_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = executable(tmp_path / "bin" / "java", "echo 'openjdk version \"17.0.9\"' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert find_java() == java


def test_no_maven(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    pom = tmp_path / "pom.xml"
    pom.touch()
    with pytest.raises(Unavailable, match=r"no Maven \(mvn\) on the PATH.*install it"):
        jars_of("kafka", pom, tmp_path / "cache", print)


def test_a_fetch_that_fails_leaves_nothing_half(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    executable(tmp_path / "bin" / "mvn", "echo cannot reach the repository; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    pom, cache = tmp_path / "pom.xml", tmp_path / "cache"
    pom.touch()
    with pytest.raises(
        Unavailable, match=r"(?s)Maven could not fetch.*maven-kafka.log.*cannot reach the repository"
    ):
        jars_of("kafka", pom, cache, print)
    assert sorted(path.name for path in cache.iterdir()) == ["lock", "maven-kafka.log"]


def test_jars_are_fetched_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fetch = 'for part; do case "$part" in -DoutputDirectory=*) mkdir "${part#*=}" ;; esac; done'
    executable(tmp_path / "bin" / "mvn", f"{fetch}; echo fetched >> {tmp_path}/fetches")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    pom = tmp_path / "pom.xml"
    pom.touch()
    folders = {jars_of("kafka", pom, tmp_path / "cache", print) for _ in range(2)}
    pom.write_text("another version")
    folders.add(jars_of("kafka", pom, tmp_path / "cache", print))
    assert len(folders) == 2
    assert (tmp_path / "fetches").read_text().count("fetched") == 2


def test_a_port_that_is_taken_names_its_holder() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            Unavailable, match=f"port {port} .*process {os.getpid()} .*set DUELINE_KAFKA_PORT"
        ):
            check_port(port, "DUELINE_KAFKA_PORT")
    check_port(port, "DUELINE_KAFKA_PORT")


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1024**3))
    with pytest.raises(Unavailable, match=r"has 1\.0 GiB free.*need 2 GiB.*DUELINE_DATA"):
        check_disk(tmp_path / "not" / "yet" / "there")


def test_a_server_that_dies_at_its_start(own_settings: Settings) -> None:
    kafka = KafkaServer(own_settings)
    kafka.process.start([sys.executable, "-c", "print('no room')", kafka.process.marker], os.environ)
    with pytest.raises(Unavailable, match=r"(?s)Kafka died while it was starting.*logs/kafka.log.*no room"):
        kafka.wait_until_up()


def test_a_server_that_never_answers(own_settings: Settings) -> None:
    kafka = KafkaServer(own_settings)
    kafka.process.start(
        [sys.executable, "-c", "import time; time.sleep(60)", kafka.process.marker], os.environ
    )
    try:
        with pytest.raises(Unavailable, match=r"Kafka does not answer after 0 s.*logs/kafka.log"):
            kafka.wait_until_up(limit_s=0.1)
    finally:
        kafka.kill()
        kafka.stop()
    assert kafka.process.pid() is None
