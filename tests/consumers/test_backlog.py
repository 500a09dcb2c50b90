"""Whose turn it is: high before normal before low, the aged before all, and one run of a job at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.backlog import AGING_LIMIT_MS, Backlog, Taken
from dueline.job import Priority
from dueline.policies import Overlap
from tests.consumers.ready_runs import taken

HIGH, NORMAL, LOW = Priority
NOW_MS = 10_000_000


def all_of(backlog: Backlog, now_ms: int = NOW_MS) -> list[str]:
    """The jobs in the order of their turns, each run ending at once."""
    jobs = []
    while (turn := backlog.next(now_ms)) is not None:
        jobs.append(turn.run.job_id)
        backlog.ended(turn)
    return jobs


def test_nobody_has_a_turn_in_an_empty_backlog() -> None:
    assert Backlog().next(NOW_MS) is None
    assert len(Backlog()) == 0


def test_priority_then_emit_time_then_arrival() -> None:
    backlog = Backlog()
    for job, priority, emit_ms in [
        ("low", LOW, NOW_MS - 9),
        ("normal", NORMAL, NOW_MS - 5),
        ("second", HIGH, NOW_MS - 1),
        ("third", HIGH, NOW_MS - 1),
        ("first", HIGH, NOW_MS - 2),
    ]:
        backlog.add(taken(job, priority=priority, emit_ms=emit_ms))
    assert all_of(backlog) == ["first", "second", "third", "normal", "low"]


def test_a_run_that_is_late_beyond_the_limit_counts_as_high() -> None:
    backlog = Backlog()
    backlog.add(taken("high", priority=HIGH, emit_ms=NOW_MS - 10))
    backlog.add(taken("not yet", priority=NORMAL, emit_ms=NOW_MS - AGING_LIMIT_MS))
    backlog.add(taken("aged", priority=LOW, emit_ms=NOW_MS - AGING_LIMIT_MS - 1))
    backlog.add(taken("aged high", priority=HIGH, emit_ms=NOW_MS - AGING_LIMIT_MS - 2))
    assert all_of(backlog) == ["aged high", "aged", "high", "not yet"]


def test_one_run_of_a_job_at_a_time_and_the_others_go_on() -> None:
    backlog = Backlog()
    for emit_ms in (1, 2, 3):
        backlog.add(taken("same", priority=HIGH, emit_ms=emit_ms))
    backlog.add(taken("other", priority=LOW, emit_ms=4))
    first, second = backlog.next(5), backlog.next(5)
    assert first is not None
    assert second is not None
    assert (first.run.emit_ms, second.run.job_id) == (1, "other")
    assert backlog.next(5) is None
    assert len(backlog) == 2
    backlog.ended(first)
    third = backlog.next(5)
    assert third is not None
    assert third.run.emit_ms == 2


def test_what_is_dropped_has_no_turn_and_what_runs_goes_on() -> None:
    backlog = Backlog()
    for emit_ms in (1, 2, 3):
        backlog.add(taken("gone", shard=1, emit_ms=emit_ms))
    backlog.add(taken("stays", shard=2, emit_ms=4))
    running, stays = backlog.next(9), backlog.next(9)
    assert running is not None
    assert stays is not None
    assert (running.run.job_id, stays.run.job_id) == ("gone", "stays")
    assert backlog.next(9) is None  # the other two wait behind the first
    backlog.drop({1})
    assert len(backlog) == 0
    backlog.ended(running)
    assert backlog.next(9) is None
    backlog.ended(stays)
    backlog.add(taken("gone", shard=1, emit_ms=2))  # the shard has come back
    assert all_of(backlog, 9) == ["gone"]


def came(overlap: Overlap, *, while_performed: bool) -> tuple[Backlog, Taken]:
    """A backlog in which a run of a job is performed, and a second and a third have come, meanwhile or before."""
    backlog = Backlog()
    backlog.add(taken("job", emit_ms=1, overlap=overlap))
    if while_performed:
        first = backlog.next(9)
    for emit_ms in (2, 3):
        backlog.add(taken("job", emit_ms=emit_ms, overlap=overlap))
    if not while_performed:
        first = backlog.next(9)
        assert backlog.next(9) is None
    assert first is not None
    return backlog, first


@pytest.mark.parametrize("while_performed", [True, False])
@pytest.mark.parametrize(
    ("overlap", "skipped", "displaced"),
    [
        (Overlap.QUEUE_ALL, [], set()),
        (Overlap.QUEUE_ONE, [3], set()),
        (Overlap.SKIP, [2, 3], set()),
        (Overlap.CANCEL_RUNNING, [2], {"job"}),
    ],
)
def test_what_comes_while_a_run_of_its_job_is_performed_goes_by_its_policy(
    overlap: Overlap, skipped: list[int], displaced: set[str], while_performed: bool
) -> None:
    backlog, first = came(overlap, while_performed=while_performed)
    assert [left_out.run.emit_ms for left_out in backlog.skipped] == skipped
    assert backlog.displaced == displaced
    assert len(backlog) == 2 - len(skipped)
    backlog.ended(first)
    assert not backlog.displaced
    assert len(all_of(backlog)) == 2 - len(skipped)


@pytest.mark.parametrize("overlap", [Overlap.QUEUE_ONE, Overlap.SKIP, Overlap.CANCEL_RUNNING])
def test_a_retry_always_waits(overlap: Overlap) -> None:
    backlog = Backlog()
    backlog.add(taken("job", emit_ms=1, overlap=overlap))
    assert backlog.next(9) is not None
    for attempt in (2, 3):
        backlog.add(taken("job", emit_ms=2, attempt=attempt, overlap=overlap))
    assert not backlog.skipped
    assert not backlog.displaced
    assert len(backlog) == 2


runs = st.builds(
    taken,
    st.sampled_from("abcde"),
    emit_ms=st.integers(NOW_MS - 2 * AGING_LIMIT_MS, NOW_MS),
    priority=st.sampled_from(Priority),
)


@given(st.lists(st.one_of(runs, st.sampled_from(["next", "end", "drop"])), max_size=60), st.data())
def test_nothing_is_lost_and_no_job_runs_twice_at_once(steps: list[Taken | str], data: st.DataObject) -> None:
    backlog = Backlog()
    waiting: list[Taken] = []
    performed: list[Taken] = []
    for step in steps:
        if isinstance(step, Taken):
            # Of one job, the shard is always the same.
            run = taken(
                step.run.job_id,
                emit_ms=step.run.emit_ms,
                priority=step.run.priority,
                shard=ord(step.run.job_id) % 3,
            )
            backlog.add(run)
            waiting.append(run)
        elif step == "next":
            turn = backlog.next(NOW_MS)
            busy = {other.run.job_id for other in performed}
            free = [run for run in waiting if run.run.job_id not in busy]
            assert (turn is None) == (not free)
            if turn is not None:
                waiting.remove(turn)
                performed.append(turn)
                assert turn in free
        elif step == "end" and performed:
            backlog.ended(performed.pop(data.draw(st.integers(0, len(performed) - 1))))
        elif step == "drop":
            shard = data.draw(st.integers(0, 2))
            backlog.drop({shard})
            waiting = [run for run in waiting if run.partition != shard]
        assert len(backlog) == len(waiting)
    for run in performed:
        backlog.ended(run)
    assert sorted(all_of(backlog)) == sorted(run.run.job_id for run in waiting)
