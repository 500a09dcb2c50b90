"""The servers' jars, fetched once by Maven into a cache that all data folders and the tests share."""

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from dueline.errors import Unavailable
from infra.local.background import last_lines
from infra.local.checks import find_maven

LIMIT_S = 600
"""About 60 MB a server: ten seconds on a good line, and still enough on a bad one."""


def jars_of(server: str, pom: Path, cache: Path, say: Callable[[str], None]) -> Path:
    """The folder with a server's jars. Its name has the pom's digest: another version gets another folder."""
    folder = cache / f"{server}-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"
    if folder.exists():
        return folder
    maven = find_maven()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        # One fetch at a time, across threads and processes: Maven's own repository expects no company.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            say("fetching its jars by Maven (about 60 MB, only the first time)")
            _fetch(server, maven, pom, folder)
    return folder


def _fetch(server: str, maven: Path, pom: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as scratch:
        jars = Path(scratch, "jars")
        command = [str(maven), "--quiet", "--batch-mode", "--strict-checksums", "--file", str(pom)]
        command += ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
        log = folder.parent / f"maven-{server}.log"
        with log.open("w") as output:
            try:
                code = subprocess.run(command, stdout=output, stderr=output, timeout=LIMIT_S).returncode
            except subprocess.TimeoutExpired:
                code = -1
        if code != 0:
            raise Unavailable(
                f"Maven could not fetch the jars of {server}: read {log}, check the network and Maven's settings, "
                f"and try again; it ends with\n{last_lines(log, 5)}"
            )
        shutil.move(jars, folder)  # only whole folders ever carry the final name
