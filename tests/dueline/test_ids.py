"""Generated ids are UUIDv7s that never go back; ids of records follow from the record alone."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueline.ids import (
    GENERATED_END_MS,
    NAME_LENGTH_MAX,
    IdGenerator,
    generated_at_ms,
    id_of_record,
    is_generated,
    is_name,
    parse_run_id,
    run_id,
)

instants = st.integers(0, GENERATED_END_MS - 2)


@given(instants)
def test_a_generated_id_is_a_uuid7_of_its_time(now_ms: int) -> None:
    job_id = IdGenerator().next(now_ms)
    parsed = uuid.UUID(job_id)
    assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, job_id)
    assert is_generated(job_id)
    assert is_name(job_id)
    assert generated_at_ms(job_id) == now_ms


@given(st.lists(instants, max_size=50))
def test_ids_increase_whatever_the_clock_does(times: list[int]) -> None:
    generator = IdGenerator()
    ids = [generator.next(now_ms) for now_ms in times]
    assert ids == sorted(set(ids))


def test_ids_of_one_millisecond_increase_and_borrow_from_the_next() -> None:
    generator = IdGenerator()
    ids = [generator.next(1_000) for _ in range(10_000)]
    assert ids == sorted(set(ids))
    assert generated_at_ms(ids[-1]) in range(1_002, 1_004)


def test_threads_never_share_an_id() -> None:
    generator = IdGenerator()
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: generator.next(1_000), range(5_000)))
    assert len(set(ids)) == 5_000


@given(instants, st.integers(0, 100), st.integers(0, 2**62), st.integers(1, 1_000))
def test_the_id_of_a_record_follows_from_the_record(
    at_ms: int, partition: int, offset: int, more: int
) -> None:
    job_id = id_of_record(at_ms, "jobs.submissions", partition, offset)
    assert job_id == id_of_record(at_ms, "jobs.submissions", partition, offset)
    assert is_generated(job_id)
    assert generated_at_ms(job_id) == at_ms
    others = (
        ("jobs.submissions", partition, offset + more),
        ("jobs.submissions", partition + more, offset),
        ("else", partition, offset),
    )
    assert job_id not in {id_of_record(at_ms, *other) for other in others}


def test_the_id_of_a_record_stays_as_it_is_for_good() -> None:
    # A replay after an upgrade has to give the same id.
    assert (
        id_of_record(1_800_000_000_000, "jobs.submissions", 3, 42) == "01a3185c-5000-7b1f-998e-7fcd694552a0"
    )


@pytest.mark.parametrize("text", ["nightly-report", "a", "A.b_c:d/e-9", "x" * NAME_LENGTH_MAX])
def test_names(text: str) -> None:
    assert is_name(text)
    assert not is_generated(text)


@pytest.mark.parametrize("text", ["", "-a", "a b", "a@b", "ä", "a\n", "x" * (NAME_LENGTH_MAX + 1)])
def test_texts_that_are_no_names(text: str) -> None:
    assert not is_name(text)


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,20}", fullmatch=True), st.integers(0, 2**53))
def test_a_run_id_comes_apart_again(job_id: str, due_ms: int) -> None:
    assert parse_run_id(run_id(job_id, due_ms)) == (job_id, due_ms)


@pytest.mark.parametrize("text", ["", "@", "a", "a@", "@1", "a@x", "a@-1", "a@1.5", "a@²"])
def test_texts_that_are_no_run_ids(text: str) -> None:
    with pytest.raises(ValueError, match="not a run id"):
        parse_run_id(text)


def test_a_uuid_of_a_time_without_a_bucket_is_a_name() -> None:
    beyond = "ffffffff-ffff-7fff-bfff-ffffffffffff"
    assert not is_generated(beyond)
    assert is_name(beyond)
