"""Whose events count after a shard has passed on."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dueline.job import Priority
from dueline.runs import OwnerStarted, RunEvent, Succession
from dueline.states import AttemptState

EVENT = RunEvent(
    job_id="job",
    due_ms=0,
    attempt=1,
    version=0,
    state=AttemptState.SUCCEEDED,
    at_ms=0,
    executor_class="noop",
    priority=Priority.NORMAL,
    recurring=False,
    executor="first",
    epoch=1,
)


def started(epoch: int) -> OwnerStarted:
    return OwnerStarted(shard=0, epoch=epoch, executor=f"owner-{epoch}", at_ms=0)


def test_a_woken_executor_does_not_have_the_last_word() -> None:
    succession = Succession()
    assert succession.admits(started(1))
    assert succession.admits(EVENT)
    assert succession.admits(started(2))
    assert not succession.admits(EVENT)
    assert succession.admits(replace(EVENT, executor="second", epoch=2))
    assert not succession.admits(started(1))


def test_what_the_scheduler_says_always_counts() -> None:
    succession = Succession(epoch=7)
    assert succession.admits(replace(EVENT, executor="", epoch=0, state=AttemptState.MISSED))


def test_the_successor_is_known_by_its_events_too() -> None:
    """Whoever begins to read behind an OwnerStarted learns of it from what that owner says."""
    succession = Succession()
    assert succession.admits(replace(EVENT, epoch=2))
    assert not succession.admits(EVENT)


@given(st.lists(st.integers(0, 5)))
def test_what_counts_never_falls_back(epochs: list[int]) -> None:
    succession = Succession()
    counted = [epoch for epoch in epochs if succession.admits(replace(EVENT, epoch=epoch))]
    assert counted == sorted(counted)
    assert counted == [epoch for index, epoch in enumerate(epochs) if epoch >= max(epochs[: index + 1])]
