"""The platform in memory: schedule, executor and ledger, and a hand that moves the time."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from dueline.client import AsyncClient, Client
from dueline.clock import from_ms, to_ms
from dueline.codec import encode_retry_command
from dueline.commands import RetryCommand
from dueline.errors import NotFound
from dueline.frames import Report
from dueline.registry import Function
from dueline.runs import Output, ReadyRun, RunEvent
from dueline.scheduling.rows import definition_of
from dueline.states import AttemptState, JobState, RunState, run_state_after
from dueline.testing.client import MemoryAsyncClient, MemoryClient, RepeatableIds
from dueline.testing.clock import SettableClock
from dueline.testing.executor import Executor
from dueline.testing.schedule import Schedule
from dueline.testing.views import AttemptView, JobView, Rejected, RunView

#: A test that performs more in one go has a job that submits itself without end, or has mistaken the unit of a time.
PERFORMED_MAX = 100_000
#: Any time would do, as long as it is the same each time.
START = datetime(2030, 1, 1, tzinfo=UTC)


class TestPlatform:
    """Schedules and performs jobs in memory, at times that the test sets. See `dueline.testing`."""

    #: pytest takes a class for tests by its name.
    __test__ = False

    def __init__(
        self,
        now: datetime = START,
        *,
        stand_ins: Mapping[str, Function] | None = None,
        chance: float = 0.0,
    ) -> None:
        """`stand_ins` are functions that perform executor classes instead of the registered ones: to test a schedule without its
        jobs' code, or a job of the class `http` without a server. `chance` in [0, 1) is what a retry's pause has of its random
        part.
        """
        self.clock = SettableClock(now)
        self._chance = chance
        self._schedule = Schedule(self.clock, self._latest)
        self._executor = Executor(self.clock, dict(stand_ins or {}))
        #: Of each job by due time, in ms.
        self._recorded: dict[str, dict[int, list[AttemptView]]] = {}
        self._performing = False
        ids = RepeatableIds()
        #: What code that submits jobs is given in the place of its own client.
        self.client: Client = MemoryClient(self._schedule.receive, self.clock, ids)
        self.async_client: AsyncClient = MemoryAsyncClient(self._schedule.receive, self.clock, ids)

    def receive(self, value: bytes, key: str = "") -> None:
        """A record of `jobs.submissions` as any Kafka client may send it, JSON or Avro.

        Whether it was accepted, `jobs()` and `rejected` tell.
        """
        self._schedule.receive(key, value)

    # -- time ------------------------------------------------------------------------------------------------------

    def advance(self, by: timedelta) -> tuple[RunView, ...]:
        """Let time pass: perform what becomes due meanwhile, each at its time.

        Returns what was performed, in its order: for each attempt its run, as it stood then.
        """
        return self.advance_to(self.clock.now() + by)

    def advance_to(self, moment: datetime) -> tuple[RunView, ...]:
        """Let time pass until a moment, an aware datetime. See `advance`."""
        if self._performing:
            raise RuntimeError(
                "a run can't let other runs be performed; to move the time within it use platform.clock.advance"
            )
        end_ms = to_ms(moment)
        if end_ms < self.clock.now_ms():
            raise ValueError(f"{moment} lies before {self.clock.now()}, and time does not go back")
        performed: list[RunView] = []
        while (run := self._next(end_ms)) is not None:
            if len(performed) == PERFORMED_MAX:
                raise RuntimeError(
                    f"{PERFORMED_MAX} attempts were performed in one go, the next is of {run.run_id}; "
                    "does a job submit itself again and again? If it is right, advance in smaller steps"
                )
            performed.append(self._perform(run))
        self.clock.move_to(max(end_ms, self.clock.now_ms()))
        return tuple(performed)

    def perform_due(self) -> tuple[RunView, ...]:
        """Perform what is due now. See `advance`."""
        return self.advance(timedelta(0))

    # -- questions -------------------------------------------------------------------------------------------------

    def job(self, job_id: str) -> JobView:
        """One job. Raises NotFound."""
        row = self._schedule.jobs.get(job_id)
        if row is not None:
            next_ms = self._schedule.next_due_ms(job_id)
            return JobView(
                job_id=job_id,
                state=self._schedule.state_of(job_id),
                reason=row.reason,
                job=definition_of(row),
                accepted=from_ms(row.accepted_ms),
                next_due=None if next_ms is None else from_ms(next_ms),
            )
        for rejected in self._schedule.rejected:
            if rejected.job_id == job_id:
                return JobView(
                    job_id=job_id, state=JobState.REJECTED, reason=rejected.reason, accepted=rejected.at
                )
        raise NotFound(f"there is no job {job_id}; `jobs()` has the jobs there are")

    def jobs(self, executor_class: str | None = None) -> tuple[JobView, ...]:
        """The jobs that were accepted, in order; those of one executor class, if it is given."""
        return tuple(
            self.job(job_id)
            for job_id, row in self._schedule.jobs.items()
            if executor_class in (None, definition_of(row).executor_class)
        )

    def runs(self, job_id: str) -> tuple[RunView, ...]:
        """The runs of a job that have begun or were left out, in the order of their due times. Raises NotFound."""
        self.job(job_id)
        return tuple(self._run(job_id, due_ms) for due_ms in sorted(self._recorded.get(job_id, ())))

    def next_due(self, job_id: str) -> datetime | None:
        """When the next run of a job is due, UTC; None when there is none any more. Raises NotFound."""
        return self.job(job_id).next_due

    @property
    def rejected(self) -> tuple[Rejected, ...]:
        """What clients could send and the platform did not accept, in order."""
        return tuple(self._schedule.rejected)

    # -- performing ------------------------------------------------------------------------------------------------

    def _next(self, end_ms: int) -> ReadyRun | None:
        """The next run that is due until then, at its time; None if there is none any more."""
        while True:
            self._take_due(in_time=False)  # all of it, since the priority decides among them
            ready = self._executor.next(end_ms)
            if ready is not None:
                end = self._not_to_start(ready)
                if end is None:
                    return ready
                self._leave_out(ready, *end)
                continue
            emit_ms = self._schedule.next_emit_ms
            if emit_ms is None or emit_ms > end_ms:
                return None
            self.clock.move_to(emit_ms)

    def _take_due(self, *, in_time: bool) -> None:
        for due in self._schedule.emit_due(in_time=in_time):
            if isinstance(due, ReadyRun):
                self._executor.add(due)
            else:
                self._record_end(due)

    def _not_to_start(self, run: ReadyRun) -> tuple[AttemptState, str] | None:
        if (reason := self._schedule.cancelled(run)) is not None:
            return AttemptState.CANCELLED, reason
        if (reason := run.expired(self.clock.now_ms())) is not None:
            return AttemptState.MISSED, reason
        return None

    def _leave_out(self, run: ReadyRun, state: AttemptState, reason: str) -> None:
        self._record_end(run.unstarted(state, reason, self.clock.now_ms()))
        self._schedule.ended(run)

    def _latest(self, job_id: str, due_ms: int) -> tuple[int, RunState] | None:
        if due_ms not in self._recorded.get(job_id, {}):
            return None
        run = self._run(job_id, due_ms)
        return run.last.attempt, run.state

    def _perform(self, run: ReadyRun) -> RunView:
        started_ms = self.clock.now_ms()
        self._performing = True
        try:
            report = self._executor.perform(run)
            self._record(run, report, started_ms)
        finally:
            self._performing = False
            self._schedule.ended(run)
        if self.clock.now_ms() > started_ms:
            self._take_due(in_time=True)
            for left_out in self._executor.overlapping(run.job_id, self.clock.now_ms()):
                self._leave_out(left_out, AttemptState.SKIPPED, "another run of its job was still performed")
        return self._run(run.job_id, run.due_ms)

    def _record(self, run: ReadyRun, report: Report, started_ms: int) -> None:
        """Keep how an attempt has ended, and ask for the one that follows, if one does."""
        ended_ms = self.clock.now_ms()
        following = run.after(
            report.state,
            ended_ms,
            final=report.final,
            retry_ms=report.retry_ms,
            progress=report.progress,
            chance=self._chance,
        )
        if following is not None:
            command = RetryCommand(follows=run.attempt, run=following)
            self._schedule.receive(run.job_id, encode_retry_command(command))
        more = "" if following else run.out_of_time(report.state, ended_ms, final=report.final)
        attempt = AttemptView(
            attempt=run.attempt,
            state=report.state,
            started=from_ms(started_ms),
            ended=from_ms(ended_ms),
            retry=None if following is None else from_ms(following.emit_ms),
            reason=report.reason + (more and f"; {more}"),
            output=report.output_of(run, started_ms, ended_ms),
        )
        self._keep(run.job_id, run.due_ms, attempt)

    def _record_end(self, event: RunEvent) -> None:
        """Keep the end of an attempt that was not started."""
        attempt = AttemptView(
            attempt=event.attempt,
            state=event.state,
            started=from_ms(event.at_ms),
            ended=from_ms(event.at_ms),
            retry=None,
            reason=event.reason,
            output=Output(
                run_id=event.run_id,
                attempt=event.attempt,
                state=event.state,
                started_ms=event.at_ms,
                ended_ms=event.at_ms,
            ),
        )
        self._keep(event.job_id, event.due_ms, attempt)

    def _keep(self, job_id: str, due_ms: int, attempt: AttemptView) -> None:
        self._recorded.setdefault(job_id, {}).setdefault(due_ms, []).append(attempt)

    def _run(self, job_id: str, due_ms: int) -> RunView:
        attempts = self._recorded[job_id][due_ms]
        last = attempts[-1]
        # As infra.view_values has it: a retry that is due and not recorded waits for an executor.
        state = run_state_after(last.state, last.retry is not None)
        if last.retry is not None and last.retry <= self.clock.now():
            state = RunState.READY
        return RunView(job_id=job_id, due=from_ms(due_ms), state=state, attempts=tuple(attempts))
