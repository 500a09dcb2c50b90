"""The arithmetic of the lease, and what a new owner reads of the former one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.lease import LEASE_S, Leases, wait_s
from infra.ownership import LEASE_MAX_S, UNKNOWN, Ownership

moments = st.floats(0, 1e6, allow_nan=False)
pauses = st.floats(0, 20, allow_nan=False)
whole = st.integers(0, 2**62)
ownerships = st.builds(
    Ownership,
    owner=st.text(max_size=40),
    epoch=whole,
    lease_s=st.integers(1, round(LEASE_MAX_S * 1000)).map(lambda ms: ms / 1000),
    released=st.booleans(),
    position=whole,
)


@given(ownerships)
def test_metadata_survives(ownership: Ownership) -> None:
    assert Ownership.from_text(ownership.to_text()) == ownership


@given(st.none() | st.text() | st.recursive(whole | st.text(), st.lists).map(json.dumps))
def test_what_cannot_be_read_counts_as_held_for_the_maximum(text: str | None) -> None:
    assert Ownership.from_text(text) == UNKNOWN
    assert wait_s(Ownership.from_text(text)) == LEASE_MAX_S


@pytest.mark.parametrize(
    "change",
    [{"v": 2}, {"epoch": -1}, {"epoch": "7"}, {"state": "free"}, {"runs": None}, {"lease_ms": True}],
    ids=str,
)
def test_a_field_that_is_wrong_makes_it_unreadable(change: dict[str, object]) -> None:
    fields = json.loads(Ownership(owner="one", epoch=7, released=True).to_text())
    assert Ownership.from_text(json.dumps(fields | change)) == UNKNOWN


def test_a_lease_beyond_the_maximum_is_not_trusted() -> None:
    found = Ownership.from_text(Ownership(owner="one", epoch=7, lease_s=1e6, released=True).to_text())
    assert not found.known
    assert found.epoch == 7
    assert wait_s(found) == LEASE_MAX_S


@given(ownerships)
def test_only_who_finds_it_released_does_not_wait(found: Ownership) -> None:
    assert wait_s(found) == (0 if found.released else max(LEASE_S, found.lease_s))
    assert wait_s(None) == 0


@given(sents=st.lists(st.tuples(pauses, pauses, st.booleans()), min_size=1), after=pauses)
def test_the_wait_outlasts_the_lease(sents: list[tuple[float, float, bool]], after: float) -> None:
    """Commits are sent and taken, or not; the shard is given away after the last that was taken."""
    leases, now_s, last_sent_s = Leases(), 0.0, None
    for pause_s, answer_s, taken in sents:
        now_s += pause_s
        sent_s = now_s
        now_s += answer_s
        if taken:
            leases.extend([1], sent_s)
            last_sent_s = sent_s
    until_s = leases.until_s
    if last_sent_s is not None and until_s is not None:
        assigned_s = last_sent_s + after
        former = Ownership(owner="former", epoch=1, lease_s=LEASE_S)
        assert until_s <= assigned_s + wait_s(former)


@given(st.lists(moments, min_size=1))
def test_an_extension_never_shortens(sents: list[float]) -> None:
    leases, longest_s = Leases(), 0.0
    for sent_s in sents:
        leases.extend([1], sent_s)
        assert leases.until_s is not None
        assert leases.until_s >= longest_s
        longest_s = leases.until_s


@given(moments)
def test_a_lease_lasts_until_its_end(sent_s: float) -> None:
    leases = Leases()
    assert not leases.ended(sent_s)  # who holds nothing has nothing to lose
    leases.extend([1, 2], sent_s)
    assert leases.until_s == sent_s + LEASE_S
    assert not leases.ended(sent_s)
    assert leases.ended(sent_s + LEASE_S)


@given(sent_s=moments, late_s=st.floats(LEASE_S, 100))
def test_a_lease_that_has_ended_stays_so(sent_s: float, late_s: float) -> None:
    leases = Leases()
    leases.extend([1], sent_s)
    until_s = leases.until_s
    leases.extend([1], sent_s + late_s + 0.001)
    assert leases.until_s == until_s
    assert leases.ended(sent_s + late_s + 0.001)


def test_the_shard_whose_lease_ends_first_decides() -> None:
    leases = Leases()
    leases.extend([1, 2], 10.0)
    leases.extend([2], 11.0)
    assert leases.until_s == 10.0 + LEASE_S
    leases.give_up([1])
    assert leases.until_s == 11.0 + LEASE_S
    leases.give_up([2, 3])
    assert leases.until_s is None


def test_an_unknown_member_has_lost_all_at_once() -> None:
    leases = Leases()
    leases.extend([1], 10.0)
    leases.end()
    assert leases.ended(10.1)
    leases.extend([1], 10.2)
    assert leases.ended(10.3)
