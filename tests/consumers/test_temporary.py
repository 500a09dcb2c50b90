"""Folders of executors that were killed are removed by others, and those of living ones are not."""

import subprocess
import sys
from pathlib import Path

import pytest

from consumers.temporary import TemporaryFolder, remove_left_behind

HOLD_ONE = """
from consumers.temporary import TemporaryFolder
folder = TemporaryFolder()
(folder.path / "of-a-run").touch()
print(folder.path, flush=True)
input()
"""


def test_a_folder_is_removed_once_its_process_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_ONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        left = Path(other.stdout.readline().strip())
        remove_left_behind()
        assert (left / "of-a-run").exists(), "its process lives"
        other.kill()
    ours = TemporaryFolder()
    remove_left_behind()
    assert list(tmp_path.iterdir()) == [ours.path]
    ours.remove()
    assert list(tmp_path.iterdir()) == []
