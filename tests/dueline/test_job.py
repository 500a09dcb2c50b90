"""A job that exists is valid; a wrong one is refused with its field and what to do about it."""

import json
import zoneinfo
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueline.calendars import Calendar
from dueline.clock import from_ms
from dueline.errors import InvalidJob
from dueline.job import Job, params_text
from dueline.json_form import changed_job, job_from_json, job_to_json
from dueline.policies import Retry
from dueline.triggers import Cron, Every, Once

NOW_MS = 1_800_000_000_000


def refused(**fields: Any) -> InvalidJob:
    with pytest.raises(InvalidJob) as refusal:
        Job(**{"executor_class": "command"} | fields)
    return refusal.value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("executor_class", ""),
        ("executor_class", None),
        ("executor_class", "x" * 201),
        ("executor_class", "\ud800"),
        ("id", ""),
        ("id", "two words"),
        ("id", 7),
        ("name", "x" * 201),
        ("priority", "urgent"),
        ("params", [1]),
        ("retry", {"max_attempts": 3}),
        ("timeout_s", 0),
        ("timeout_s", 300.1),
        ("timeout_s", float("nan")),
        ("timeout_s", True),
        ("timeout_s", "60"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    assert refused(**{field: value}).field == field


@pytest.mark.parametrize("triggers", ["soon", ("soon",), [Once(from_ms(0))], (timedelta(seconds=5),)])
def test_triggers_of_another_kind_are_refused(triggers: Any) -> None:
    assert "Once, Every or Cron" in refused(triggers=triggers).problem


def test_there_is_a_limit_to_triggers() -> None:
    assert refused(triggers=(Once(from_ms(0)),) * 17).field == "triggers"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"max_attempts": 0}, "retry.max_attempts"),
        ({"max_attempts": 1.5}, "retry.max_attempts"),
        ({"backoff_s": -1}, "retry.backoff_s"),
        ({"factor": 0.5}, "retry.factor"),
        ({"backoff_max_s": float("inf")}, "retry.backoff_max_s"),
    ],
)
def test_a_wrong_retry_is_named(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidJob) as refusal:
        Retry(**fields)
    assert refusal.value.field == field


@pytest.mark.parametrize("value", [float("nan"), object(), "\ud800", {1, 2}])
def test_params_hold_json_only(value: Any) -> None:
    with pytest.raises(InvalidJob, match="params"):
        params_text({"x": value})


@given(st.from_type(Retry), st.floats(0, 1, exclude_max=True))
def test_pauses_grow_up_to_their_limit(retry: Retry, chance: float) -> None:
    pauses = [retry.pause_ms(attempt, chance) for attempt in range(1, 102)]
    assert pauses[retry.max_attempts - 1 :] == [None] * (102 - retry.max_attempts)
    given_pauses = [pause for pause in pauses if pause is not None]
    if retry.pauses_s:
        listed = [*retry.pauses_s, *retry.pauses_s[-1:] * 100][: len(given_pauses)]
        assert given_pauses == [int(pause_s * (1 + chance * retry.jitter) * 1000) for pause_s in listed]
    else:
        assert given_pauses == sorted(given_pauses)
        assert all(
            0 <= pause <= retry.backoff_max_s * (1 + retry.jitter) * 1000 + 1 for pause in given_pauses
        )


@pytest.mark.parametrize(
    ("retry", "pauses_s"),
    [
        (Retry(max_attempts=5, backoff_s=2, factor=1), [2, 2, 2, 2]),
        (Retry(max_attempts=5, backoff_s=2, factor=1, step_s=60), [2, 62, 122, 182]),
        (Retry(max_attempts=5, backoff_s=2), [2, 4, 8, 16]),
        (Retry(max_attempts=5, backoff_s=200), [200, 300, 300, 300]),
        (Retry(max_attempts=5, pauses_s=(1, 60)), [1, 60, 60, 60]),
        (Retry(max_attempts=5, pauses_s=[1, 60]), [1, 60, 60, 60]),  # type: ignore[arg-type]  # a list will do
    ],
)
def test_the_kinds_of_backoff(retry: Retry, pauses_s: list[int]) -> None:
    assert [retry.pause_ms(failure, 0.0) for failure in range(1, 5)] == [s * 1000 for s in pauses_s]
    assert retry.pause_ms(5) is None


def test_a_job_without_a_trigger_is_due_at_its_acceptance() -> None:
    job = Job(executor_class="command").anchored(NOW_MS)
    assert job.first_ms(NOW_MS) == NOW_MS
    assert not job.recurring


def test_a_past_instant_is_late_not_wrong() -> None:
    assert Job(executor_class="command", triggers=(Once(from_ms(5)),)).first_ms(NOW_MS) == 5


def test_triggers_that_coincide_make_one_run() -> None:
    hourly = (Cron("0 * * * *"), Every(timedelta(minutes=30), start=from_ms(0)))
    job = Job(executor_class="command", triggers=hourly)
    first_ms = job.next_ms(3_599_999)
    assert first_ms == 3_600_000
    assert job.next_ms(first_ms) == 5_400_000
    assert job.recurring


@pytest.mark.parametrize(
    ("trigger", "says"),
    [
        (Cron("0 0 31 2 *"), "never due"),
        (Every(timedelta(hours=1), end=from_ms(NOW_MS - 1)), "is before the start"),
        (Once(from_ms(NOW_MS) + timedelta(days=4000)), "more than 10 years"),
        (Every(timedelta(hours=1), start=datetime(2900, 1, 1, tzinfo=UTC)), "more than 10 years"),
    ],
)
def test_a_job_that_is_never_due_is_refused(trigger: Once | Every | Cron, says: str) -> None:
    with pytest.raises(InvalidJob, match=says):
        Job(executor_class="command", triggers=(trigger,)).anchored(NOW_MS).first_ms(NOW_MS)


@pytest.fixture(params=["localtime", "posixrules", "posix/UTC", "right/UTC"])
def local_zone(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """What a machine may have beside the zones that all have."""
    path = tmp_path / request.param
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(resources.files("tzdata.zoneinfo").joinpath("UTC").read_bytes())
    zoneinfo.reset_tzpath(to=[str(tmp_path)])
    yield request.param
    zoneinfo.reset_tzpath()


def test_a_zone_that_other_machines_may_not_have_is_refused_for_what_is_new(local_zone: str) -> None:
    job = Job(executor_class="command", triggers=(Cron("0 8 * * *", local_zone),))
    assert job.next_ms(NOW_MS) is not None, "what is stored can still be read"
    with pytest.raises(InvalidJob, match=r"trigger.time_zone: .* is not the same on all machines"):
        job.first_ms(NOW_MS)
    with pytest.raises(InvalidJob, match=r"^time_zone: .* is not the same on all machines"):
        Calendar("days", [], local_zone).require_portable()


@pytest.mark.parametrize(
    "triggers",
    [
        (Every(timedelta(seconds=1), from_ms(0)), Every(timedelta(seconds=1), from_ms(500))),
        (Every(timedelta(seconds=1), from_ms(0)), Every(timedelta(minutes=1), from_ms(50_000_500))),
        tuple(Every(timedelta(seconds=3), from_ms(n)) for n in range(4)),
    ],
)
def test_more_often_than_once_a_second_together_is_refused(triggers: tuple[Every, ...]) -> None:
    refusal = refused(triggers=triggers)
    assert refusal.field == "triggers"
    assert "more than 60 times in the minute from" in refusal.problem


@pytest.mark.parametrize(
    "triggers",
    [
        (Every(timedelta(seconds=1)), Every(timedelta(seconds=1))),  # they coincide
        (Every(timedelta(seconds=1), from_ms(0)), Every(timedelta(seconds=5), from_ms(60_000))),
        (Every(timedelta(seconds=1.5), from_ms(0)), Every(timedelta(seconds=2), from_ms(0))),  # 60 a minute
        (
            Every(timedelta(seconds=1), from_ms(0), from_ms(999_999_999)),
            Every(timedelta(seconds=1), from_ms(1_000_000_500)),
        ),
        (
            Every(timedelta(seconds=2), from_ms(0)),
            Every(timedelta(seconds=2), from_ms(100)),
            Cron("* * * * *"),
        ),
        (Once(from_ms(0)), Once(from_ms(1)), Once(from_ms(2))),
    ],
)
def test_once_a_second_together_is_taken(triggers: tuple[Once | Every | Cron, ...]) -> None:
    job = Job(executor_class="command", triggers=triggers)
    assert job.anchored(NOW_MS).triggers


def test_starts_that_are_open_are_judged_at_acceptance() -> None:
    job = Job(
        executor_class="a", triggers=(Every(timedelta(seconds=1)), Every(timedelta(seconds=1), from_ms(1)))
    )
    with pytest.raises(InvalidJob, match="once a second is the most"):
        job.anchored(NOW_MS)


def test_one_trigger_that_is_never_due_is_refused_beside_others() -> None:
    job = Job(executor_class="command", triggers=(Cron("@daily"), Cron("0 0 30 2 *")))
    with pytest.raises(InvalidJob, match=r"'0 0 30 2 \*' is never due: no month"):
        job.first_ms(NOW_MS)


HOURLY = Cron("0 * * * *", jitter=timedelta(minutes=20))


def test_a_jitter_leaves_the_due_times_as_they_are() -> None:
    assert Job(id="a", executor_class="x", triggers=(HOURLY,)).next_ms(0) == 3_600_000


@given(st.from_type(Job).filter(lambda job: job.id is not None), st.integers(0, 7_000_000_000_000))
def test_a_jitter_puts_off_by_less_than_itself_and_before_the_next_due_time(job: Job, after_ms: int) -> None:
    due_ms = job.next_ms(after_ms)
    if due_ms is None:
        return
    emit_ms, next_ms = job.emit_ms(due_ms), job.next_ms(due_ms)
    jitters = [t.jitter // timedelta(milliseconds=1) for t in job.triggers if t.next_ms(due_ms - 1) == due_ms]
    assert due_ms <= emit_ms <= due_ms + max(0, min(jitters) - 1)
    assert next_ms is None or emit_ms < next_ms
    assert job_from_json(job_to_json(job)).emit_ms(due_ms) == emit_ms


def test_a_jitter_is_the_same_for_all_runs_of_a_job_and_spreads_jobs() -> None:
    jobs = [Job(id=f"job-{n}", executor_class="x", triggers=(HOURLY,)) for n in range(1000)]
    offsets = [job.emit_ms(3_600_000) - 3_600_000 for job in jobs]
    assert offsets == [job.emit_ms(36_000_000) - 36_000_000 for job in jobs]
    by_minute = Counter(offset // 60_000 for offset in offsets)
    assert set(by_minute) == set(range(20))
    assert max(by_minute.values()) < 100  # 50 each


def test_a_trigger_without_jitter_that_coincides_is_not_put_off() -> None:
    job = Job(id="a", executor_class="x", triggers=(HOURLY, Cron("0 0 * * *")))
    assert job.emit_ms(86_400_000) == 86_400_000
    assert job.emit_ms(90_000_000) > 90_000_000


@given(st.from_type(Job))
def test_json_gives_the_same_job_again(job: Job) -> None:
    assert job_from_json(json.loads(json.dumps(job_to_json(job)))) == job


def test_the_example_of_the_documentation() -> None:
    source = """
    {"id": "nightly-report", "executor_class": "command", "params": {"argv": ["/bin/date"]}, "priority": "high",
     "trigger": {"cron": "0 2 * * *", "time_zone": "Europe/Berlin"}, "timeout_s": 60, "retry": {"max_attempts": 3}}
    """
    job = job_from_json(json.loads(source))
    assert job.triggers == (Cron("0 2 * * *", "Europe/Berlin"),)
    assert job.retry == Retry(max_attempts=3)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"executor_clas": "a"}, "executor_clas: is not known; did you mean executor_class?"),
        ({"executor_class": "a", "colour": 1}, "colour: is not known; known are id, name, "),
        (
            {"executor_class": "a", "retry": {"max_atempts": 3}},
            "retry.max_atempts: is not known; did you mean max_att",
        ),
        (
            {"executor_class": "a", "trigger": {"every_s": 5, "strat": 1}},
            "trigger.strat: is not known; did you mean start",
        ),
        ({"executor_class": "a", "trigger": {"cron": "* * * * *", "at": "x"}}, "trigger: must be one of"),
        (
            {"executor_class": "a", "trigger": {"at": "2030-01-01T00:00"}},
            "trigger.at: '2030-01-01T00:00' has no offset",
        ),
        *(
            ({"executor_class": "a", "trigger": {"cron": "@daily", "time_zone": zone}}, "trigger.time_zone: ")
            for zone in ("", False, 0)
        ),
        *(
            ({"executor_class": "a", "trigger": {"every_s": 9, "jitter_s": jitter}}, "trigger.jitter_s: ")
            for jitter in ("", False)
        ),
        ({"executor_class": "a", "trigger": {"at": "soon"}}, "trigger.at: 'soon' is no ISO 8601 time"),
        ({"executor_class": "a", "trigger": {"at": "2030-01-01Z"}, "triggers": []}, "trigger: give either"),
        ({"executor_class": "a", "triggers": {}}, "triggers: must be a list"),
        ({"executor_class": "a", "priority": "hihg"}, "priority: 'hihg' is not one of high, normal, low"),
        ({"executor_class": None}, "executor_class: is missing"),
        ({}, "executor_class: is missing"),
        ([], "submission: must be a JSON object, not list"),
    ],
)
def test_json_that_is_wrong_says_where_and_what_to_do(source: object, message: str) -> None:
    with pytest.raises(InvalidJob) as refusal:
        job_from_json(source)
    assert str(refusal.value).startswith(message)


def test_a_change_of_one_field_of_the_retry_policy_leaves_the_others() -> None:
    job = Job(executor_class="x", retry=Retry(max_attempts=2, pauses_s=(1, 5), give_up_on=("ValueError",)))
    changed = changed_job(job, {"retry": {"max_attempts": 5}})
    assert changed.retry == replace(job.retry, max_attempts=5)
    assert changed_job(job, {"retry": None}).retry == Retry()
    assert changed_job(job, {"trigger": {"every_s": 5}}).retry == job.retry
