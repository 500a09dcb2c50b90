"""What a new owner learns from its shard's partition of jobs.runs: what has ended, and what was begun in vain."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.findings import Ended, Findings, Past
from dueline.codec import EPOCH_END
from dueline.runs import ReadyRun
from dueline.states import AttemptState
from tests.consumers.ready_runs import taken
from tests.consumers.run_events import event_bytes, started

RUNNING, INTERRUPTED = AttemptState.RUNNING, AttemptState.INTERRUPTED
SUCCEEDED, FAILED = AttemptState.SUCCEEDED, AttemptState.FAILED


def findings_of(*records: bytes) -> Findings:
    findings = Findings(0)
    for offset, record in enumerate(records):
        findings.add(offset, record)
    return findings


def ready(job_id: str, attempt: int = 1) -> ReadyRun:
    return replace(taken(job_id, emit_ms=5).run, attempt=attempt)


def test_what_has_ended_is_found_with_its_retry() -> None:
    findings = findings_of(
        started(1),
        event_bytes("good", RUNNING),
        event_bytes("good", SUCCEEDED),
        event_bytes("bad", FAILED, retry_ms=9),
        event_bytes("cancelled", AttemptState.CANCELLED),
    )
    assert findings.past_of(ready("good")) == Past(ended=Ended(SUCCEEDED, None))
    assert findings.past_of(ready("bad")) == Past(ended=Ended(FAILED, 9))
    assert findings.past_of(ready("cancelled")) == Past(ended=Ended(AttemptState.CANCELLED, None))
    assert findings.past_of(ready("unheard of")) == Past()
    assert findings.next_offset == 5


def test_a_retry_has_a_past_of_its_own() -> None:
    findings = findings_of(event_bytes("bad", FAILED, retry_ms=9), event_bytes("bad", RUNNING, attempt=2))
    assert findings.past_of(ready("bad")).ended == Ended(FAILED, 9)
    assert findings.past_of(ready("bad", attempt=2)).repeat(ready("bad", attempt=2)).attempt == 3


def test_what_was_given_up_in_good_order_is_repeated_and_blamed_for_nothing() -> None:
    past = findings_of(event_bytes("moved", RUNNING), event_bytes("moved", INTERRUPTED)).past_of(
        ready("moved")
    )
    assert (past.ended, past.lost) == (None, 0)
    assert past.repeat(ready("moved")) == replace(ready("moved"), attempt=2)


def test_a_repeat_that_ended_has_ended_the_record() -> None:
    past = findings_of(
        event_bytes("moved", INTERRUPTED), started(2), event_bytes("moved", SUCCEEDED, epoch=2, attempt=2)
    ).past_of(ready("moved"))
    assert past.ended == Ended(SUCCEEDED, None)
    assert past.repeat(ready("moved")).attempt == 2


def test_a_start_without_an_end_is_lost_whether_or_not_a_later_owner_said_so() -> None:
    untold = findings_of(started(1), event_bytes("heavy", RUNNING)).past_of(ready("heavy"))
    told = findings_of(
        started(1),
        event_bytes("heavy", RUNNING),
        started(2),
        event_bytes("heavy", INTERRUPTED, epoch=2),
    ).past_of(ready("heavy"))
    twice = findings_of(
        started(1),
        event_bytes("heavy", RUNNING),
        started(2),
        event_bytes("heavy", INTERRUPTED, epoch=2),
        event_bytes("heavy", INTERRUPTED, epoch=2),
    ).past_of(ready("heavy"))
    assert (untold.lost, told.lost, twice.lost) == (1, 1, 1)
    assert [begun.told for begun in (*untold.begun, *told.begun)] == [False, True]


@pytest.mark.parametrize(
    ("starts", "suspicious", "hopeless"),
    [(1, False, False), (2, True, False), (4, True, False), (5, True, True)],
)
def test_a_run_that_was_lost_too_often_is_a_suspect_and_then_hopeless(
    starts: int, suspicious: bool, hopeless: bool
) -> None:
    records: list[bytes] = []
    for start in range(1, starts + 1):
        records += [started(start), event_bytes("heavy", RUNNING, epoch=start, attempt=start)]
        records += [event_bytes("orderly", INTERRUPTED, epoch=start, attempt=start)]
    findings = findings_of(*records)
    past = findings.past_of(ready("heavy"))
    assert (past.suspicious, past.hopeless) == (suspicious, hopeless)
    assert not findings.past_of(ready("orderly")).suspicious


def test_a_repeat_goes_on_from_what_was_reported_last() -> None:
    findings = findings_of(
        started(1),
        event_bytes("long", RUNNING),
        event_bytes("long", RUNNING, progress="1"),
        event_bytes("long", RUNNING, progress="2"),
        event_bytes("given up", RUNNING, progress="1"),
        event_bytes("given up", INTERRUPTED, progress="2"),
        started(2),
        event_bytes("long", INTERRUPTED, epoch=2, progress="2"),
        event_bytes("long", RUNNING, epoch=2, attempt=2),
    )
    lost = findings.past_of(ready("long")).repeat(ready("long"))
    given_up = findings.past_of(ready("given up")).repeat(ready("given up"))
    assert [(run.attempt, run.progress) for run in (lost, given_up)] == [(3, "2"), (2, "2")]
    before = replace(ready("given up", attempt=2), progress="before")
    silent = findings_of(event_bytes("given up", RUNNING, attempt=2)).past_of(before)
    assert silent.repeat(before) == replace(before, attempt=3)


def test_a_retry_that_may_not_have_been_asked_for_goes_on_from_what_was_reported_last() -> None:
    findings = findings_of(
        event_bytes("bad", FAILED, retry_ms=9, progress="1"), event_bytes("worse", FAILED, progress="1")
    )
    assert findings.past_of(ready("bad")).ended == Ended(FAILED, 9, "1")
    assert findings.past_of(ready("worse")).ended == Ended(FAILED, None)


def test_a_former_owner_is_not_heard_behind_its_successor() -> None:
    findings = findings_of(started(1), started(2), event_bytes("late", SUCCEEDED, epoch=1))
    assert findings.past_of(ready("late")) == Past()
    assert findings.succession.epoch == 2


def test_a_foreign_record_is_passed_over() -> None:
    no_owners = event_bytes("good", FAILED, epoch=EPOCH_END)
    findings = findings_of(b"{}", no_owners, event_bytes("good", SUCCEEDED))
    assert findings.past_of(ready("good")).ended == Ended(SUCCEEDED, None)


@given(st.lists(st.sampled_from(["given up", "lost", "lost and told"]), max_size=8), st.booleans())
def test_each_start_in_vain_is_one_attempt(starts: list[str], ended: bool) -> None:
    records: list[bytes] = []
    for index, how in enumerate(starts):
        attempt, epoch = index + 1, 2 * index + 1
        records += [started(epoch), event_bytes("job", RUNNING, epoch=epoch, attempt=attempt)]
        if how == "given up":
            records += [event_bytes("job", INTERRUPTED, epoch=epoch, attempt=attempt)]
        elif how == "lost and told":
            records += [started(epoch + 1), event_bytes("job", INTERRUPTED, epoch=epoch + 1, attempt=attempt)]
    if ended:
        records.append(event_bytes("job", SUCCEEDED, epoch=99, attempt=len(starts) + 1))
    past = findings_of(*records).past_of(ready("job"))
    assert past.repeat(ready("job")).attempt == len(starts) + 1
    assert past.lost == len([how for how in starts if how != "given up"])
    assert (past.ended is not None) is ended
