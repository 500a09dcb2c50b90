"""The demo's own checks: what is as expected passes, and what is not is named."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dueline.clock import to_ms
from dueline.outputs import read_output
from dueline.runs import Output
from dueline.states import AttemptState, JobState, RunState
from infra.view_values import AttemptView, JobView, RunView
from producers.demo.scenario import TYPED, Scene, scenes
from producers.demo.watch import Seen, problems

NOW = datetime(2030, 1, 31, 2, 59, 58, tzinfo=UTC)
ALL = [*scenes(NOW), *TYPED]


def as_expected(scene: Scene) -> Seen:
    """What the views would show of a scene that went well; the address of an output is what it says."""
    dues = scene.dues if scene.dues is not None else (NOW,) * scene.runs
    runs = tuple(
        RunView(job_id="a", due_ms=to_ms(due), state=scene.run_state, attempts=attempts(scene, to_ms(due)))
        for due in dues
    )
    job = JobView(job_id="a", state=scene.job_state, reason="" if runs else scene.reason)
    return Seen(scene=scene, job_id="a", job=job, runs=runs)


def attempts(scene: Scene, due_ms: int) -> tuple[AttemptView, ...]:
    return tuple(
        AttemptView(
            attempt=number,
            state=AttemptState(scene.run_state.value),
            executor_class="command",
            executor="executor-1",
            started_ms=due_ms + 3,
            ended_ms=due_ms + 5,
            reason=scene.reason,
            output=scene.stdout,
        )
        for number in range(1, scene.attempts + 1)
    )


@pytest.fixture(autouse=True)
def outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(root: Path, address: str) -> Output:
        if address == "lost":
            return read_output(root, address)
        state = AttemptState.SUCCEEDED
        return Output(run_id="a@1", attempt=1, state=state, started_ms=1, ended_ms=2, stdout=address.encode())

    monkeypatch.setattr("producers.demo.watch.read_output", read)


@pytest.mark.parametrize("scene", ALL, ids=lambda scene: scene.title)
def test_what_went_well_has_no_problems(scene: Scene) -> None:
    assert list(problems(as_expected(scene), Path())) == []


def test_the_last_due_time_is_within_a_good_minute() -> None:
    assert max((due - NOW).total_seconds() for scene in ALL for due in scene.dues or ()) <= 66


SEEN = as_expected(next(scene for scene in ALL if scene.attempts == 3))
RUN, JOB = SEEN.runs[0], SEEN.job
assert JOB is not None


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        (replace(SEEN, job=None, runs=()), "it can't be seen"),
        (replace(SEEN, job=replace(JOB, state=JobState.ACTIVE)), "the job is ACTIVE, not COMPLETED"),
        (replace(SEEN, runs=(RUN, RUN)), "it has 2 runs, not 1"),
        (replace(SEEN, runs=(replace(RUN, state=RunState.FAILED),)), "it is FAILED, not SUCCEEDED"),
        (replace(SEEN, runs=(replace(RUN, attempts=RUN.attempts[1:]),)), "it has 2 attempts, not 3"),
        (replace(SEEN, runs=(replace(RUN, due_ms=RUN.due_ms + 60_000),)), "before its due time"),
        (
            replace(SEEN, runs=(replace(RUN, attempts=(replace(RUN.attempts[0], output="lost"),) * 3),)),
            "is no address of an output",
        ),
    ],
)
def test_what_did_not_is_named(seen: Seen, problem: str) -> None:
    assert any(problem in found for found in problems(seen, Path()))
