"""How a mistake gets into the real code."""

from collections.abc import Callable
from typing import Any

#: Puts its mistake into this process.
Mistake = Callable[[], None]


def replace(owner: Any, name: str, change: Callable[[Any], Any]) -> None:
    """Put in the place of what a name of a module or class stands for what `change` makes of it.

    Raises AttributeError if the name is gone: then the mistake is to be made in another place.
    """
    setattr(owner, name, change(getattr(owner, name)))
