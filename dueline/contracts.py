"""The Avro contracts in `schemas/`, loaded once a process.

`schemas/v<n>/<record>.avsc` is version n of a record. The version is part of the namespace, because the fingerprint
that names a schema on the wire ignores defaults and documentation: without it two versions could share one.
A released file is never edited: a change is a new folder, and old bytes stay readable as `writers` keeps every version.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from fastavro import parse_schema
from fastavro.schema import fingerprint, to_parsing_canonical_form

#: First bytes of the Avro single-object encoding; the fingerprint and the body follow.
SINGLE_OBJECT_MARK = b"\xc3\x01"
FINGERPRINT_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Contract:
    """One version of one record."""

    #: The record's name without its namespace: `RunEvent`.
    record: str
    version: int
    #: As fastavro parses it.
    schema: Any
    #: What precedes the body on the wire.
    header: bytes


@cache
def all_contracts() -> Mapping[bytes, Contract]:
    """Every version of every record, by its header."""
    folders = files("dueline").joinpath("schemas")
    found = [
        _load(json.loads(file.read_text("utf-8")), int(folder.name[1:]))
        for folder in folders.iterdir()
        if folder.name.startswith("v")
        for file in folder.iterdir()
        if file.name.endswith(".avsc")
    ]
    return {contract.header: contract for contract in found}


@cache
def latest(record: str) -> Contract:
    """The newest version of a record, the one that is written."""
    return max((c for c in all_contracts().values() if c.record == record), key=lambda c: c.version)


def _load(source: dict[str, Any], version: int) -> Contract:
    # The text is already in little-endian order: the bytes as they stand on the wire.
    digest = bytes.fromhex(fingerprint(to_parsing_canonical_form(source), "CRC-64-AVRO"))
    return Contract(source["name"], version, parse_schema(source), SINGLE_OBJECT_MARK + digest)
