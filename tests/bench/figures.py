"""From many values to few: percentiles of one round, the median and the spread of several."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

#: What is told of a distribution.
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


def percentiles(values: Sequence[float], digits: int = 1) -> Mapping[str, float | None]:
    """The percentiles of some values, with their extremes; None for each where there are no values."""
    ordered = sorted(values)
    if not ordered:
        return dict.fromkeys(["min", *QUANTILES, "max"])
    found = {name: ordered[min(len(ordered) - 1, int(q * len(ordered)))] for name, q in QUANTILES.items()}
    return {
        name: round(value, digits) for name, value in {"min": ordered[0], **found, "max": ordered[-1]}.items()
    }


def summary(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The median of every number of some rounds under its own name, and `spread`: the least and the greatest of each."""
    numbers = _numbers(rounds)
    return {
        "rounds": len(rounds),
        **_each(numbers, _median),
        "spread": _each(numbers, lambda values: [min(values), max(values)]),
    }


def _numbers(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Every number of the rounds as a list of its values; what is no number in each of them is left out."""
    found: dict[str, Any] = {}
    for name in rounds[0]:
        values = [line.get(name) for line in rounds]
        if all(isinstance(value, Mapping) for value in values):
            found[name] = _numbers(values)  # type: ignore[arg-type]
        elif all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            found[name] = values
    return found


def _median(values: Sequence[float]) -> float:
    middle = median(values)
    return int(middle) if middle == int(middle) else round(middle, 3)


def _each(numbers: Mapping[str, Any], figure: Any) -> dict[str, Any]:
    return {
        name: _each(value, figure) if isinstance(value, Mapping) else figure(value)
        for name, value in numbers.items()
    }


def slope(at: Sequence[float], values: Sequence[float]) -> float:
    """How much values grow for each unit of `at`, by least squares."""
    at_mean, mean = sum(at) / len(at), sum(values) / len(values)
    spread = sum((a - at_mean) ** 2 for a in at)
    return (
        sum((a - at_mean) * (v - mean) for a, v in zip(at, values, strict=True)) / spread if spread else 0.0
    )
