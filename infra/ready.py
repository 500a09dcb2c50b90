"""How a process of the platform tells whoever started it that it serves."""

import os
from pathlib import Path


def say_ready() -> None:
    """Write this process's pid to the file that DUELINE_READY_FILE names, if it does. See infra/local/platform.py."""
    if path := os.environ.get("DUELINE_READY_FILE"):
        Path(path).write_text(str(os.getpid()))
