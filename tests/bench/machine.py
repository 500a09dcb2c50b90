"""The first line of results: what they hold for."""

import os
import platform
import re
import subprocess
import timeit
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dueline.codec import decode_ready_run, encode_ready_run
from dueline.job import Job
from dueline.runs import ReadyRun
from infra.local.checks import find_java
from infra.settings import load_settings

ROOT = Path(__file__).parents[2]
PACKAGES = ("confluent-kafka", "aiokafka", "faust-streaming", "cassandra-driver", "fastavro", "uvloop")


def machine_line(*, seed: int, rounds: int, quick: bool) -> Mapping[str, Any]:
    settings = load_settings()
    return {
        "bench": "machine",
        "commit": _commit(),
        "seed": seed,
        "rounds": rounds,
        "quick": quick,
        "cores": os.cpu_count(),
        "processor": _found(r"model name\s*: (.*)", Path("/proc/cpuinfo")),
        "memory_mb": int(_found(r"MemTotal:\s+(\d+)", Path("/proc/meminfo"))) // 1024,
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "codec_us": _codec_us(),
        "java": _java(),
        "packages": {name: version(name) for name in PACKAGES},
        "kafka": {
            "version": _jar("kafka", "kafka_2.13"),
            "heap": settings.kafka_heap,
            "durability": "acks=all on one replica: in the page cache when it is acknowledged, not yet synced",
        },
        "cassandra": {
            "version": _jar("cassandra", "cassandra-all"),
            "heap": settings.cassandra_heap,
            "durability": "commitlog_sync: group, "
            + _found(r"commitlog_sync_group_window: (\S+)", ROOT / "infra/local/cassandra/cassandra.yaml")
            + ": synced before it is acknowledged; one replica",
        },
        "outputs": "synced before their events are sent",
        "replication": settings.replication,
    }


def _commit() -> str:
    """With a mark where files differ from it; empty outside of a repository."""
    told = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--abbrev=12", "--dirty=+changes"],
        capture_output=True,
        text=True,
    )
    return told.stdout.strip()


def _codec_us() -> float:
    """What it takes to encode a ready run and decode it again, at best: how fast this Python is, here and today.

    Two builds of one version differ by a third, and a shared machine from one day to the next by half.
    """
    run = ReadyRun.of(Job(id="a-job", executor_class="noop"), due_ms=0, emit_ms=0, version=0)
    times_s = timeit.repeat(lambda: decode_ready_run(encode_ready_run(run)), number=1000, repeat=20)
    return round(min(times_s) * 1000, 1)


def _java() -> str:
    told = subprocess.run([find_java(), "-version"], capture_output=True, text=True, timeout=30)
    return (told.stderr.splitlines() or [""])[0]


def _jar(server: str, artifact: str) -> str:
    pom = ROOT / "infra" / "local" / server / "pom.xml"
    return _found(rf"<artifactId>{re.escape(artifact)}</artifactId>\s*<version>([^<]+)", pom)


def _found(pattern: str, path: Path) -> str:
    found = re.search(pattern, path.read_text())
    return found[1].strip() if found else ""
