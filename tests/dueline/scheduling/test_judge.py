"""What becomes of a row whose time has come: one example for each way. That it holds over crashes is in test_control_model.py."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest

from dueline.calendars import Calendar
from dueline.clock import from_ms, to_ms
from dueline.codec import decode_ready_run, encode_job
from dueline.job import Job
from dueline.policies import Missed
from dueline.runs import ReadyRun
from dueline.scheduling.judge import LEFT_OUT_MAX, MISSED_AFTER_MS, UNREADABLE_WAITS_MS, Judge, Judged
from dueline.scheduling.rows import row_of
from dueline.scheduling.values import Change, ScheduledRun
from dueline.states import AttemptState
from dueline.triggers import Cron, Every, Once

NOW_MS = 1_800_000_000_000
MINUTE_MS, DAY_MS = 60_000, 86_400_000
ALL_SATISFIED = 1 << 62
CANCELLED, MISSED, SKIPPED = AttemptState.CANCELLED, AttemptState.MISSED, AttemptState.SKIPPED


def recurring(due_ms: int, *, version: int = 7, every_s: int = 60, **fields: Any) -> ScheduledRun:
    """The row of a job that is due every minute."""
    start = from_ms(NOW_MS - 1000 * MINUTE_MS)
    trigger = Every(timedelta(seconds=every_s), start=start)
    job = Job(id="job", executor_class="x", triggers=(trigger,), **fields)
    run = ReadyRun.of(job, due_ms=due_ms, emit_ms=due_ms, version=version)
    return row_of(run, version, encode_job(job))


def once(due_ms: int, *, attempt: int = 1, version: int = 7, **fields: Any) -> ScheduledRun:
    job = Job(id="job", executor_class="x", triggers=(Once(from_ms(due_ms)),), **fields)
    run = ReadyRun.of(job, due_ms=due_ms, emit_ms=due_ms, version=version)
    return row_of(replace(run, attempt=attempt), version, None)


def judged(
    row: ScheduledRun, now_ms: int = NOW_MS, *changes: Change, emitted: tuple[int, ...] = ()
) -> Judged:
    judge = Judge({(f"job@{due_ms}", 1) for due_ms in emitted})
    judge.learn(changes)
    return judge.judge(row, now_ms)


def ends(verdict: Judged) -> list[tuple[int, AttemptState]]:
    """Due times in minutes from now, and how they ended."""
    return [((event.due_ms - NOW_MS) // MINUTE_MS, event.state) for event in verdict.events]


def next_minute(verdict: Judged) -> int | None:
    if verdict.following is None:
        return None
    return (decode_ready_run(verdict.following.run).due_ms - NOW_MS) // MINUTE_MS


def change(version: int, since_ms: int, *, cancels: bool = False) -> Change:
    return Change(
        job_id="job", version=version, since_ms=since_ms, until_ms=NOW_MS, cancels=cancels, reason="why"
    )


def test_in_time_it_is_emitted_and_followed() -> None:
    verdict = judged(recurring(NOW_MS))
    assert (verdict.ready, ends(verdict), next_minute(verdict)) == (True, [], 1)


def test_a_row_that_cant_be_read_here_waits_for_who_can(caplog: pytest.LogCaptureFixture) -> None:
    job = Job(id="job", executor_class="x", triggers=(Cron("0 0 * * *", "Europe/Berlin"),))
    readable = replace(recurring(NOW_MS), definition=encode_job(job))
    newer = encode_job(job).replace(b"Europe/Berlin", b"Europe/Dublon")
    row = replace(readable, definition=newer)
    verdict = judged(row)
    assert verdict == Judged(False, following=replace(row, emit_ms=NOW_MS + UNREADABLE_WAITS_MS))
    assert "'Europe/Dublon' is not an IANA time zone" in caplog.text
    # A cancel of it, which another scheduler has obeyed, is heeded at once.
    verdict = judged(row, NOW_MS, change(9, NOW_MS + 1, cancels=True))
    assert (ends(verdict), verdict.following) == ([(0, CANCELLED)], None)
    later = replace(readable, emit_ms=NOW_MS + UNREADABLE_WAITS_MS)
    assert judged(later, later.emit_ms).ready


@pytest.mark.parametrize("fields", [{}, {"start_within_s": 60, "end_within_s": 90}, {"params": {"a": "ü"}}])
def test_the_row_that_follows_is_the_one_that_the_job_would_have_had(fields: dict[str, Any]) -> None:
    assert judged(recurring(NOW_MS, **fields)).following == recurring(NOW_MS + MINUTE_MS, **fields)


def test_a_minute_late_is_not_missed() -> None:
    verdict = judged(recurring(NOW_MS), NOW_MS + MISSED_AFTER_MS)
    assert (verdict.ready, next_minute(verdict)) == (True, 1)


def test_of_what_was_missed_the_latest_is_run_by_default() -> None:
    verdict = judged(recurring(NOW_MS - 3 * MINUTE_MS))
    assert not verdict.ready
    assert ends(verdict) == [(-3, SKIPPED), (-2, SKIPPED)]
    assert next_minute(verdict) == -1, "which is not more than a minute late, and so was not missed"


def test_all_that_was_missed_may_be_run() -> None:
    verdict = judged(recurring(NOW_MS - 3 * MINUTE_MS, missed=Missed.ALL))
    assert (verdict.ready, ends(verdict), next_minute(verdict)) == (True, [], -2)


def test_all_that_was_missed_may_be_skipped() -> None:
    row = recurring(NOW_MS - 180 * MINUTE_MS, every_s=3600, missed=Missed.SKIP)
    assert ends(judged(row, NOW_MS + 5 * MINUTE_MS))[-1][1] is SKIPPED
    assert not judged(row, NOW_MS + 5 * MINUTE_MS).ready


def test_beyond_the_window_it_is_missed_whatever_the_policy() -> None:
    verdict = judged(recurring(NOW_MS - 5 * MINUTE_MS, missed=Missed.ALL, catch_up_s=180))
    assert (ends(verdict), next_minute(verdict)) == ([(-5, MISSED), (-4, MISSED)], -3)
    assert "within 180 s" in verdict.events[0].reason


def test_a_run_that_another_owner_emitted_is_followed_and_never_left_out() -> None:
    due_ms = NOW_MS - 10 * MINUTE_MS
    verdict = judged(recurring(due_ms), emitted=(due_ms,))
    assert (verdict.ready, ends(verdict), next_minute(verdict)) == (True, [], -9)
    verdict = judged(recurring(due_ms), emitted=(due_ms + 2 * MINUTE_MS,))
    assert (ends(verdict), next_minute(verdict)) == ([(-10, SKIPPED), (-9, SKIPPED)], -8)


def test_very_many_are_left_out_piece_by_piece() -> None:
    verdict = judged(recurring(NOW_MS - 900 * MINUTE_MS, missed=Missed.SKIP))
    assert len(verdict.events) == LEFT_OUT_MAX
    assert next_minute(verdict) == LEFT_OUT_MAX - 900


def test_a_single_instant_is_run_however_late() -> None:
    assert judged(once(NOW_MS - 10_000 * MINUTE_MS)).ready


@pytest.mark.parametrize("fields", [{"start_within_s": 60}, {"end_within_s": 60}])
def test_unless_it_has_a_limit(fields: dict[str, Any]) -> None:
    verdict = judged(once(NOW_MS - 2 * MINUTE_MS, **fields))
    assert (verdict.ready, ends(verdict)) == (False, [(-2, MISSED)])


def test_after_a_change_the_old_version_is_run_for_what_was_due_before() -> None:
    since_ms = NOW_MS - MINUTE_MS // 2
    assert judged(recurring(NOW_MS - MINUTE_MS), NOW_MS, change(8, since_ms)).ready
    late = judged(recurring(NOW_MS), NOW_MS, change(8, since_ms))
    assert (late.ready, late.events, late.following) == (False, (), None)
    assert judged(recurring(NOW_MS, version=8), NOW_MS, change(8, since_ms)).ready


def test_of_several_changes_each_counts_for_the_versions_below_it() -> None:
    changes = (change(8, NOW_MS - 10), change(9, NOW_MS + 10))
    assert not judged(recurring(NOW_MS, version=7), NOW_MS, *changes).ready
    assert judged(recurring(NOW_MS, version=8), NOW_MS, *changes).ready


def test_a_change_leaves_retries_alone_and_a_cancel_ends_them() -> None:
    retry = once(NOW_MS, attempt=2)
    assert judged(retry, NOW_MS, change(8, NOW_MS)).ready
    verdict = judged(retry, NOW_MS, change(8, NOW_MS, cancels=True))
    assert (verdict.ready, [e.key for e in verdict.events]) == (False, [(f"job@{NOW_MS}", 2)])
    assert (verdict.events[0].state, verdict.events[0].reason) == (CANCELLED, "why")


def test_what_was_due_before_a_cancel_and_is_late_ends_by_it() -> None:
    cancel = change(8, NOW_MS - MINUTE_MS // 2, cancels=True)
    verdict = judged(recurring(NOW_MS - 3 * MINUTE_MS), NOW_MS, cancel)
    assert (ends(verdict), next_minute(verdict)) == ([(n, CANCELLED) for n in (-3, -2, -1)], None)
    emitted = (NOW_MS - 2 * MINUTE_MS,)
    verdict = judged(recurring(NOW_MS - 3 * MINUTE_MS), NOW_MS, cancel, emitted=emitted)
    assert (ends(verdict), next_minute(verdict)) == ([(-3, CANCELLED)], -2), "it has a verdict of its own"
    # What is later than that belongs to another version.
    verdict = judged(recurring(NOW_MS - 3 * MINUTE_MS), NOW_MS, cancel, change(9, NOW_MS - 2 * MINUTE_MS))
    assert (ends(verdict), next_minute(verdict)) == ([(-3, CANCELLED)], -2)


def test_a_cancel_ends_so_many_in_one_go_and_no_more() -> None:
    cancel = change(8, NOW_MS - MINUTE_MS // 2, cancels=True)
    row = recurring(NOW_MS - 2 * LEFT_OUT_MAX * MINUTE_MS)
    for minute in (-LEFT_OUT_MAX, None):
        verdict = judged(row, NOW_MS, cancel)
        assert (len(verdict.events), next_minute(verdict)) == (LEFT_OUT_MAX, minute)
        row = verdict.following or row


def test_of_two_tellings_of_one_change_the_longer_counts() -> None:
    judge = Judge()
    cancel = change(8, NOW_MS, cancels=True)
    for until_ms in (NOW_MS - 10, NOW_MS + 10, NOW_MS - 5):
        judge.learn([replace(cancel, until_ms=until_ms)])
    judge.forget(NOW_MS, ALL_SATISFIED)
    assert not judge.judge(once(NOW_MS, attempt=2), NOW_MS).ready


def test_a_due_time_after_a_revival_is_the_new_versions_and_has_no_other_end() -> None:
    changes = (change(8, NOW_MS - 20, cancels=True), change(9, NOW_MS - 10))
    assert judged(recurring(NOW_MS, version=7), NOW_MS, *changes) == Judged(False)
    assert judged(recurring(NOW_MS, version=9), NOW_MS, *changes).ready
    between = judged(once(NOW_MS - 15, version=7), NOW_MS, *changes)
    assert [event.state for event in between.events] == [CANCELLED]


def test_the_old_versions_row_is_void_though_the_new_versions_run_was_emitted() -> None:
    """Else it would be followed, for good."""
    verdict = judged(recurring(NOW_MS), NOW_MS, change(8, NOW_MS - 5), emitted=(NOW_MS,))
    assert verdict == Judged(False)
    verdict = judged(recurring(NOW_MS, version=8), NOW_MS, change(8, NOW_MS - 5), emitted=(NOW_MS,))
    assert next_minute(verdict) == 1


def test_a_run_besides_the_schedule_belongs_to_no_version() -> None:
    job = Job(id="job", executor_class="x", triggers=(Once(from_ms(NOW_MS)),))
    run = ReadyRun.of(job, due_ms=NOW_MS, emit_ms=NOW_MS, version=7, recurring=True)
    assert judged(row_of(run, 8, None), NOW_MS, change(9, NOW_MS)).ready
    assert not judged(row_of(run, 7, None), NOW_MS, change(9, NOW_MS)).ready


def test_of_two_changes_of_a_job_the_one_that_has_passed_is_forgotten() -> None:
    judge = Judge()
    judge.learn([change(8, NOW_MS - 10), replace(change(9, NOW_MS - 5), until_ms=NOW_MS + 10)])
    judge.forget(NOW_MS + 1, ALL_SATISFIED)
    assert judge.judge(once(NOW_MS, version=8), NOW_MS) == Judged(False)
    judge.forget(NOW_MS + 11, ALL_SATISFIED)
    assert judge.judge(once(NOW_MS, version=8), NOW_MS) == Judged(True)


def test_changes_that_have_passed_are_forgotten() -> None:
    judge = Judge()
    judge.learn([change(8, NOW_MS - 10)])
    judge.forget(NOW_MS, ALL_SATISFIED)
    assert judge.judge(once(NOW_MS), NOW_MS) == Judged(False)
    judge.forget(NOW_MS + 1, ALL_SATISFIED)
    assert judge.judge(once(NOW_MS), NOW_MS) == Judged(True)


def test_a_change_stays_as_long_as_submissions_before_it_are_unread() -> None:
    judge = Judge()
    judge.learn([change(5000, NOW_MS - 10)])
    judge.forget(NOW_MS + 1, 10)
    assert judge.judge(once(NOW_MS, version=10), NOW_MS) == Judged(False)
    judge.forget(NOW_MS + 1, 5000)
    assert judge.judge(once(NOW_MS, version=4999), NOW_MS) == Judged(False)
    judge.forget(NOW_MS + 1, 5001)
    assert judge.judge(once(NOW_MS, version=10), NOW_MS) == Judged(True)


def test_the_latest_of_what_was_missed_is_not_one_that_a_calendar_leaves_out() -> None:
    today = from_ms(NOW_MS).date()
    calendars = {"closed": Calendar("closed", (today,))}
    midnight_ms = to_ms(datetime.combine(today, time(), UTC))
    trigger = Every(timedelta(days=1), start=from_ms(midnight_ms - DAY_MS), excluding=("closed",))
    job = Job(id="job", executor_class="x", triggers=(trigger,))
    run = ReadyRun.of(job, due_ms=midnight_ms - DAY_MS, emit_ms=midnight_ms - DAY_MS, version=7)
    verdict = Judge(calendars=calendars).judge(row_of(run, 7, encode_job(job)), NOW_MS)
    assert (verdict.ready, verdict.events) == (True, ())


def test_the_latest_of_what_was_missed_before_a_change_is_run() -> None:
    verdict = judged(recurring(NOW_MS - 5 * MINUTE_MS), NOW_MS, change(8, NOW_MS - 3 * MINUTE_MS - 1))
    assert (ends(verdict), next_minute(verdict)) == ([(-5, SKIPPED)], -4)
    assert judged(recurring(NOW_MS - 4 * MINUTE_MS), NOW_MS, change(8, NOW_MS - 3 * MINUTE_MS - 1)).ready
