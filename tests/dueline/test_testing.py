"""The platform in memory: what happens at which time. That it is as on the platform, tests/platform/test_contract.py says."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import pytest

from dueline import Cron, Every, Failed, InvalidJob, Job, NotFound, Retry, Run, Unavailable
from dueline.client import BATCH_JOBS_MAX
from dueline.clock import to_ms
from dueline.commands import JobFilter
from dueline.errors import SomeNotAccepted
from dueline.policies import Overlap
from dueline.states import AttemptState, JobState, RunState
from dueline.testing import TestPlatform

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=s) for s in (1, 60, 3600, 86400))
ONE_MS = timedelta(milliseconds=1)
SUCCEEDED, SKIPPED, MISSED, CANCELLED = (
    RunState.SUCCEEDED,
    RunState.SKIPPED,
    RunState.MISSED,
    RunState.CANCELLED,
)


def performing(function: Callable[[Run], Any]) -> TestPlatform:
    """A platform whose jobs of the class "work" are performed by the function."""
    return TestPlatform(NOW, stand_ins={"work": function})


@pytest.fixture
def idle() -> TestPlatform:
    """A platform whose work is done at once."""
    return performing(lambda run: None)


def test_a_run_starts_at_its_very_time(idle: TestPlatform) -> None:
    job_id = idle.client.submit("work", trigger=Cron("0 2 * * *", "Europe/Berlin"))
    assert idle.advance(59 * MINUTE) == ()
    assert idle.next_due(job_id) == NOW + HOUR
    (performed,) = idle.advance(DAY)
    (run,) = idle.runs(job_id)
    assert run == performed
    assert (run.due, run.last.started, run.last.ended) == (NOW + HOUR,) * 3
    assert run.run_id == f"{job_id}@{to_ms(NOW + HOUR)}"
    assert idle.clock.now() == NOW + DAY + 59 * MINUTE
    assert idle.next_due(job_id) == NOW + DAY + HOUR


def test_nothing_happens_by_itself(idle: TestPlatform) -> None:
    job_id = idle.client.submit("work")
    assert idle.runs(job_id) == ()
    assert (idle.job(job_id).state, idle.next_due(job_id)) == (JobState.ACTIVE, NOW)
    (run,) = idle.perform_due()
    assert (run.job_id, run.last.result, run.last.error) == (job_id, None, "")
    assert (idle.job(job_id).state, idle.next_due(job_id)) == (JobState.COMPLETED, None)
    assert idle.perform_due() == ()


def test_all_that_is_due_at_one_time_goes_by_priority_then_in_its_order(idle: TestPlatform) -> None:
    for number in range(2):
        for priority in ("low", "normal", "high"):
            idle.client.submit("work", id=f"{priority}-{number}", priority=priority, trigger=NOW + HOUR)
    idle.client.submit("work", id="low-before", priority="low", trigger=NOW + HOUR - SECOND)
    assert [run.job_id for run in idle.advance(DAY)] == [
        "low-before",
        *("high-0", "high-1", "normal-0", "normal-1", "low-0", "low-1"),
    ]


@pytest.mark.parametrize(("late", "first"), [(5 * MINUTE, "high"), (5 * MINUTE + ONE_MS, "low")])
def test_what_is_more_than_five_minutes_late_goes_first(
    idle: TestPlatform, late: timedelta, first: str
) -> None:
    idle.client.submit("work", id="low", priority="low")
    idle.client.submit("work", id="high", priority="high", trigger=NOW + SECOND)
    idle.clock.advance(late)
    assert idle.perform_due()[0].job_id == first


def test_a_clock_that_is_moved_around_the_platform_is_an_outage(idle: TestPlatform) -> None:
    job_id = idle.client.submit("work", trigger=Every(HOUR))
    idle.clock.advance(2 * HOUR)
    assert [run.due - NOW for run in idle.perform_due()] == [2 * HOUR]
    assert [run.state for run in idle.runs(job_id)] == [SKIPPED, SKIPPED, SUCCEEDED]
    assert {run.last.started for run in idle.runs(job_id)} == {NOW + 2 * HOUR}


@pytest.mark.parametrize(
    ("fields", "states"),
    [
        ({"missed": "all"}, [SUCCEEDED] * 4),
        ({"missed": "latest"}, [SKIPPED] * 3 + [SUCCEEDED]),
        ({"missed": "skip"}, [SKIPPED] * 3 + [SUCCEEDED]),  # the last one is in time
        ({"missed": "all", "catch_up_s": 5400}, [MISSED] * 2 + [SUCCEEDED] * 2),
        ({"missed": "all", "start_within_s": 5400}, [MISSED] * 2 + [SUCCEEDED] * 2),
    ],
)
def test_what_was_missed_goes_by_the_policy(
    idle: TestPlatform, fields: dict[str, Any], states: list[RunState]
) -> None:
    job_id = idle.client.submit("work", trigger=Every(HOUR), **fields)
    idle.clock.advance(3 * HOUR)
    idle.perform_due()
    assert [run.state for run in idle.runs(job_id)] == states
    assert idle.next_due(job_id) == NOW + 4 * HOUR


def test_a_pause_is_an_outage_of_one_job(idle: TestPlatform) -> None:
    paused = idle.client.submit("work", id="paused", trigger=Every(HOUR))
    other = idle.client.submit("work", id="other", trigger=Every(HOUR))
    idle.advance(MINUTE)
    idle.client.pause(paused, "the disk is full")
    idle.advance(3 * HOUR)
    assert (idle.job(paused).state, idle.job(paused).reason) == (JobState.PAUSED, "the disk is full")
    assert (len(idle.runs(paused)), len(idle.runs(other))) == (1, 4)
    assert idle.next_due(paused) is None
    idle.client.resume(paused)
    idle.perform_due()
    assert [run.state for run in idle.runs(paused)] == [SUCCEEDED, SKIPPED, SKIPPED, SUCCEEDED]
    assert idle.next_due(paused) == NOW + 4 * HOUR


def test_a_cancelled_job_starts_anew_when_it_is_resumed(idle: TestPlatform) -> None:
    job_id = idle.client.submit("work", id="job", trigger=Every(HOUR))
    idle.advance(MINUTE)
    idle.client.cancel(job_id)
    idle.advance(3 * HOUR)
    assert [run.state for run in idle.runs(job_id)] == [SUCCEEDED, CANCELLED]
    idle.client.resume(job_id)
    idle.advance(HOUR)
    assert [run.due - NOW for run in idle.runs(job_id)] == [0 * HOUR, HOUR, 4 * HOUR]


@pytest.mark.parametrize(
    ("overlap", "states"),
    [
        ("skip", [SUCCEEDED, SKIPPED, SKIPPED, SUCCEEDED]),
        ("queue_one", [SUCCEEDED, SUCCEEDED, SKIPPED, SUCCEEDED]),
        ("queue_all", [SUCCEEDED] * 4),
    ],
)
def test_runs_that_come_while_one_is_performed_go_by_their_policy(
    overlap: str, states: list[RunState]
) -> None:
    def work(run: Run) -> None:
        if run.due == NOW:
            platform.clock.advance(timedelta(seconds=150))

    platform = TestPlatform(NOW, stand_ins={"work": work})
    job_id = platform.client.submit("work", trigger=Every(MINUTE), overlap=overlap)
    platform.advance(3 * MINUTE)
    assert [run.state for run in platform.runs(job_id)] == states


def test_what_can_not_be_asked_is_rejected(idle: TestPlatform) -> None:
    idle.client.submit("work", id="job", trigger=NOW + HOUR)
    idle.client.cancel("job")
    idle.client.pause("job")
    idle.client.run_now("nobody")
    assert [rejected.reason for rejected in idle.rejected] == [
        "action: job job is cancelled; resume it first",
        "id: there is no job nobody to run",
    ]


def test_pauses_are_those_of_the_policy_and_without_chance_exact() -> None:
    def fail(run: Run) -> None:
        raise Failed(f"attempt {run.attempt}")

    platform = performing(fail)
    retry = Retry(max_attempts=4, backoff_s=10, factor=3, backoff_max_s=60)
    job_id = platform.client.submit("work", retry=retry)
    states = [run.state for run in platform.advance(39 * SECOND)]
    assert states == [RunState.SCHEDULED, RunState.SCHEDULED]
    assert (platform.job(job_id).state, platform.next_due(job_id)) == (JobState.ACTIVE, None)
    platform.advance(DAY)
    (run,) = platform.runs(job_id)
    assert [attempt.started - NOW for attempt in run.attempts] == [s * SECOND for s in (0, 10, 40, 100)]
    assert [attempt.reason for attempt in run.attempts] == [f"attempt {n}" for n in (1, 2, 3, 4)]
    assert (run.state, run.last.retry, platform.job(job_id).state) == (
        RunState.FAILED,
        None,
        JobState.COMPLETED,
    )


def test_chance_can_be_given() -> None:
    platform = TestPlatform(NOW, stand_ins={"work": _fail}, chance=0.5)
    job_id = platform.client.submit("work", retry=Retry(max_attempts=2, backoff_s=10))
    platform.perform_due()
    assert platform.runs(job_id)[0].last.retry == NOW + 11 * SECOND


def test_a_retry_waits_beside_the_next_run_of_its_job() -> None:
    def fail_at_first(run: Run) -> None:
        if run.due == NOW and run.attempt == 1:
            raise Failed("no")

    platform = performing(fail_at_first)
    retry = Retry(max_attempts=2, backoff_s=90)
    job_id = platform.client.submit("work", trigger=Every(MINUTE, end=NOW + MINUTE), retry=retry)
    assert [(r.due - NOW, r.last.attempt) for r in platform.advance(MINUTE)] == [(0 * MINUTE, 1), (MINUTE, 1)]
    assert platform.job(job_id).state is JobState.ACTIVE  # its last run has ended, and the first one not
    platform.clock.advance(MINUTE)
    assert platform.runs(job_id)[0].state is RunState.READY
    assert [(r.due - NOW, r.last.attempt) for r in platform.perform_due()] == [(0 * MINUTE, 2)]
    assert platform.job(job_id).state is JobState.COMPLETED


def test_a_run_that_moves_the_clock_takes_time_and_makes_others_late() -> None:
    platform = performing(lambda run: platform.clock.advance(40 * SECOND))
    first = platform.client.submit("work")
    second = platform.client.submit("work", trigger=NOW + 30 * SECOND)
    platform.advance(MINUTE)
    assert platform.runs(first)[0].last.ended == NOW + 40 * SECOND
    assert platform.runs(second)[0].last.started == NOW + 40 * SECOND
    assert platform.clock.now() == NOW + 80 * SECOND


def test_a_run_gets_timed_out_where_it_stands_and_may_clean_up() -> None:
    seen: list[datetime] = []

    def overrun(run: Run) -> None:
        try:
            platform.clock.advance(5 * SECOND)  # exactly what it has
            seen.append(platform.clock.now())
            platform.clock.advance(SECOND)
            pytest.fail("it goes on")
        finally:
            seen.append(platform.clock.now())
            platform.clock.advance(SECOND)

    platform = performing(overrun)
    job_id = platform.client.submit("work", timeout_s=5)
    platform.perform_due()
    last = platform.runs(job_id)[0].last
    assert (last.state, last.reason) == (AttemptState.TIMED_OUT, "timed out after 5 s")
    assert "in overrun\n" in last.error
    assert last.ended == NOW + 6 * SECOND
    assert seen == [NOW + 5 * SECOND] * 2


def test_to_swallow_the_interruption_does_not_make_it_a_success() -> None:
    def swallow(run: Run) -> str:
        try:
            platform.clock.advance(run.timeout * 2)
        except BaseException:
            return "as if nothing had happened"
        return "in time"

    platform = performing(swallow)
    job_id = platform.client.submit("work", timeout_s=5)
    platform.perform_due()
    assert platform.runs(job_id)[0].state is RunState.TIMED_OUT


def test_a_run_is_told_what_the_platform_would_tell_it() -> None:
    seen: list[Run] = []
    platform = performing(seen.append)
    platform.client.submit("work", {"pair": (1, 2)}, id="job", name="a name", priority="low", timeout_s=5)
    platform.clock.advance(SECOND)
    platform.perform_due()
    (run,) = seen
    assert (run.job_id, run.name, run.priority, run.attempt) == ("job", "a name", "low", 1)
    assert run.params == {"pair": [1, 2]}  # it has been JSON
    assert (run.due, run.deadline) == (NOW, NOW + 6 * SECOND)


def test_what_a_run_wants_done_at_its_end_is_done() -> None:
    done: list[str] = []

    def leave(run: Run) -> None:
        run.at_end.callback(done.append, run.job_id)

    platform = performing(leave)
    job_id = platform.client.submit("work")
    platform.perform_due()
    assert done == [job_id]


def test_a_function_may_submit_jobs_and_look_at_others() -> None:
    def chain(run: Run) -> None:
        assert platform.runs(run.job_id) == ()
        if run.params["left"]:
            platform.client.submit("work", {"left": run.params["left"] - 1})

    platform = performing(chain)
    platform.client.submit("work", {"left": 2})
    assert [run.state for run in platform.perform_due()] == [RunState.SUCCEEDED] * 3


def test_a_run_can_not_let_others_be_performed() -> None:
    platform = performing(lambda run: platform.perform_due())
    job_id = platform.client.submit("work")
    platform.perform_due()
    assert "use platform.clock.advance" in platform.runs(job_id)[0].last.reason


def test_what_ends_the_test_passes_through_a_run() -> None:
    platform = performing(lambda run: pytest.fail("by the function"))
    platform.client.submit("work")
    with pytest.raises(pytest.fail.Exception, match="by the function"):
        platform.perform_due()
    with pytest.raises(ValueError, match="does not go back"):
        platform.advance(-SECOND)


def test_output_is_kept_whatever_the_function_does_to_its_streams() -> None:
    def tell(run: Run) -> None:
        print("half a pair: \udc80")
        sys.stdout.buffer.write(b"\xff bytes\n")
        print("to stderr", file=sys.stderr)
        sys.stdout.close()

    platform, stdout = performing(tell), sys.stdout
    job_id = platform.client.submit("work")
    platform.perform_due()
    last = platform.runs(job_id)[0].last
    assert (last.stdout, last.stderr) == ("half a pair: \\udc80\n\\xff bytes\n", "to stderr\n")
    assert sys.stdout is stdout


def test_a_program_ends_with_its_exit_status(idle: TestPlatform) -> None:
    job_id = idle.client.submit("command", {"argv": ["/bin/sh", "-c", "exit 3"]})
    idle.perform_due()
    last = idle.runs(job_id)[0].last
    assert (last.reason, last.output.exit_status) == ("/bin/sh ended with exit status 3", 3)


def test_a_stand_in_takes_the_place_of_a_registered_function() -> None:
    def answer(run: Run) -> dict[str, int]:
        return {"status": 204}

    platform = TestPlatform(stand_ins={"http": answer})
    job_id = platform.client.submit("http", {"url": "http://127.0.0.1:1/"})
    platform.perform_due()
    assert platform.runs(job_id)[0].last.result == {"status": 204}


def test_code_that_submits_jobs_is_asked_for_them(idle: TestPlatform) -> None:
    idle.client.submit("work", {"number": 1})
    ids = idle.client.submit_many(
        Job(executor_class="mail", params={"number": number}) for number in range(5)
    )
    assert [job.job_id for job in idle.jobs("mail")] == ids
    assert [job.job.params["number"] for job in idle.jobs() if job.job] == [1, 0, 1, 2, 3, 4]


def test_any_number_of_jobs_is_due_at_one_time(idle: TestPlatform) -> None:
    """A generator of ids that increase would have to borrow from the next millisecond."""
    ids = idle.client.submit_many(Job(executor_class="work") for _ in range(5000))
    assert [run.job_id for run in idle.perform_due()] == ids


def test_parameters_may_be_any_mapping() -> None:
    platform = performing(lambda run: run.params)
    job_id = platform.client.submit("work", MappingProxyType({"a": 1}))
    platform.perform_due()
    (run,) = platform.runs(job_id)
    assert run.last.result == {"a": 1}


def test_an_error_of_the_jobs_that_says_nothing_is_told(idle: TestPlatform) -> None:
    def jobs() -> Iterator[Job]:
        yield from (Job(executor_class="work") for _ in range(BATCH_JOBS_MAX))
        raise TimeoutError

    with pytest.raises(SomeNotAccepted, match=r"TimeoutError\(\)") as error:
        idle.client.submit_many(jobs())
    assert len(error.value.accepted) == BATCH_JOBS_MAX


def test_ids_are_the_same_each_time() -> None:
    first, second = (TestPlatform(NOW).client.submit("work") for _ in range(2))
    assert first == second


async def test_coroutines_have_a_client_too(idle: TestPlatform) -> None:
    async with idle.async_client as client:
        ids = [await client.submit("work"), *await client.submit_many([Job(executor_class="work")] * 2)]
    assert [run.job_id for run in idle.perform_due()] == ids


def test_a_client_refuses_what_the_platform_s_refuses(idle: TestPlatform) -> None:
    with pytest.raises(InvalidJob, match="never due"):
        idle.client.submit("work", trigger=Cron("0 0 31 2 *"))
    much = {"text": "x" * 300_000}
    with pytest.raises(InvalidJob, match="bytes, more than"):
        idle.client.submit("work", much)
    with pytest.raises(InvalidJob, match="bytes, more than"):
        idle.client.change("any", {"params": much})
    with pytest.raises(InvalidJob, match="bytes, more than"):
        idle.client.control_all("change", JobFilter(executor_class="work"), fields={"params": much})
    with pytest.raises(InvalidJob, match=r"end: .* has no time zone"):
        idle.client.backfill("any", NOW, NOW.replace(tzinfo=None))
    with idle.client:
        pass
    with pytest.raises(Unavailable, match="closed"):
        idle.client.submit("work")
    assert idle.jobs() == ()


def test_records_may_come_from_any_client(idle: TestPlatform) -> None:
    idle.receive(b'{"executor_class": "work", "trigger": {"at": "2030-01-01T02:00:00+01:00"}}')
    idle.receive(b'{"executor_class": "work", "priorty": "high"}', "bad")
    (run,) = idle.advance(DAY)
    assert run.due == NOW + HOUR
    (rejected,) = idle.rejected
    assert rejected.job_id == "bad"
    assert "did you mean priority?" in rejected.reason


def test_what_the_platform_refuses_later_is_rejected(idle: TestPlatform) -> None:
    job_id = idle.client.submit("work", trigger=Every(HOUR, excluding=("holidays",)))
    assert [(rejected.job_id, rejected.at) for rejected in idle.rejected] == [(job_id, NOW)]
    assert (idle.job(job_id).state, idle.job(job_id).job) == (JobState.REJECTED, None)
    assert "holidays" in idle.job(job_id).reason


def test_unknown_jobs_are_not_found(idle: TestPlatform) -> None:
    for ask in (idle.job, idle.runs, idle.next_due):
        with pytest.raises(NotFound, match="no job nope"):
            ask("nope")


def test_times_without_a_zone_are_refused(idle: TestPlatform) -> None:
    naive = datetime(2030, 1, 1)  # noqa: DTZ001 (that is the point)
    with pytest.raises(ValueError, match="no time zone"):
        TestPlatform(naive)
    with pytest.raises(ValueError, match="no time zone"):
        idle.advance_to(naive)


def test_a_job_that_submits_itself_for_ever_is_found_out(
    idle: TestPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dueline.testing.platform.PERFORMED_MAX", 10)
    idle.client.submit("work", trigger=Every(SECOND))
    with pytest.raises(RuntimeError, match="10 attempts were performed in one go"):
        idle.advance(MINUTE)


def _fail(run: Run) -> None:
    raise Failed("no")


async def test_coroutine_functions_are_performed_within_an_async_test() -> None:
    async def work(run: Run) -> str:
        await asyncio.sleep(0)
        if run.params["fail"]:
            raise ValueError("no")
        return whose.get()

    whose = ContextVar[str]("whose")
    whose.set("the caller's")
    platform = performing(work)
    good, bad = (platform.client.submit("work", {"fail": fail}) for fail in (False, True))
    platform.perform_due()
    assert platform.runs(good)[0].last.result == "the caller's"
    (failed,) = platform.runs(bad)
    assert failed.last.error.startswith("Traceback (most recent call last):\n  File")
    assert failed.last.error.splitlines()[1].endswith("in work")


@pytest.mark.parametrize("overlap", Overlap)
@pytest.mark.parametrize("takes_s", [1, 2.5])
def test_time_passes_as_far_as_it_is_told_to_whatever_a_job_takes(overlap: Overlap, takes_s: float) -> None:
    platform = performing(lambda run: platform.clock.advance(takes_s * SECOND))
    platform.client.submit("work", trigger=Every(SECOND, start=NOW + SECOND), overlap=overlap)
    for _ in range(2):
        end = platform.clock.now() + 10 * SECOND
        performed = platform.advance(10 * SECOND)
        assert performed
        assert all(run.due <= end for run in performed)
        assert platform.clock.now() >= end
