"""Sizes of a benchmark: fields of its dataclass that are options of its command, each with a value for the quick form."""

from collections.abc import Callable
from dataclasses import MISSING, Field, field, fields
from typing import Any, TypeVar

import click

T = TypeVar("T", int, float)
B = TypeVar("B")


def size(usual: T, quick: T, text: str) -> T:
    """A field of a benchmark: what it usually is, what it is with --quick, and what it means."""
    made: T = field(default=usual, metadata={"quick": quick, "help": text})
    return made


def options_of(kind: type[Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that gives a command the sizes of a benchmark as options, all of them None where not given."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for each in reversed(fields(kind)):
            assert each.default is not MISSING
            name = "--" + each.name.replace("_", "-")
            text = f"{each.metadata['help']}  [default: {each.default:,}; quick: {each.metadata['quick']:,}]"
            command = click.option(name, each.name, type=type(each.default), help=text)(command)
        return command

    return decorate


def made(kind: type[B], given: dict[str, Any], *, quick: bool) -> B:
    """A benchmark with the sizes that were given, and the usual or the quick ones for the rest."""
    chosen = {name: value for name, value in given.items() if value is not None}
    return kind(**{each.name: chosen.get(each.name, _value(each, quick)) for each in fields(kind)})  # type: ignore[arg-type]


def _value(each: Field[Any], quick: bool) -> Any:
    return each.metadata["quick"] if quick else each.default
