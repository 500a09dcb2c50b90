"""Working folders and temporary files go with their run, or with its slot when that is killed."""

from pathlib import Path

import pytest

from consumers.slots import SlotPool
from dueline.states import AttemptState
from tests.consumers.helpers import CLASSES, perform, ready


async def test_nothing_stays_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pool = SlotPool(1, [CLASSES])
    await pool.start()
    stays = ready("command", argv=["/bin/sh", "-c", "pwd; touch file; (setsid sleep 100 &)"])
    outcome = await perform(pool, stays)
    folder = Path(outcome.stdout.decode().strip())
    assert tmp_path in folder.parents
    assert not folder.exists()

    killed = ready("command", argv=["/bin/sh", "-c", "pwd; touch file; kill -9 $PPID"])
    assert (await perform(pool, killed)).state is AttemptState.CRASHED
    await pool.close()
    assert list(tmp_path.iterdir()) == []
