"""A run's way from its turn to its end, in a real slot: how far an attempt was is where the next one goes on."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest_asyncio

from consumers.account import Account
from consumers.backlog import Taken
from consumers.cancels import Cancels
from consumers.findings import NOTHING, Begun, Past
from consumers.output_store import OutputWriter
from consumers.performer import Performer
from consumers.positions import Positions
from consumers.reporter import Reporter
from consumers.slots import SlotPool
from dueline.clock import SystemClock
from dueline.codec import decode_run_event, decode_submission, encode_ready_run
from dueline.commands import RetryCommand
from dueline.outputs import read_output
from dueline.policies import Retry
from dueline.runs import ReadyRun
from dueline.states import AttemptState
from infra.publisher import Publisher
from tests.consumers.fake_publisher import FakePublisher
from tests.consumers.helpers import CLASSES, ready
from tests.consumers.run_events import event_bytes


class Stage:
    """A performer with all that it needs, and one slot."""

    def __init__(self, pool: SlotPool, outputs: Path) -> None:
        self.outputs = outputs
        self.publisher = FakePublisher()
        self.failures: list[BaseException] = []
        self.cancels = Cancels()
        self._account = Account()
        self._performer = Performer(
            slots=1,
            pool=pool,
            outputs=OutputWriter(outputs, "executor-1"),
            reporter=Reporter(cast(Publisher, self.publisher), "executor-1", {0: 3}, lambda: None),
            account=self._account,
            cancels=self.cancels,
            positions=Positions(),
            clock=SystemClock(),
            failed=self.failures.append,
        )

    def perform(self, run: ReadyRun, past: Past = NOTHING) -> None:
        taken = Taken(run=run, key=run.key, place=("ready", 0), offset=0, record=encode_ready_run(run))
        self._account.take(taken.place, taken.offset)
        self._account.wait(taken)
        self._performer.admit(taken, past, doubtful=False)
        self._performer.start_runs()


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    pool = SlotPool(1, [CLASSES])
    await pool.start()
    stage = Stage(pool, tmp_path)
    yield stage
    await pool.close()
    assert stage.failures == []


async def test_a_retry_goes_on_from_what_was_reported(stage: Stage) -> None:
    run = replace(ready("report", values=[1, {"page": 2}], then="fail"), retry=Retry(max_attempts=3))
    stage.perform(run)
    retry, event = [record.value or b"" for record in await stage.publisher.sent(2)]
    command = decode_submission(retry)
    assert isinstance(command, RetryCommand)
    assert (command.run.attempt, command.run.progress) == (3, '{"page":2}')
    assert decode_run_event(event).progress == '{"page":2}'


async def test_a_repeat_goes_on_from_what_the_lost_executor_had_told(stage: Stage) -> None:
    lost = event_bytes("job", AttemptState.RUNNING, attempt=2, progress='{"page":2}')
    stage.perform(ready("report"), Past(begun=(Begun(decode_run_event(lost), lost=True),)))
    records = await stage.publisher.sent(3)
    told, began, ended = [decode_run_event(record.value or b"") for record in records]
    assert (told.state, told.attempt, told.progress) == (AttemptState.INTERRUPTED, 2, '{"page":2}')
    assert (began.state, began.attempt, began.progress) == (AttemptState.RUNNING, 3, "")
    assert ended.state is AttemptState.SUCCEEDED
    assert read_output(stage.outputs, ended.output).result == '{"page": 2}'
