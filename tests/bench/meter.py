"""What processes have used: CPU time and memory, from /proc, by what they are for the platform."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1024**2
#: What the descendants of an executor are, by a word of their command lines.
_PARTS = {b"dueline.slot": "slots", b"consumers.guard": "guard"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What each part of the platform has used up to a moment: its processes with all their descendants."""

    #: By CLOCK_BOOTTIME.
    at_s: float
    #: User and system time, that of children which have ended included.
    cpu_s: Mapping[str, float]
    #: Resident; pages that processes share are counted for each.
    memory_mb: Mapping[str, float]

    def cpu_since(self, before: "Usage", jobs: int) -> Mapping[str, Any]:
        """What was used since then, for each of so many jobs by part, and how many cores all of it kept busy."""
        used = {name: cpu_s - before.cpu_s.get(name, 0.0) for name, cpu_s in self.cpu_s.items()}
        bench_s = used.pop("bench")
        return {
            "cpu_us_per_job_total": round(sum(used.values()) * 1e6 / jobs, 1),
            "cpu_us_per_job": {name: round(cpu_s * 1e6 / jobs, 1) for name, cpu_s in used.items()},
            "cores_busy": round(sum(used.values()) / (self.at_s - before.at_s), 3),
            "cores_busy_measuring": round(bench_s / (self.at_s - before.at_s), 3),
        }


def now_s() -> float:
    """The clock that all processes of a benchmark share, and that nobody can set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall_ms_at(at_s: float) -> float:
    """What the wall clock showed then, or will show, unless somebody sets it."""
    return time.time_ns() / 1e6 + (at_s - now_s()) * 1000


def usage_of(roots: Mapping[int, str]) -> Usage:
    """What processes, named by their pids, have used; and this one, as `bench`."""
    parents, cpu, memory = _processes()
    cpu_s = dict.fromkeys(roots.values(), 0.0) | {"guard": 0.0, "slots": 0.0, "bench": 0.0}
    memory_mb = dict(cpu_s)
    for pid in parents:
        root: int | None = pid
        while root is not None and root not in roots:
            root = parents.get(root)
        if root is not None:
            name = roots[root] if root == pid else _part(pid, roots[root])
            cpu_s[name] += cpu[pid]
            memory_mb[name] += memory[pid]
    cpu_s["bench"], memory_mb["bench"] = time.process_time(), memory[os.getpid()]
    return Usage(
        at_s=now_s(), cpu_s=cpu_s, memory_mb={name: round(value, 1) for name, value in memory_mb.items()}
    )


def _processes() -> tuple[dict[int, int], dict[int, float], dict[int, float]]:
    parents, cpu, memory = {}, {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            # The program's name, in parentheses, may hold anything; behind it come the state and the parent.
            fields = (entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        pid = int(entry.name)
        parents[pid] = int(fields[1])
        cpu[pid] = sum(map(int, fields[11:15])) * _TICK_S
        memory[pid] = int(fields[21]) * _PAGE_MB
    return parents, cpu, memory


def _part(pid: int, root: str) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        words = []
    return next((part for word, part in _PARTS.items() if word in words), root)
