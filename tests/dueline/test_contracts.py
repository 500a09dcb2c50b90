"""A released contract is never edited, and each version of a record understands the others."""

import copy
import hashlib
import json
from io import BytesIO
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from dueline.codec import encode_job, job_fields
from dueline.compatibility import problems
from dueline.contracts import all_contracts, latest
from dueline.job import Job

SCHEMAS = Path(__file__).parents[2] / "schemas"
FILES = sorted(SCHEMAS.glob("v*/*.avsc"))
SUBMISSION = json.loads((SCHEMAS / "v1/job_submission.avsc").read_text())


def without_docs(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {name: without_docs(value) for name, value in schema.items() if name != "doc"}
    return [without_docs(value) for value in schema] if isinstance(schema, list) else schema


def pin_of(file: Path) -> str:
    """A line of schemas/FINGERPRINTS: the file, the fingerprint on the wire, and a digest with the defaults."""
    source = json.loads(file.read_text())
    version = int(file.parent.name[1:])
    (contract,) = (c for c in all_contracts().values() if (c.record, c.version) == (source["name"], version))
    digest = hashlib.sha256(json.dumps(without_docs(source), sort_keys=True).encode()).hexdigest()
    return f"{file.relative_to(SCHEMAS)} {contract.header[2:].hex()} {digest[:16]}"


def test_no_released_contract_was_edited() -> None:
    pinned = [
        line for line in (SCHEMAS / "FINGERPRINTS").read_text().splitlines() if not line.startswith("#")
    ]
    assert [pin_of(file) for file in FILES] == pinned, (
        "a released contract is never edited: add a version in a new folder, and its line to schemas/FINGERPRINTS"
    )


def test_no_two_contracts_share_a_fingerprint() -> None:
    assert len(all_contracts()) == len(FILES)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_the_namespace_tells_the_version(file: Path) -> None:
    assert json.loads(file.read_text())["namespace"] == f"dueline.{file.parent.name}"


@pytest.mark.parametrize("record", sorted({contract.record for contract in all_contracts().values()}))
def test_all_versions_of_a_record_read_each_other(record: str) -> None:
    versions = [contract for contract in all_contracts().values() if contract.record == record]
    for writer, reader in permutations(versions, 2):
        assert problems(writer.schema, reader.schema) == []
    newest = latest(record)
    assert problems(newest.schema, newest.schema) == []


def next_version(**changes: Any) -> Any:
    """A made-up version 2 of the submission, with some fields replaced, added, or (None) left out."""
    text = json.dumps(SUBMISSION).replace("dueline.v1", "dueline.v2")
    schema = json.loads(text)
    fields = {field["name"]: field for field in schema["fields"]}
    for name, change in changes.items():
        fields[name] = fields.get(name, {"name": name}) | change if change is not None else None
    schema["fields"] = [field for field in fields.values() if field is not None]
    return schema


PRIORITY = {"type": "enum", "name": "Priority", "symbols": ["high", "normal", "low"]}
GOOD: dict[str, Any] = {
    "nothing": {},
    "a new field with a default": {"labels": {"type": {"type": "array", "items": "string"}, "default": []}},
    "a field with a default is dropped": {"name": None},
    "a symbol that the reader maps to its default": {"priority": {"type": PRIORITY | {"default": "normal"}}},
}
#: Each with whether the new version still reads the old one, and the old one the new.
BAD: dict[str, Any] = {
    "a new field without a default": ({"labels": {"type": "string"}}, False, True),
    "a field without a default is dropped": ({"executor_class": None}, True, False),
    "another type": ({"timeout_ms": {"type": "string", "default": ""}}, False, False),
    "a wider type": ({"timeout_ms": {"type": "double", "default": 1.0}}, True, False),
    "a union with more branches": ({"name": {"type": ["null", "string"], "default": None}}, True, False),
    "a union with fewer branches": ({"id": {"type": "string", "default": ""}}, False, True),
    "a new symbol": (
        {"priority": {"type": PRIORITY | {"symbols": ["high", "normal", "low", "urgent"]}}},
        True,
        False,
    ),
    "a symbol less": ({"priority": {"type": PRIORITY | {"symbols": ["high", "normal"]}}}, False, True),
    "another kind of element": (
        {"triggers": {"type": {"type": "array", "items": "long"}, "default": []}},
        False,
        False,
    ),
}


@pytest.mark.parametrize("changes", GOOD.values(), ids=GOOD)
def test_good_changes_work_both_ways(changes: Any) -> None:
    changed = next_version(**changes)
    assert problems(SUBMISSION, changed) == []
    assert problems(changed, SUBMISSION) == []


@pytest.mark.parametrize(("changes", "reads_old", "old_reads"), BAD.values(), ids=BAD)
def test_bad_changes_are_found(changes: Any, reads_old: bool, old_reads: bool) -> None:
    changed = next_version(**changes)
    assert (not problems(SUBMISSION, changed)) is reads_old
    assert (not problems(changed, SUBMISSION)) is old_reads


def test_a_problem_names_its_place() -> None:
    changed = copy.deepcopy(SUBMISSION)
    cron = changed["fields"][5]["type"]["items"][2]
    cron["fields"].append({"name": "seconds", "type": "int"})
    assert problems(SUBMISSION, changed) == [".triggers[]: no branch of the reader's union takes record"]
    assert problems({"type": "map", "values": "int"}, {"type": "map", "values": "string"}) == [
        "[]: int is read as string"
    ]


@given(st.from_type(Job))
def test_fastavro_agrees_on_a_good_change(job: Job) -> None:
    """The made-up version reads real bytes of version 1, across the namespaces, and gives the same fields."""
    changed = parse_schema(next_version(**GOOD["a new field with a default"]))
    body = BytesIO(encode_job(job)[10:])
    fields: Any = schemaless_reader(body, latest("JobSubmission").schema, changed)
    assert fields.pop("labels") == []
    written = BytesIO()
    schemaless_writer(
        written, latest("JobSubmission").schema, fields | {"triggers": job_fields(job)["triggers"]}
    )
    assert written.getvalue() == encode_job(job)[10:]
