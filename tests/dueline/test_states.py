"""The table of transitions agrees with itself and with what attempts report."""

import pytest

from dueline.states import ENDS, TRANSITIONS, AttemptState, RunState, run_state_after


def test_the_ends_are_what_nothing_follows() -> None:
    assert {
        RunState.SUCCEEDED,
        RunState.FAILED,
        RunState.TIMED_OUT,
        RunState.CRASHED,
        RunState.CANCELLED,
        RunState.SKIPPED,
        RunState.MISSED,
    } == ENDS


def test_every_state_but_the_first_is_reached() -> None:
    reached = {RunState.SCHEDULED}
    while more := {after for state in reached for after in TRANSITIONS.get(state, ())} - reached:
        reached |= more
    assert reached == set(RunState)


@pytest.mark.parametrize("state", sorted(TRANSITIONS))
def test_no_state_follows_itself(state: RunState) -> None:
    assert state not in TRANSITIONS[state]


@pytest.mark.parametrize("state", sorted(TRANSITIONS))
def test_every_run_can_end(state: RunState) -> None:
    assert TRANSITIONS[state] & ENDS


@pytest.mark.parametrize("attempt", AttemptState)
def test_an_attempt_makes_a_run_state_that_may_follow(attempt: AttemptState) -> None:
    state = run_state_after(attempt, retry_follows=False)
    before = {source for source, targets in TRANSITIONS.items() if state in targets}
    assert before, f"nothing leads to {state}"
    assert (state in ENDS) == (attempt not in (AttemptState.RUNNING, AttemptState.INTERRUPTED))


@pytest.mark.parametrize("attempt", AttemptState)
def test_a_retry_puts_the_run_back_into_the_schedule(attempt: AttemptState) -> None:
    assert run_state_after(attempt, retry_follows=True) is RunState.SCHEDULED
