"""Addresses are those that Java's clients compute. A test against a real broker stands in test_client.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueline.address import NAMED_BUCKETS, bucket_of, minute_of, murmur2, shard_of
from dueline.ids import GENERATED_END_MS, IdGenerator


@pytest.mark.parametrize(
    ("key", "signed"),
    [  # from the tests of Kafka's own Utils.murmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed & 0xFFFFFFFF


@given(st.text(), st.integers(1, 200))
def test_a_shard_is_one_of_them(job_id: str, shards: int) -> None:
    assert shard_of(job_id, shards) in range(shards)


@given(st.integers(0, GENERATED_END_MS - 2))
def test_the_bucket_of_a_generated_job_is_its_minute(now_ms: int) -> None:
    assert bucket_of(IdGenerator().next(now_ms)) == minute_of(now_ms) == now_ms // 60_000


def test_every_bucket_fits_the_int_of_its_column() -> None:
    assert minute_of(GENERATED_END_MS - 1) == 2**31 - 1


@given(st.from_regex(r"[A-Za-z][A-Za-z0-9._:/-]{0,20}", fullmatch=True))
def test_the_bucket_of_a_named_job_is_no_minute(job_id: str) -> None:
    assert bucket_of(job_id) in range(-NAMED_BUCKETS, 0)


def test_named_jobs_spread_over_all_buckets() -> None:
    assert len({bucket_of(f"job-{n}") for n in range(10 * NAMED_BUCKETS)}) == NAMED_BUCKETS
