"""Performs runs whose shard is held: the part of a run's life from its turn to its end.

    waits for its turn ──► performed in a slot ──► output durable ──► retry command acknowledged, if any
                    │                                          ──► event acknowledged ──► offset committable
                    └──► left out: its job was cancelled, it is too late for it, or another run of its job is enough

While the disk takes no output nothing begins, and what has ended waits; it is given back when its shard goes.

Invariant D: a committed offset means a durable output, a durable event and a durable retry command.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from consumers.account import Account
from consumers.backlog import Taken
from consumers.bulletin import Bulletin
from consumers.cancels import Cancels
from consumers.findings import LOST_ALONE_MAX, Ended, Past
from consumers.output_store import OutputNotStored, OutputWriter
from consumers.positions import Positions
from consumers.reporter import Reporter
from consumers.slot_link import NotBegun
from consumers.slots import Outcome, SlotPool
from consumers.turns import Turns
from dueline.clock import Clock
from dueline.codec import encode_ready_run
from dueline.errors import DuelineError
from dueline.runs import ReadyRun, RunKey
from dueline.states import AttemptState

log = logging.getLogger(__name__)

#: A run that was told to end before a slot had it is told again: it gets one when it has been announced.
INTERRUPT_AGAIN_S = 0.1
#: Between two attempts to store an output.
STORE_AGAIN_S = 1.0
#: For all runs to end that are given back as no output can be stored, and to tell of it; what is left then is lost.
GIVE_BACK_S = 20.0
#: A run that is not over so long after its timeout hangs in us: in the output store, say. And so long there may be no slot, or
#: no room on the disk, before another executor has a try.
STUCK_AFTER_S = 120.0

OVERLAP = "another run of its job was still performed, and the overlap policy of its job leaves out what comes meanwhile"
NOT_STORED = "its output could not be stored before its executor gave up its shard"
DISPLACED = "the next run of its job has come, for which the overlap policy of its job ends the one before"


class Performer:
    """The runs in hand whose shards are held. On the event loop."""

    def __init__(
        self,
        *,
        pool: SlotPool,
        outputs: OutputWriter,
        reporter: Reporter,
        account: Account,
        cancels: Cancels,
        positions: Positions,
        clock: Clock,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._turns = Turns(lambda: pool.capacity)
        self._pool = pool
        pool.room_again = self._slot_is_up
        self._outputs = outputs
        self._reporter = reporter
        self._account = account
        self._cancels = cancels
        self._positions = positions
        self._clock = clock
        self._failed = failed
        #: With the time of their begin, by CLOCK_BOOTTIME.
        self._in_hand: dict[asyncio.Task[None], tuple[Taken, float]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        #: The shards that are being given up.
        self._leaving: set[int] = set()
        self._bulletin = Bulletin(reporter, clock)
        #: When a slot was last seen up, by CLOCK_BOOTTIME.
        self._slots_up_s = clock.elapsed_s()
        #: Those whose output can't be stored, with the time since when, by CLOCK_BOOTTIME.
        self._unstored: dict[asyncio.Task[None] | None, float] = {}
        #: Whether the last output could not be stored, and whether it is given up to wait for that.
        self._disk_full = self._giving_back = False

    def admit(self, taken: Taken, past: Past, *, doubtful: bool) -> None:
        """A run of a shard that is held: it waits for its turn, unless former owners have done with it.

        `doubtful`: one of them may have begun it without saying so.
        """
        run = past.repeat(taken.run)
        if past.ended is not None:
            self._account.begin(taken)
            self._begin(taken, self._pass_over(replace(taken, run=run), past.ended))
        elif past.hopeless:
            self._account.begin(taken)
            self._begin(taken, self._despair(taken, past))
        elif past.begun or doubtful:
            self._account.open(run.key, taken.partition)  # a retry may have been asked for under this number
            record = encode_ready_run(run)
            self._turns.add(replace(taken, run=run, record=record, past=past, announced=True))
        else:
            self._turns.add(taken)

    def start_runs(self) -> None:
        """Begin what may begin."""
        if self._disk_full or self._giving_back:
            return  # what could not be stored would have to be done again
        while (taken := self._turns.next(self._clock.now_ms())) is not None:
            self._account.begin(taken)
            self._begin(taken, self._perform(taken))
        for taken in self._turns.take_skipped():
            self._account.begin(taken)
            self._begin(taken, self._leave_out(taken, AttemptState.SKIPPED, OVERLAP))
        for job_id in self._turns.take_displaced():
            self.end_runs(job_id, lambda run: DISPLACED)

    def end_runs(self, job_id: str, why: Callable[[ReadyRun], str | None]) -> None:
        """Tell the run of a job that is performed to end, if there is a reason."""
        for task, (taken, _) in self._in_hand.items():
            if taken.run.job_id == job_id and (reason := why(taken.run)) is not None:
                self._keep(asyncio.create_task(self._end_run(task, taken.run.key, reason)))

    async def give_up(self, shards: Collection[int], drain_s: float) -> None:
        """Begin nothing more of these shards, let what runs finish for so long, and end the rest."""
        self._turns.drop(shards)
        self._leaving.update(shards)
        self.start_runs()  # others may have waited for a suspect that is dropped
        await self._until_ended(shards, drain_s)
        self._leaving.difference_update(shards)

    async def _until_ended(self, shards: Collection[int], drain_s: float) -> None:
        tasks = {task: taken for task, (taken, _) in self._in_hand.items() if taken.partition in shards}
        if not tasks:
            return
        _, left = await asyncio.wait(tasks, timeout=drain_s)
        while left:
            for task in left:
                self._pool.interrupt(tasks[task].run.key)
            _, left = await asyncio.wait(left, timeout=INTERRUPT_AGAIN_S)

    def _slot_is_up(self) -> None:
        self._slots_up_s = self._clock.elapsed_s()
        self.start_runs()

    def check(self) -> None:
        """Fail if a run makes no progress any more, though its timeout is long over, or if none could begin for long."""
        now_s = self._clock.elapsed_s()
        if self._unstored and now_s - min(self._unstored.values()) > STUCK_AFTER_S and not self._giving_back:
            self._giving_back = True
            self._keep(asyncio.create_task(self._give_all_back()))
        if self._pool.capacity:
            self._slots_up_s = now_s
        elif now_s - self._slots_up_s > STUCK_AFTER_S:
            self._failed(
                DuelineError(f"no slot has come up in {STUCK_AFTER_S:g} s; what is logged before says why")
            )
        for task, (taken, begun_s) in self._in_hand.items():
            if task in self._unstored:
                continue
            late_s = now_s - begun_s - taken.run.timeout_ms / 1000
            if late_s > STUCK_AFTER_S:
                what = f"run {taken.run.run_id} attempt {taken.run.attempt}"
                self._failed(DuelineError(f"{what} is not over {late_s:.0f} s after its timeout"))

    async def _give_all_back(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(GIVE_BACK_S):
                await self.give_up({taken.partition for taken, _ in self._in_hand.values()}, 0)
        self._failed(
            DuelineError(f"no output could be stored in {STUCK_AFTER_S:g} s; what is logged before says why")
        )

    def _begin(self, taken: Taken, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._in_hand[task] = taken, self._clock.elapsed_s()
        task.add_done_callback(self._performed)

    async def _perform(self, taken: Taken) -> None:
        if (end := self._not_to_start(taken.run)) is not None:
            self._turns.ended(taken)
            self.start_runs()
            await self._leave_out(taken, *end)
            return
        try:
            outcome = await self._perform_in_slot(_within_its_end(taken, self._clock.now_ms()))
        except NotBegun:
            outcome = None
        finally:
            self._turns.ended(taken)
        if outcome is None and taken.partition not in self._leaving:
            self._account.wait(taken)
            self._turns.add(taken)
        self.start_runs()
        if outcome is None:
            return
        if outcome.state is AttemptState.INTERRUPTED:
            # Nothing is finished: its record stays uncommitted, and is read again by the shard's next owner.
            await self._reporter.ended(taken, outcome, "", None)
        else:
            following = taken.run.after(
                outcome.state,
                outcome.ended_ms,
                final=outcome.final,
                retry_ms=outcome.retry_ms,
                progress=outcome.progress,
            )
            outcome = _with_its_end(taken.run, outcome, following)
            if not await self._conclude(taken, outcome, following):
                lost = replace(outcome, state=AttemptState.INTERRUPTED, reason=NOT_STORED)
                await self._reporter.ended(taken, lost, "", None)

    async def _perform_in_slot(self, taken: Taken) -> Outcome:
        started_ms = self._clock.now_ms()
        heard = self._bulletin.begin(taken, started_ms)
        # What has been announced is not taken back: whoever takes the shard over would think it lost.
        announce = partial(self._reporter.starting, taken, started_ms) if taken.announced else None
        try:
            return await self._pool.perform(taken.run, taken.record, heard, announce=announce)
        finally:
            self._bulletin.end(taken)

    def _not_to_start(self, run: ReadyRun) -> tuple[AttemptState, str] | None:
        """How a run ends whose turn has come and which is not to be performed."""
        if self._cancels and (reason := self._cancels.reason(run)) is not None:
            return AttemptState.CANCELLED, reason
        if (reason := run.expired(self._clock.now_ms())) is not None:
            return AttemptState.MISSED, reason
        return None

    async def _leave_out(self, taken: Taken, state: AttemptState, reason: str) -> None:
        placed = await self._reporter.unstarted(taken, state, reason, self._clock.now_ms())
        self._positions.reported(taken.partition, placed.offset)
        self._finish(taken)

    async def _end_run(self, task: "asyncio.Task[None]", key: RunKey, reason: str) -> None:
        while not (task.done() or self._pool.cancel(key, reason)):
            await asyncio.wait([task], timeout=INTERRUPT_AGAIN_S)  # it has no slot yet, or none any more

    async def _conclude(self, taken: Taken, outcome: Outcome, following: ReadyRun | None) -> bool:
        """Make the end of a run durable. False if its shard goes before its output could be: then it has not ended."""
        output = await self._stored(taken, outcome)
        if output is None:
            return False
        placed = await self._reporter.ended(taken, outcome, output, following)
        self._positions.reported(taken.partition, placed.offset)
        self._finish(taken)
        return True

    async def _stored(self, taken: Taken, outcome: Outcome) -> str | None:
        """The address of a run's output, as soon as the disk takes it; None if its shard goes before."""
        output = outcome.output_of(taken.run, outcome.started_ms, outcome.ended_ms)
        task = asyncio.current_task()
        try:
            while True:
                try:
                    address = await self._outputs.write(output)
                except OutputNotStored as error:
                    if taken.partition in self._leaving:
                        return None
                    if not self._disk_full:
                        self._disk_full = True
                        log.error("%s; no run begins meanwhile", error, extra={"action": "output_failed"})
                    self._unstored.setdefault(task, self._clock.elapsed_s())
                    await asyncio.sleep(STORE_AGAIN_S)
                else:
                    self._has_room()
                    return address
        finally:
            if self._unstored.pop(task, None) is not None and not self._unstored:
                self._has_room()  # nobody else is left to find out

    def _has_room(self) -> None:
        """The disk takes outputs again, or it is to be found out whether it does."""
        if self._disk_full:
            self._disk_full = False
            log.info("runs begin again", extra={"action": "output_stored"})
            self.start_runs()

    async def _pass_over(self, taken: Taken, ended: Ended) -> None:
        log.info("run %s attempt %d had ended", *taken.run.key, extra={"action": "ended_before"})
        # Whether the former owner sent the retry is not known.
        following = taken.run.after(ended.state, 0, progress=ended.progress)
        if ended.retry_ms is not None and following is not None:
            await self._reporter.retry(taken.run.attempt, replace(following, emit_ms=ended.retry_ms))
        self._finish(taken)

    async def _despair(self, taken: Taken, past: Past) -> None:
        """End a run that has taken its executors with it, as the last of its attempts."""
        last = past.begun[-1].event
        taken = replace(taken, run=replace(taken.run, attempt=last.attempt))
        now_ms = self._clock.now_ms()
        reason = f"its executors were lost at {past.lost} starts, at {LOST_ALONE_MAX} of them with nothing beside it"
        outcome = Outcome(
            state=AttemptState.CRASHED,
            started_ms=last.started_ms or now_ms,
            ended_ms=now_ms,
            error=reason,
            reason=reason,
            progress=last.progress,
        )
        log.error("run %s attempt %d: %s", *taken.run.key, reason, extra={"action": "run_hopeless"})
        await self._conclude(taken, outcome, None)

    def _finish(self, taken: Taken) -> None:
        now_ms = self._clock.now_ms()
        for key in {taken.key, taken.run.key}:
            self._account.remember(key, now_ms)
        self._account.finish(taken.place, taken.offset)

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _performed(self, task: "asyncio.Task[None]") -> None:
        del self._in_hand[task]
        if not task.cancelled() and (error := task.exception()):
            self._failed(error)


def _within_its_end(taken: Taken, now_ms: int) -> Taken:
    """The run with no more time than is left until its end."""
    run = taken.run.within_its_end(now_ms)
    return taken if run is taken.run else replace(taken, run=run, record=encode_ready_run(run))


def _with_its_end(run: ReadyRun, outcome: Outcome, following: ReadyRun | None) -> Outcome:
    """The outcome; if another attempt would follow but for the end of the run, it says so."""
    more = "" if following else run.out_of_time(outcome.state, outcome.ended_ms, final=outcome.final)
    return replace(outcome, reason=f"{outcome.reason}; {more}") if more else outcome
