"""Whose events count after a shard has passed on, and which attempt follows upon which."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dueline.job import Priority
from dueline.policies import Retry
from dueline.runs import CRASHES_MAX, OwnerStarted, ReadyRun, RunEvent, Succession
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

RUN = ReadyRun(
    job_id="job",
    due_ms=0,
    emit_ms=0,
    attempt=1,
    version=0,
    executor_class="noop",
    priority=Priority.NORMAL,
    params={},
    timeout_ms=1,
    retry=Retry(max_attempts=3, backoff_s=1, factor=2),
)
FAILED, TIMED_OUT, CRASHED = AttemptState.FAILED, AttemptState.TIMED_OUT, AttemptState.CRASHED


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


def test_failures_are_the_policy_s_to_count() -> None:
    second = RUN.after(FAILED, 1000)
    assert second is not None
    assert (second.attempt, second.failures, second.crashes) == (2, 1, 0)
    assert 2000 <= second.emit_ms <= 2200
    third = second.after(TIMED_OUT, 5000)
    assert third is not None
    assert (third.attempt, third.failures) == (3, 2)
    assert 7000 <= third.emit_ms <= 7400
    assert third.after(FAILED, 9000) is None


def test_a_repeat_after_an_interruption_uses_no_retry() -> None:
    repeated = replace(RUN, attempt=7)
    second = repeated.after(FAILED, 0)
    assert second is not None
    assert (second.attempt, second.failures) == (8, 1)


@given(st.from_type(Retry), st.lists(st.sampled_from([FAILED, TIMED_OUT, CRASHED]), max_size=110))
def test_a_run_ends_with_its_last_failure_or_its_third_crash(retry: Retry, ends: list[AttemptState]) -> None:
    run, failures, crashes = replace(RUN, retry=replace(retry, give_up_on=())), 0, 0
    for state in ends:
        crashes += state is CRASHED
        failures += state is not CRASHED
        following = run.after(state, 0)
        over = crashes == CRASHES_MAX if state is CRASHED else failures == retry.max_attempts
        assert (following is None) is over
        if following is None:
            return
        run = following
        assert run.attempt == 1 + failures + crashes


def test_a_failed_run_may_want_no_further_attempt_or_its_next_one_at_a_time() -> None:
    assert RUN.after(FAILED, 5, final=True) is None
    for retry_ms, emit_ms in ((9_000, 9_000), (5, 5), (0, 5)):  # one that is past is at once
        following = RUN.after(FAILED, 5, retry_ms=retry_ms)
        assert following is not None
        assert (following.attempt, following.failures, following.emit_ms) == (2, 1, emit_ms)
    assert replace(RUN, failures=2).after(FAILED, 5, retry_ms=9_000) is None  # the policy has no attempt left


def test_a_run_goes_on_from_what_was_reported_last() -> None:
    second = RUN.after(FAILED, 0, progress="5")
    assert second is not None
    third = second.after(CRASHED, 0)  # before it had reported anything
    assert third is not None
    assert (second.progress, third.progress) == ("5", "5")


def test_nothing_follows_upon_a_success() -> None:
    assert RUN.after(AttemptState.SUCCEEDED, 0) is None


def test_no_attempt_follows_on_a_timeout_that_the_policy_gives_up_on() -> None:
    run = replace(RUN, retry=Retry(max_attempts=3, give_up_on=("timeout",)))
    assert run.after(TIMED_OUT, 0) is None
    assert run.after(FAILED, 0) is not None


def test_no_attempt_follows_beyond_the_end_of_the_run() -> None:
    run = replace(RUN, retry=Retry(max_attempts=3, backoff_s=10, jitter=0), end_by_ms=RUN.due_ms + 60_000)
    assert run.after(FAILED, RUN.due_ms + 49_000) is not None
    assert run.after(FAILED, RUN.due_ms + 50_000) is None


def test_a_run_expires_by_its_limits() -> None:
    run = replace(RUN, attempt=1, start_by_ms=RUN.due_ms + 1_000, end_by_ms=RUN.due_ms + 5_000)
    assert run.expired(RUN.due_ms + 1_000) is None
    assert "start within 1 s" in (run.expired(RUN.due_ms + 1_001) or "")
    retried = replace(run, attempt=2)
    assert retried.expired(RUN.due_ms + 4_999) is None
    assert "end within 5 s" in (retried.expired(RUN.due_ms + 5_000) or "")
