"""How far a run is: a JSON value that it reports, for those who watch it, and for its next attempt to go on from."""

import json
from typing import Any

#: A report as JSON text, in bytes: a place to go on from, such as a cursor or counts. It travels in events, in the retry
#: and to the next attempt, so what is longer belongs where the user's data lives.
PROGRESS_LENGTH_MAX = 64_000

_WRITER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def progress_text(value: Any) -> str:
    """A report as JSON text. Raises TypeError or ValueError for what is no JSON value, or too long."""
    text = _WRITER.encode(value)
    if (length := len(text.encode())) > PROGRESS_LENGTH_MAX:
        raise ValueError(
            f"a progress of {length} bytes of JSON, more than {PROGRESS_LENGTH_MAX}; "
            "store the data elsewhere and report where"
        )
    return text


def checked_progress(text: str) -> str:
    """The text that others call a progress, which may be empty. Raises ValueError for what `progress_text` doesn't make."""
    if len(text) > PROGRESS_LENGTH_MAX:
        raise ValueError(f"a progress of {len(text)} characters is too long")
    try:
        return text and progress_text(json.loads(text))
    except RecursionError:
        raise ValueError("a progress of too many levels") from None
