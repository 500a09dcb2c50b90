"""The plots of the page, as SVG that stands in it and loads nothing from elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any

import pygal

_LOOK = {"js": [], "width": 900, "height": 380, "legend_at_bottom": True, "no_prefix": True}
#: Labels are words: they are shown whole, and slanted so that they have room.
_WORDS: dict[str, Any] = {"truncate_label": -1, "x_label_rotation": 20}


def bars(title: str, labels: Sequence[str], values: Mapping[str, Sequence[float | None]]) -> str:
    """A group of bars for each label, one of them for each name."""
    return _drawn(pygal.Bar(title=title, x_labels=labels, **_LOOK, **_WORDS), values)


def stacks(title: str, labels: Sequence[str], values: Mapping[str, Sequence[float | None]]) -> str:
    """A stack for each label, a part of it for each name."""
    return _drawn(pygal.StackedBar(title=title, x_labels=labels, **_LOOK, **_WORDS), values)


def lines(title: str, at: Sequence[float], values: Mapping[str, Sequence[float | None]]) -> str:
    """A line for each name, over numbers."""
    chart = pygal.XY(title=title, show_dots=False, **_LOOK)
    return _drawn(chart, {name: list(zip(at, each, strict=True)) for name, each in values.items()})


def _drawn(chart: Any, values: Mapping[str, Any]) -> str:
    for name, each in values.items():
        chart.add(name, each)
    drawn: str = chart.render(is_unicode=True, disable_xml_declaration=True)
    return drawn
