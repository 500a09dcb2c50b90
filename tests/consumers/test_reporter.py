"""What an executor says of a run's progress."""

from typing import cast

import pytest

from consumers.reporter import Reporter
from consumers.slots import Outcome
from dueline.codec import decode_submission
from dueline.commands import RetryCommand
from dueline.states import AttemptState
from infra.publisher import Publisher
from tests.consumers.fake_publisher import FakePublisher
from tests.consumers.ready_runs import taken


def reporter_with(publisher: FakePublisher) -> Reporter:
    return Reporter(cast(Publisher, publisher), "executor-1", {0: 3}, lambda: None)


async def test_the_progress_of_a_run_is_told_while_it_goes_on() -> None:
    publisher = FakePublisher()
    reporter_with(publisher).reported(taken("a"), 5, 9, '{"page":2}')
    event = publisher.last_event
    assert (event.state, event.started_ms, event.at_ms) == (AttemptState.RUNNING, 5, 9)
    assert (event.progress, event.epoch) == ('{"page":2}', 3)


@pytest.mark.parametrize("state", [s for s in AttemptState if s.name in ("FAILED", "INTERRUPTED", "CRASHED")])
async def test_an_attempt_in_vain_leaves_its_progress(state: AttemptState) -> None:
    publisher, run = FakePublisher(), taken("a")
    outcome = Outcome(state=state, started_ms=5, ended_ms=9, progress="2")
    following = run.run.after(AttemptState.CRASHED, 9, progress="2")
    await reporter_with(publisher).ended(run, outcome, "", following)
    retry = decode_submission(publisher.records[0].value or b"")
    assert isinstance(retry, RetryCommand)
    assert (retry.run.progress, publisher.last_event.progress) == ("2", "2")


async def test_a_success_needs_no_progress_any_more() -> None:
    publisher = FakePublisher()
    outcome = Outcome(state=AttemptState.SUCCEEDED, started_ms=5, ended_ms=9, progress="2")
    await reporter_with(publisher).ended(taken("a"), outcome, "", None)
    assert publisher.last_event.progress == ""
