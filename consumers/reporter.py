"""What an executor tells of its runs: events on `jobs.runs`, and commands for the attempts that follow on failures."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from consumers.backlog import Taken
from consumers.slots import Outcome
from dueline.address import RUNS, SUBMISSIONS
from dueline.codec import encode_retry_command, encode_run_event
from dueline.commands import RetryCommand
from dueline.runs import ReadyRun, RunEvent
from dueline.states import AttemptState
from infra.publisher import Placed, Publisher, Record

_RETRIED = {AttemptState.FAILED, AttemptState.TIMED_OUT, AttemptState.CRASHED}


class Reporter:
    """Makes events and delivers them, in the order of completion (design 3.5)."""

    def __init__(
        self,
        publisher: Publisher,
        executor: str,
        #: The owner epoch of each shard that is held.
        epochs: Mapping[int, int],
        #: Raises when the lease has ended: then nothing may be said any more.
        check: Callable[[], None],
    ) -> None:
        self._publisher = publisher
        self._executor = executor
        self._epochs = epochs
        self._check = check

    def started(self, taken: Taken, started_ms: int) -> None:
        """Tell that a run goes on. Not waited for: its end follows on the same partition, by the same producer."""
        event = self._event(taken, AttemptState.RUNNING, at_ms=started_ms, started_ms=started_ms)
        self.unawaited(_record(taken.partition, event))

    async def ended(self, taken: Taken, outcome: Outcome, output: str) -> Placed:
        """Tell how an attempt ended; returns when Kafka has acknowledged that, and the retry before it."""
        run = taken.run
        pause_ms = run.retry.pause_ms(run.attempt) if outcome.state in _RETRIED else None
        retry_ms = None if pause_ms is None else outcome.ended_ms + pause_ms
        event = self._event(
            taken,
            outcome.state,
            at_ms=outcome.ended_ms,
            started_ms=outcome.started_ms,
            ended_ms=outcome.ended_ms,
            retry_ms=retry_ms,
            reason=outcome.reason,
            exit_status=outcome.exit_status,
            output=output,
        )
        if retry_ms is not None:
            await self.retry(run, retry_ms)
        (placed,) = await self._publisher.deliver([_record(taken.partition, event)], self._check)
        return placed

    async def retry(self, run: ReadyRun, retry_ms: int) -> None:
        """Ask for the attempt that follows a failed one; returns when Kafka has acknowledged that."""
        command = RetryCommand(
            follows=run.attempt, run=replace(run, attempt=run.attempt + 1, emit_ms=retry_ms)
        )
        await self._publisher.deliver(
            [Record(SUBMISSIONS, run.job_id.encode(), encode_retry_command(command))], self._check
        )

    def unawaited(self, record: Record) -> None:
        """Send what only matters if it arrives."""
        self._publisher.publish([record]).add_done_callback(asyncio.Future.exception)

    def _event(self, taken: Taken, state: AttemptState, **what: Any) -> RunEvent:
        run = taken.run
        return RunEvent(
            job_id=run.job_id,
            due_ms=run.due_ms,
            attempt=run.attempt,
            version=run.version,
            state=state,
            executor_class=run.executor_class,
            priority=run.priority,
            recurring=run.recurring,
            executor=self._executor,
            epoch=self._epochs[taken.partition],
            **what,
        )


def _record(shard: int, event: RunEvent) -> Record:
    return Record(RUNS, event.job_id.encode(), encode_run_event(event), shard)
