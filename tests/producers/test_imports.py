"""What the command line loads, seen in a process of its own."""

import subprocess
import sys

PLATFORM = {"cassandra", "faust", "aiokafka", "uvloop", "stamina"}
STAGES = {"consumers", "stream_processors"}


def loaded_after(code: str) -> set[str]:
    """The names of the top-level modules in a fresh interpreter after a piece of code."""
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_submitting_needs_the_base_dependencies_alone() -> None:
    code = """
from producers.cli import main
try:
    main(["--kafka", "127.0.0.1:1", "submit", "--within", "100ms", "--", "true"])
except SystemExit as end:
    assert end.code == 1
"""
    assert not loaded_after(code) & (PLATFORM | STAGES)


def test_the_producers_never_import_a_stage() -> None:
    loaded = loaded_after("import producers.cli, producers.demo.__main__, infra.views")
    assert "cassandra" in loaded
    assert not loaded & STAGES


def test_views_without_their_packages_name_the_extra() -> None:
    code = """
import sys
sys.modules["cassandra"] = None
from producers.cli import main
main(["jobs"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "pip install 'dueline[platform]'" in done.stderr
