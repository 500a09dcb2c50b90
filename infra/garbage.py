"""Keeps Python's garbage collector from looking at what stays, again and again."""

import gc

#: New objects between two collections. What the hot paths make ends by its reference count, so there is little to be found.
NEW_OBJECTS = 20_000


def settle_memory() -> None:
    """To be called once all is imported and connected: what is there now is never collected, and the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, 20, 20)
