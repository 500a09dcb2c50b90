"""What an executor has taken and finished: when it stops taking, what it commits, and which records it knows."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers import account as module
from consumers.account import (
    REMEMBERED_MS,
    SPAN_MAX,
    WAITING_BYTES_MAX,
    WAITING_MAX,
    WAITING_RESUMED,
    Account,
)
from consumers.backlog import Taken
from dueline.address import READY
from dueline.job import Priority
from tests.consumers.ready_runs import taken

PLACE = (READY[Priority.NORMAL], 0)


def take(account: Account, offset: int, shard: int = 0) -> Taken:
    run = taken(f"job-{offset}", offset=offset, shard=shard)
    account.take(run.place, offset)
    account.wait(run)
    return run


def test_a_partition_is_full_at_the_upper_bound_and_resumed_below_the_lower_one() -> None:
    account = Account()
    runs = [take(account, offset) for offset in range(WAITING_MAX)]
    assert account.full == {PLACE}
    while runs:
        account.begin(run := runs.pop())
        account.finish(run.place, run.offset)
        assert (account.full == {PLACE}) == (len(runs) >= WAITING_RESUMED)
    for offset in range(WAITING_MAX, 2 * WAITING_MAX - 1):
        take(account, offset)
        assert not account.full


def test_many_runs_of_one_job_keep_no_others_away() -> None:
    account = Account()
    runs = [taken("backfilled", emit_ms=offset, offset=offset) for offset in range(2 * WAITING_MAX)]
    for run in runs:
        account.take(run.place, run.offset)
        account.wait(run)
    assert not account.full
    for offset in range(len(runs), len(runs) + WAITING_MAX - 1):
        take(account, offset)
    assert account.full == {PLACE}
    for run in runs:
        account.begin(run)
    take(account, offset + 1)
    assert account.full == {PLACE}, "for the others alone"


def test_a_partition_is_full_while_much_waits() -> None:
    account = Account()
    record = bytes(WAITING_BYTES_MAX // 4)
    runs = [replace(taken("large", emit_ms=offset, offset=offset), record=record) for offset in range(4)]
    for run in runs:
        assert not account.full
        account.take(run.place, run.offset)
        account.wait(run)
    assert account.full == {PLACE}
    account.begin(replace(runs[0], record=b"that of a later attempt"))
    account.begin(runs[1])
    account.begin(runs[2])
    assert account.full == {PLACE}
    account.begin(runs[3])
    assert not account.full


def test_a_partition_is_full_while_its_span_is_too_long() -> None:
    account = Account()
    slow = take(account, 0)
    account.begin(slow)
    for offset in range(1, SPAN_MAX):
        account.begin(take(account, offset))
        account.finish(PLACE, offset)
    assert account.full == {PLACE}
    account.finish(PLACE, 0)
    assert not account.full
    assert account.committable == {PLACE: SPAN_MAX}


def test_records_that_are_passed_over_count_for_the_span() -> None:
    account = Account()
    account.begin(take(account, 0))
    account.take(PLACE, SPAN_MAX)
    account.finish(PLACE, SPAN_MAX)
    assert account.full == {PLACE}


def test_a_run_is_known_from_its_first_record_until_long_after_its_end() -> None:
    account = Account()
    run = take(account, 0)
    assert account.knows(run.run.key, 0)
    account.begin(run)
    account.remember(run.run.key, 1000)
    assert account.knows(run.run.key, 1000 + REMEMBERED_MS - 1)
    assert not account.knows(run.run.key, 1000 + REMEMBERED_MS)


def test_what_is_forgotten_is_read_again_and_what_had_finished_is_not_performed_again() -> None:
    account = Account()
    finished, waiting, other = take(account, 0), take(account, 1), take(account, 0, shard=1)
    account.begin(finished)
    account.remember(finished.run.key, 0)
    account.finish(finished.place, 0)
    account.forget({0})
    assert account.committable == {other.place: 0}
    assert account.knows(finished.run.key, 1)
    assert not account.knows(waiting.run.key, 1)
    account.finish(waiting.place, 1)  # it ended after all, when its shard was gone
    assert account.committable == {other.place: 0}
    take(account, 1)
    assert account.committable[PLACE] == 1


def test_a_full_partition_that_is_forgotten_is_not_full() -> None:
    account = Account()
    for offset in range(WAITING_MAX):
        take(account, offset)
    account.forget({0})
    assert not account.full
    take(account, 0)
    assert not account.full


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 50_000)), min_size=1, max_size=50))
def test_no_run_is_forgotten_before_its_time(ends: list[tuple[str, int]]) -> None:
    account, now_ms, last = Account(), 0, dict[str, int]()
    for job, pause_ms in ends:
        now_ms += pause_ms
        account.remember((job, 1), now_ms)
        last[job] = now_ms
        for known, at_ms in last.items():
            assert account.knows((known, 1), now_ms) == (now_ms < at_ms + REMEMBERED_MS)


@given(st.lists(st.sampled_from(["take", "begin", "finish"]), max_size=200))
def test_a_partition_with_nothing_taken_is_never_full(steps: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WAITING_MAX", 4)
        patch.setattr(module, "WAITING_RESUMED", 2)
        patch.setattr(module, "SPAN_MAX", 8)
        account, offset = Account(), 0
        waiting: list[Taken] = []
        running: list[Taken] = []
        for step in steps:
            if step == "take":
                waiting.append(take(account, offset))
                offset += 1
            elif step == "begin" and waiting:
                running.append(waiting.pop(0))
                account.begin(running[-1])
            elif step == "finish" and running:
                run = running.pop()
                account.finish(run.place, run.offset)
            span = offset - min((run.offset for run in waiting + running), default=offset)
            assert not account.full or len(waiting) >= 2 or span >= 8
            assert account.full or (len(waiting) < 4 and span < 8)
