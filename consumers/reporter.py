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
        self.unawaited(self._running(taken, started_ms))

    def reported(self, taken: Taken, started_ms: int, now_ms: int, progress: str) -> None:
        """Tell that a run goes on and how far it is, for those who watch it and for the shard's next owner. Not waited for either."""
        event = self._event(
            taken, AttemptState.RUNNING, at_ms=now_ms, started_ms=started_ms, progress=progress
        )
        self.unawaited(_record(taken.partition, event))

    async def starting(self, taken: Taken, started_ms: int) -> None:
        """Tell that a run starts, and what became of its earlier starts; returns when Kafka has acknowledged it.

        So whatever the run does to this executor, its next owner knows of it.
        """
        untold = [begun.event for begun in taken.past.begun if not begun.told]
        lost = [_record(taken.partition, self._lost(taken, event, started_ms)) for event in untold]
        await self._publisher.deliver([*lost, self._running(taken, started_ms)], self._check)

    async def ended(self, taken: Taken, outcome: Outcome, output: str, following: ReadyRun | None) -> Placed:
        """Tell how an attempt ended, and ask for the one that follows, if one does; returns when Kafka has acknowledged both."""
        event = self._event(
            taken,
            outcome.state,
            at_ms=outcome.ended_ms,
            started_ms=outcome.started_ms,
            ended_ms=outcome.ended_ms,
            retry_ms=following.emit_ms if following else None,
            reason=outcome.reason,
            exit_status=outcome.exit_status,
            output=output,
            progress="" if outcome.state is AttemptState.SUCCEEDED else outcome.progress,
        )
        if following is not None:
            await self.retry(taken.run.attempt, following)
        (placed,) = await self._publisher.deliver([_record(taken.partition, event)], self._check)
        return placed

    async def unstarted(self, taken: Taken, state: AttemptState, reason: str, now_ms: int) -> Placed:
        """Tell that an attempt has ended without being started; returns when Kafka has acknowledged it."""
        event = self._event(taken, state, at_ms=now_ms, reason=reason)
        (placed,) = await self._publisher.deliver([_record(taken.partition, event)], self._check)
        return placed

    async def retry(self, failed: int, following: ReadyRun) -> None:
        """Ask for the attempt that follows a failed one; returns when Kafka has acknowledged that."""
        command = encode_retry_command(RetryCommand(follows=failed, run=following))
        await self._publisher.deliver([Record(SUBMISSIONS, following.job_id.encode(), command)], self._check)

    def unawaited(self, record: Record) -> None:
        """Send what only matters if it arrives."""
        self._publisher.publish([record]).add_done_callback(asyncio.Future.exception)

    def _running(self, taken: Taken, started_ms: int) -> Record:
        event = self._event(taken, AttemptState.RUNNING, at_ms=started_ms, started_ms=started_ms)
        return _record(taken.partition, event)

    def _lost(self, taken: Taken, event: RunEvent, now_ms: int) -> RunEvent:
        """The end of an attempt whose executor was lost; that we say it, a later owner, tells it from one given up in order."""
        return replace(
            event,
            state=AttemptState.INTERRUPTED,
            at_ms=now_ms,
            epoch=self._epochs[taken.partition],
            ended_ms=now_ms,
            reason=f"its executor {event.executor} was lost",
        )

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
