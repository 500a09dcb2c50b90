"""The folder of an executor's temporary files, and the end of those that were left behind by executors which were killed.

An executor holds a lock on its folder, which ends with it however it ends. A folder that can be locked by another one is left
behind, with the working folders of what ran there.
"""

import fcntl
import logging
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

#: What the folders are called once they are locked: before, they are nobody's to remove.
_PREFIX = "dueline-slots-"


class TemporaryFolder:
    """A new folder for this process alone."""

    def __init__(self) -> None:
        made = Path(tempfile.mkdtemp(prefix=f"new-{_PREFIX}"))
        self._lock = os.open(made, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = made.rename(made.with_name(made.name.removeprefix("new-")))

    def remove(self) -> None:
        """Remove it with all that is in it. Blocking."""
        remove(self.path)
        os.close(self._lock)


def remove(folder: Path) -> None:
    """Remove a folder and what is in it, as far as that can be done. Blocking, for long where a run has left a great many files."""
    shutil.rmtree(folder, ignore_errors=True)


def remove_left_behind() -> None:
    """Remove the folders of this user's processes that have ended without it. Blocking, as `remove`."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # it is somebody else's, in use, or gone
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.getuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove(folder)
                    if folder.exists():
                        log.warning("%s, left by another executor, can't be removed", folder)
            finally:
                os.close(lock)
