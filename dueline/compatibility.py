"""Whether one version of a contract reads what another wrote, by Avro's rules of schema resolution.

A new version of a record must read the old ones' bytes, which still lie in the log, and be read by the old ones, since
processes of two versions run side by side during an upgrade. So: a new field has a default, only fields with a
default are dropped, an enum grows only with a default, and a type only widens where both sides allow it.

That is not all: a process finds the schema of what it reads by its fingerprint, among those that it came with. So a release
that writes a new version follows upon one that can read it and does not write it yet, which all processes have by then.
"""

from collections.abc import Iterator
from typing import Any

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
#: What a reader of the second type accepts besides its own.
PROMOTIONS = {
    "int": ("long", "float", "double"),
    "long": ("float", "double"),
    "float": ("double",),
    "string": ("bytes",),
    "bytes": ("string",),
}


def problems(writer: Any, reader: Any) -> list[str]:
    """Why `reader` cannot read all that `writer` writes, each with its place; empty when it can."""
    return list(_Comparison(writer, reader).compare(writer, reader, ""))


class _Comparison:
    """Two schemas and the named types that each defines. Names are compared without their namespaces."""

    def __init__(self, writer: Any, reader: Any) -> None:
        self._written = dict(_named_types(writer))
        self._read = dict(_named_types(reader))

    def compare(self, writer: Any, reader: Any, place: str) -> Iterator[str]:
        writer, reader = _resolved(writer, self._written), _resolved(reader, self._read)
        if isinstance(writer, list):
            for branch in writer:
                yield from self.compare(branch, reader, place)
            return
        if isinstance(reader, list):
            if all(any(self.compare(writer, branch, place)) for branch in reader):
                yield f"{place or '.'}: no branch of the reader's union takes {_kind(writer)}"
            return
        kind, kind_read = _kind(writer), _kind(reader)
        if kind != kind_read:
            if kind_read not in PROMOTIONS.get(kind, ()):
                yield f"{place or '.'}: {kind} is read as {kind_read}"
        elif kind in ("record", "enum") and _short(writer["name"]) != _short(reader["name"]):
            yield f"{place or '.'}: {writer['name']} is read as {reader['name']}"
        elif kind == "record":
            yield from self._compare_fields(writer, reader, place)
        elif kind == "enum":
            unknown = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
            if unknown and "default" not in reader:
                yield f"{place or '.'}: the reader does not know {', '.join(unknown)} and has no default"
        elif kind in ("array", "map"):
            inside = "items" if kind == "array" else "values"
            yield from self.compare(writer[inside], reader[inside], f"{place}[]")

    def _compare_fields(self, writer: Any, reader: Any, place: str) -> Iterator[str]:
        written = {field["name"]: field for field in writer["fields"]}
        for field in reader["fields"]:
            here = f"{place}.{field['name']}"
            if field["name"] in written:
                yield from self.compare(written[field["name"]]["type"], field["type"], here)
            elif "default" not in field:
                yield f"{here}: is not written, and the reader has no default"


def _named_types(schema: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(schema, list):
        for branch in schema:
            yield from _named_types(branch)
    elif isinstance(schema, dict):
        if "name" in schema:
            yield _short(schema["name"]), schema
        for inside in ("items", "values"):
            yield from _named_types(schema.get(inside))
        for field in schema.get("fields", ()):
            yield from _named_types(field["type"])


def _resolved(schema: Any, named: dict[str, Any]) -> Any:
    if isinstance(schema, str) and schema not in PRIMITIVES:
        return named[_short(schema)]
    return schema


def _kind(schema: Any) -> str:
    kind = schema if isinstance(schema, str) else schema["type"]
    assert isinstance(kind, str)
    return kind


def _short(name: str) -> str:
    return name.rpartition(".")[2]
