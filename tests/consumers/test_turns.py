"""Who begins next at an executor, and that a suspect has nothing beside it."""

from hypothesis import given
from hypothesis import strategies as st

from consumers.backlog import Taken
from consumers.findings import LOST_BESIDE_OTHERS_MAX, Findings, Past
from consumers.turns import Turns
from dueline.states import AttemptState
from tests.consumers.ready_runs import taken
from tests.consumers.run_events import event_bytes


def suspicious() -> Past:
    findings = Findings(0)
    for attempt in range(1, LOST_BESIDE_OTHERS_MAX + 1):
        findings.add(attempt, event_bytes("heavy", AttemptState.RUNNING, attempt=attempt))
    return findings.past_of(taken("heavy", emit_ms=5).run)


SUSPICIOUS = suspicious()


def test_as_many_begin_as_there_are_slots() -> None:
    turns = Turns(lambda: 2)
    for index in range(3):
        turns.add(taken(f"job-{index}"))
    first, second = turns.next(0), turns.next(0)
    assert first
    assert second
    assert turns.next(0) is None
    turns.ended(first)
    assert turns.running == 1
    assert turns.next(0) is not None


def test_a_suspect_waits_for_all_slots_and_has_them_all() -> None:
    turns = Turns(lambda: 2)
    for job, past in (("first", Past()), ("suspect", SUSPICIOUS), ("last", Past())):
        turns.add(taken(job, past=past))
    first = turns.next(0)
    assert first is not None
    assert turns.next(0) is None
    turns.ended(first)
    suspect = turns.next(0)
    assert suspect is not None
    assert suspect.run.job_id == "suspect"
    assert turns.next(0) is None
    turns.ended(suspect)
    last = turns.next(0)
    assert last is not None
    assert last.run.job_id == "last"


def test_a_suspect_whose_shard_is_given_up_holds_nobody_up() -> None:
    turns = Turns(lambda: 2)
    first, suspect = taken("first"), taken("suspect", shard=1, past=SUSPICIOUS)
    turns.add(first)
    assert turns.next(0) is first
    turns.add(suspect)
    turns.add(taken("last"))
    assert turns.next(0) is None
    turns.drop({1})
    last = turns.next(0)
    assert last is not None
    assert last.run.job_id == "last"
    turns.add(suspect)  # its shard comes back
    turns.ended(first)
    turns.ended(last)
    assert turns.next(0) is suspect


@given(
    st.integers(1, 4),
    st.lists(
        st.tuples(st.sampled_from(["ordinary", "suspect", "end", "drop"]), st.integers(0, 3)), max_size=60
    ),
)
def test_nobody_is_beside_a_suspect_and_nobody_is_forgotten(slots: int, steps: list[tuple[str, int]]) -> None:
    turns, waiting, running = Turns(lambda: slots), list[Taken](), list[Taken]()
    for number, (step, index) in enumerate(steps):
        if step in ("ordinary", "suspect"):
            past = SUSPICIOUS if step == "suspect" else Past()
            waiting.append(taken(f"job-{number}", emit_ms=number, shard=index, past=past))
            turns.add(waiting[-1])
        elif step == "end" and running:
            turns.ended(running.pop(index % len(running)))
        elif step == "drop":
            turns.drop({index})
            waiting = [run for run in waiting if run.partition != index]
        while (run := turns.next(number)) is not None:
            waiting.remove(run)
            running.append(run)
        assert len(running) == turns.running <= slots
        assert len(running) == 1 or not any(run.past.suspicious for run in running)
    while running or waiting:  # all have their turn in the end
        turns.ended(running.pop())
        while (run := turns.next(99)) is not None:
            waiting.remove(run)
            running.append(run)
