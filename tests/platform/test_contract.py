"""What users may rely on, held against the platform and against `dueline.testing`, which they test their jobs with.

Each test runs on both. On the platform due times lie a second ahead; in memory the time is set.
"""

from collections.abc import Iterator
from datetime import timedelta
from itertools import count, pairwise
from uuid import uuid4

import pytest

from dueline import Calendar, Cron, Every, InvalidJob, Job, JobFilter, Once, Retry
from dueline.clock import from_ms, to_ms
from dueline.ids import generated_at_ms
from dueline.states import AttemptState, JobState, RunState
from dueline.testing import JobView
from tests.platform import contract_jobs
from tests.platform.conftest import Platform
from tests.platform.systems import InMemory, OnServers, System, on_servers

SECOND = timedelta(seconds=1)
ONE_MS = timedelta(milliseconds=1)

_numbers = count()


def is_completed(job: JobView) -> bool:
    """What a run did is shown a moment before what that makes of its job."""
    return job.state is JobState.COMPLETED


@pytest.fixture(scope="module")
def served(platform: Platform) -> Iterator[OnServers]:
    with on_servers(platform) as system:
        yield system


@pytest.fixture(params=["in memory", pytest.param("on servers", marks=pytest.mark.servers)])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> System:
    if request.param == "on servers":
        served: OnServers = request.getfixturevalue("served")
        return served
    in_memory = InMemory()
    monkeypatch.setattr(contract_jobs, "pause", in_memory.pause)
    return in_memory


def test_a_job_without_a_trigger_is_due_at_once_and_runs_once(system: System) -> None:
    job_id = system.client.submit("contract-tell")
    (run,) = system.ended(job_id)
    (attempt,) = run.attempts
    assert run.due == from_ms(generated_at_ms(job_id))
    assert run.run_id == f"{job_id}@{to_ms(run.due)}"
    assert (run.state, attempt.attempt, attempt.state) == (RunState.SUCCEEDED, 1, AttemptState.SUCCEEDED)
    assert run.due <= attempt.started <= attempt.ended
    assert attempt.retry is None
    assert system.job_when(job_id, is_completed).next_due is None


def test_a_job_for_later_is_active_until_then(system: System) -> None:
    due = from_ms(to_ms(system.now() + SECOND))
    job_id = system.client.submit("contract-tell", trigger=due)
    job = system.job(job_id)
    assert (job.state, job.next_due) == (JobState.ACTIVE, due)
    assert job.job is not None
    assert job.job.triggers == (Once(due),)
    (run,) = system.ended(job_id)
    assert run.due == due
    assert run.last.started >= due
    system.job_when(job_id, is_completed)


def test_a_job_for_a_time_that_is_past_is_late_and_not_wrong(system: System) -> None:
    due = from_ms(to_ms(system.now() - 3600 * SECOND))
    (run,) = system.ended(system.client.submit("contract-tell", trigger=Once(due)))
    assert run.due == due
    assert run.last.started >= due + 3600 * SECOND


def test_triggers_that_coincide_make_one_run(system: System) -> None:
    start = from_ms(to_ms(system.now() + SECOND))
    every = Every(SECOND, start=start, end=start + SECOND)
    job_id = system.client.submit(
        "contract-tell", triggers=[Once(start), every, Once(start + 1.5 * SECOND), Once(start)]
    )
    runs = system.ended(job_id, 3)
    assert [run.due - start for run in runs] == [0 * SECOND, SECOND, 1.5 * SECOND]
    system.job_when(job_id, is_completed)


def test_an_interval_counts_from_its_start_and_ends_with_its_end(system: System) -> None:
    start = from_ms(to_ms(system.now() + SECOND / 2))
    trigger = Every(SECOND, start=start, end=start + 2.9 * SECOND)
    job_id = system.client.submit("contract-tell", id=new_id("interval"), trigger=trigger)
    runs = system.ended(job_id, 3)
    assert [run.due - start for run in runs] == [0 * SECOND, SECOND, 2 * SECOND]
    for run, following in pairwise(runs):
        assert run.due <= run.last.started <= run.last.ended <= following.last.started
    system.job_when(job_id, is_completed)


def test_an_interval_without_a_start_begins_when_its_job_was_submitted(system: System) -> None:
    before = system.now()
    job_id = system.client.submit("contract-tell", trigger=Every(SECOND, end=before + 1.5 * SECOND))
    runs = system.ended(job_id, 2)
    assert [run.due for run in runs] == [from_ms(generated_at_ms(job_id)) + n * SECOND for n in range(2)]


def test_a_jitter_puts_off_the_starts_and_not_the_due_times(system: System) -> None:
    start = from_ms(to_ms(system.now() + SECOND / 2))
    trigger = Every(SECOND, start=start, end=start + SECOND, jitter=SECOND)
    job = Job(executor_class="contract-tell", id=new_id("jitter"), triggers=(trigger,))
    runs = system.ended(system.client.submit_job(job), 2)
    assert [run.due - start for run in runs] == [0 * SECOND, SECOND]
    for run in runs:
        assert to_ms(run.last.started) >= job.emit_ms(to_ms(run.due)) > to_ms(run.due)


def test_the_same_id_and_definition_twice_is_one_job(system: System) -> None:
    job_id, due = new_id("twice"), system.now() + SECOND
    for _ in range(2):
        assert system.client.submit("contract-tell", id=job_id, trigger=due) == job_id
    assert len(system.ended(job_id)) == 1
    system.job_when(job_id, is_completed)


def test_a_failure_is_retried_as_the_policy_says(system: System) -> None:
    retry = Retry(max_attempts=3, backoff_s=0.2, factor=2)
    (run,) = system.ended(system.client.submit("contract-foreseen", retry=retry))
    assert [(a.attempt, a.state, a.reason) for a in run.attempts] == [
        (n, AttemptState.FAILED, f"attempt {n}") for n in (1, 2, 3)
    ]
    for attempt, following, pause_ms in zip(run.attempts[:-1], run.attempts[1:], (200, 400), strict=True):
        assert attempt.retry is not None
        assert pause_ms <= (attempt.retry - attempt.ended) / ONE_MS <= pause_ms * 1.2
        assert following.started >= attempt.retry
    assert (run.state, run.last.retry, run.last.error) == (RunState.FAILED, None, "attempt 3")
    system.job_when(run.job_id, is_completed)


def test_a_failure_may_say_that_another_attempt_is_no_use(system: System) -> None:
    retry = Retry(max_attempts=3, backoff_s=0)
    (run,) = system.ended(system.client.submit("contract-foreseen", {"retry": False}, retry=retry))
    assert len(run.attempts) == 1
    assert (run.state, run.last.retry) == (RunState.FAILED, None)


def test_a_failure_may_say_when_another_attempt_is_worth_while(system: System) -> None:
    retry_ms = to_ms(system.now() + SECOND)
    retry = Retry(max_attempts=2, backoff_s=60)
    (run,) = system.ended(system.client.submit("contract-foreseen", {"retry_at_ms": retry_ms}, retry=retry))
    first, second = run.attempts
    assert first.retry == from_ms(retry_ms)
    assert second.started >= first.retry
    assert second.retry is None  # the policy has no attempt left


def test_what_a_function_returns_and_prints_is_kept(system: System) -> None:
    (run,) = system.ended(system.client.submit("contract-tell", {"city": "Zürich", "pair": (1, 2)}))
    assert run.last.result == {
        "attempt": 1,
        "due": run.due.isoformat(),
        "params": {"city": "Zürich", "pair": [1, 2]},
    }
    assert (run.last.stdout, run.last.stderr) == ("to stdout\n", "to stderr\n")
    assert (run.last.reason, run.last.error) == ("", "")


def test_an_exception_fails_the_attempt_and_its_trace_begins_in_the_function(system: System) -> None:
    (run,) = system.ended(system.client.submit("contract-raise"))
    assert (run.state, run.last.reason) == (RunState.FAILED, "KeyError: 'no such thing'")
    first, frame, *_ = run.last.error.splitlines()
    assert first == "Traceback (most recent call last):"
    assert frame.endswith(", in raise_")
    assert run.last.error.endswith("KeyError: 'no such thing'\n")


def test_a_value_that_is_no_json_fails_the_attempt(system: System) -> None:
    (run,) = system.ended(system.client.submit("contract-return"))
    assert run.state is RunState.FAILED
    assert run.last.reason.startswith("the executor class returned a object that is no JSON value")


def test_an_unknown_executor_class_fails_the_attempt(system: System) -> None:
    (run,) = system.ended(system.client.submit("contract-nope"))
    assert run.state is RunState.FAILED
    assert run.last.reason.startswith("this executor has no executor class 'contract-nope'; it has ")


def test_a_run_that_takes_longer_than_its_timeout_is_ended_where_it_stands(system: System) -> None:
    (run,) = system.ended(system.client.submit("contract-overrun", timeout_s=0.3))
    last = run.last
    assert (run.state, last.reason) == (RunState.TIMED_OUT, "timed out after 0.3 s")
    assert (last.stdout, last.result) == ("begun\n", None)
    assert ", in overrun\n" in last.error
    assert last.ended >= last.started + 0.3 * SECOND


def test_a_timeout_is_a_failure_to_the_retry_policy(system: System) -> None:
    retry = Retry(max_attempts=2, backoff_s=0)
    (run,) = system.ended(system.client.submit("contract-overrun", timeout_s=0.1, retry=retry))
    assert [attempt.state for attempt in run.attempts] == [AttemptState.TIMED_OUT] * 2


def test_what_is_never_due_is_refused_at_once(system: System) -> None:
    with pytest.raises(InvalidJob, match="never due"):
        system.client.submit("contract-tell", trigger=Cron("0 0 30 2 *"))
    with pytest.raises(InvalidJob, match="check its dates, its end"):
        system.client.submit("contract-tell", trigger=Cron("@daily", end=system.now() - SECOND))


def new_id(what: str) -> str:
    """The platform of a test session remembers jobs."""
    return f"contract-{what}-{next(_numbers)}"


# -- what is asked of jobs that there are ------------------------------------------------------------------------------


def named() -> str:
    return f"contract-{uuid4()}"


def test_a_cancelled_job_is_not_performed_when_it_is_due(system: System) -> None:
    job_id = system.client.submit("contract-tell", trigger=system.now() + 2 * SECOND)
    system.client.cancel(job_id, "a mistake")
    (run,) = system.ended(job_id)
    assert (run.state, run.last.reason) == (RunState.CANCELLED, "its job was cancelled: a mistake")
    job = system.job(job_id)
    assert (job.state, job.reason, job.next_due) == (
        JobState.CANCELLED,
        "its job was cancelled: a mistake",
        None,
    )


def test_a_paused_job_waits_until_it_is_resumed(system: System) -> None:
    paused = system.client.submit("contract-tell", trigger=system.now() + 2 * SECOND)
    system.client.pause(paused, "the disk is full")
    system.ended(system.client.submit("contract-tell", trigger=system.now() + 3 * SECOND))
    job = system.job(paused)
    assert (job.state, job.reason, job.next_due) == (JobState.PAUSED, "the disk is full", None)
    system.client.resume(paused)
    (run,) = system.ended(paused)
    assert run.state is RunState.SUCCEEDED
    system.job_when(paused, is_completed)


def test_what_is_asked_of_many_jobs_is_asked_of_those_that_a_filter_fits(system: System) -> None:
    prefix, due = f"{named()}-", system.now() + timedelta(days=300)
    ids = [system.client.submit("contract-tell", id=f"{prefix}{n}", trigger=due) for n in range(5)]
    other = system.client.submit("contract-raise", id=f"{prefix}other", trigger=due)
    cancelled = ids.pop()
    system.client.cancel(cancelled)
    matching = JobFilter(executor_class="contract-tell", prefix=prefix)
    system.client.control_all("pause", matching, "the disk is full")
    system.client.control_all("change", matching, fields={"priority": "high"})
    for job_id in ids:
        job = system.job_when(job_id, lambda job: job.job is not None and job.job.priority == "high")
        assert (job.state, job.reason) == (JobState.PAUSED, "the disk is full")
    system.client.control_all("cancel", JobFilter(state=JobState.ACTIVE, prefix=prefix), "moved")
    assert system.job_when(other, lambda job: job.state is JobState.CANCELLED).reason.endswith("moved")
    assert {system.job(job_id).state for job_id in ids} == {JobState.PAUSED}
    assert system.job(cancelled).state is JobState.CANCELLED


def test_a_job_that_is_run_now_is_due_later_all_the_same(system: System) -> None:
    due = from_ms(to_ms(system.now() + timedelta(days=300)))
    job_id = system.client.submit("contract-tell", trigger=due)
    system.client.run_now(job_id)
    (run,) = system.ended(job_id)
    assert (run.state, run.last.attempt) == (RunState.SUCCEEDED, 1)
    assert run.due < due
    job = system.job(job_id)
    assert (job.state, job.next_due) == (JobState.ACTIVE, due)


@pytest.mark.parametrize("how", ["change", "submit"])
def test_a_job_with_another_definition_goes_by_that(system: System, how: str) -> None:
    job_id, due = named(), system.now() + timedelta(days=300)
    system.client.submit("contract-tell", {"n": 1}, id=job_id, trigger=due, priority="high")
    if how == "change":
        system.client.change(job_id, {"params": {"n": 2}})
    else:
        system.client.submit("contract-tell", {"n": 2}, id=job_id, trigger=due, priority="high")
    system.client.run_now(job_id)
    (run,) = system.ended(job_id)
    assert run.last.result["params"] == {"n": 2}
    job = system.job(job_id)
    assert job.job is not None
    assert (job.state, job.job.priority) == (JobState.ACTIVE, "high")


def test_another_definition_can_be_refused(system: System) -> None:
    job_id, due = named(), system.now() + timedelta(days=300)
    system.client.submit("contract-tell", {"n": 1}, id=job_id, trigger=due)
    system.client.submit("contract-tell", {"n": 2}, id=job_id, trigger=due, if_exists="refuse")
    system.client.run_now(job_id)
    (run,) = system.ended(job_id)
    assert run.last.result["params"] == {"n": 1}


def test_an_interval_that_is_changed_keeps_what_was_due_before(system: System) -> None:
    job_id = system.client.submit("contract-tell", id=named(), trigger=Every(timedelta(days=1)))
    (first,) = system.ended(job_id)
    system.client.change(job_id, {"trigger": {"every_s": 7200}})
    second = system.ended(job_id, 2)[1]
    assert second.state is RunState.SUCCEEDED
    assert second.due < first.due + timedelta(hours=1), "the new interval begins with the change"


def test_a_backfill_performs_the_due_times_before_the_job_began(system: System) -> None:
    began = from_ms(to_ms(system.now() - timedelta(days=2, minutes=30)))
    hour = timedelta(hours=1)
    job_id = system.client.submit("contract-tell", id=named(), trigger=Every(hour, start=began))
    system.client.backfill(job_id, began + 10 * hour, began + 13 * hour)
    runs = system.ended(job_id, 4)
    assert [run.due - began for run in runs] == [10 * hour, 11 * hour, 12 * hour, 13 * hour]
    assert {run.state for run in runs} == {RunState.SUCCEEDED}


def test_a_run_that_can_not_start_in_time_is_missed(system: System) -> None:
    past = system.now() - timedelta(minutes=10)
    (run,) = system.ended(system.client.submit("contract-tell", trigger=past, start_within_s=60))
    assert (run.state, run.last.reason) == (
        RunState.MISSED,
        "it could not start within 60 s of its due time",
    )


def test_a_failure_of_a_kind_that_its_job_gives_up_on_is_the_last(system: System) -> None:
    retry = Retry(max_attempts=5, backoff_s=0.1, give_up_on=("LookupError",))
    (run,) = system.ended(system.client.submit("contract-raise", retry=retry))
    assert run.state is RunState.FAILED
    assert len(run.attempts) == 1


def test_a_job_leaves_out_the_dates_of_its_calendar(system: System) -> None:
    name = named()  # of both, so that they are in one shard and come in order
    today = system.now().date()
    system.client.submit_calendar(Calendar(name, [today, today + timedelta(days=1)], "UTC"))
    every = Every(timedelta(days=2), start=system.now() + SECOND, excluding=(name,))
    system.client.submit("contract-tell", id=name, trigger=every)
    run, *_ = system.ended(name)
    assert (run.state, run.last.reason) == (
        RunState.SKIPPED,
        f"it lies on a date of the calendar {name}",
    )


def test_a_run_that_has_failed_can_be_retried_by_what_its_job_is_now(system: System) -> None:
    job_id = system.client.submit("contract-raise", {"n": 1}, id=named(), trigger=system.now() + SECOND)
    (failed,) = system.ended(job_id)
    assert failed.state is RunState.FAILED
    later = (system.now() + timedelta(days=300)).isoformat()
    system.client.change(job_id, {"executor_class": "contract-tell", "trigger": {"at": later}})
    system.client.retry(failed.run_id, "mended")
    system.job_when(job_id, lambda job: job.job is not None and job.job.executor_class == "contract-tell")
    (run, *_) = system.ended_well(job_id)
    assert run.run_id == failed.run_id
    assert [attempt.state for attempt in run.attempts] == [AttemptState.FAILED, AttemptState.SUCCEEDED]
    assert run.last.result == {"attempt": 2, "due": run.due.isoformat(), "params": {"n": 1}}


def test_a_job_without_a_trigger_that_is_submitted_with_other_parameters_runs_again(system: System) -> None:
    job_id = system.client.submit("contract-tell", {"n": 1}, id=named())
    system.ended(job_id)
    system.client.submit("contract-tell", {"n": 2}, id=job_id)
    first, second = system.ended(job_id, 2)
    assert [run.last.result["params"]["n"] for run in (first, second)] == [1, 2]
    system.job_when(job_id, is_completed)


def test_what_a_backfill_runs_leaves_the_next_due_time_as_it_is(system: System) -> None:
    began = from_ms(to_ms(system.now() - timedelta(days=90, minutes=30)))
    day = timedelta(days=1)
    job_id = system.client.submit("contract-tell", id=named(), trigger=Every(day, start=began))
    next_due = system.job(job_id).next_due
    assert next_due is not None
    assert next_due > system.now()
    system.client.backfill(job_id, began, began + day)
    runs = system.ended(job_id, 2)
    assert [run.due for run in runs] == [began, began + day]
    assert system.job(job_id).next_due == next_due


def test_a_run_has_no_more_time_than_is_left_until_its_end(system: System) -> None:
    (run,) = system.ended(system.client.submit("contract-overrun", end_within_s=5))
    assert run.state is RunState.TIMED_OUT


def test_a_run_that_has_no_time_left_for_another_attempt_says_so(system: System) -> None:
    retry = Retry(max_attempts=5, backoff_s=60)
    (run,) = system.ended(system.client.submit("contract-raise", retry=retry, end_within_s=30))
    assert run.state is RunState.FAILED
    assert "no attempt follows, as it has to end within 30 s" in run.last.reason
