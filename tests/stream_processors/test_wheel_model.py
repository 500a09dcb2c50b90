"""The wheel against a model of all that is around it: log, schedule, submissions, stored rows, crashes and wrong clocks.

After each step, what could be stored then is held against Invariants A and B (see `stream_processors.scheduler`). In the end
a last owner, that starts from the row stored last, emits what is left; then every run is in the log.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dueline.job import Priority
from dueline.runs import RunEvent, RunKey
from dueline.scheduling.values import Position, ScheduledRun
from infra.publisher import Placed
from stream_processors.scheduler import wheel as module
from stream_processors.scheduler.wheel import Wheel
from tests.stream_processors.transport import Saving, Transport, following, row

BUCKET_MS = 10
START_MS = 100
#: The model's time never comes so far while it runs.
END_MS = 10_000


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of `shards`."""

    cursor_ms: int
    submissions: int
    ready: dict[Priority, int]


@dataclass(slots=True)
class Batch:
    """Submissions that are being made durable."""

    rows: list[ScheduledRun]
    end: int
    #: For those of them that are emitted meanwhile.
    early: object


@dataclass(slots=True)
class Page:
    """A page of the schedule that was asked for; its rows are those that lay there at some time before it comes."""

    end_ms: int
    behind: Position
    limit: int
    rows: list[ScheduledRun] | None = None


@dataclass
class World(Transport):
    """One shard, and the wheel that owns it."""

    #: The brokers' time, by which submissions are stamped. The owner's may be behind it by any span.
    brokers_ms: int = START_MS
    behind_ms: int = 0
    submissions: list[ScheduledRun] = field(default_factory=list)
    schedule: dict[Position, ScheduledRun] = field(default_factory=dict)
    stored: Stored = field(default_factory=lambda: Stored(START_MS, 0, dict.fromkeys(Priority, 0)))
    #: Runs that a wheel was told are in the log, or that this one has sent.
    settled: set[RunKey] = field(default_factory=set)
    failures: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        Transport.__init__(self)
        self.take_over()

    def take_over(self) -> None:
        self.lived = self.told_ms = 0
        self.batch: Batch | None = None
        self.page: Page | None = None
        self.next_offset = self.stored.submissions
        self.wheel = Wheel(
            cursor_ms=self.stored.cursor_ms,
            submissions=self.stored.submissions,
            ready=self.stored.ready,
            emitted={key: emit_ms_of(key) for key in self.emitted(self.stored.ready)},
            unread=len(self.submissions),
            found_ends={priority: len(keys) for priority, keys in self.log.items()},
            publish=self.publish,
            judge=self.judge,
            save=self.save,
            progress=lambda: None,
            failed=self.failures.append,
        )

    @property
    def now_ms(self) -> int:
        return self.brokers_ms - self.behind_ms

    async def publish(
        self, rows: Sequence[ScheduledRun], events: Sequence[RunEvent] = ()
    ) -> Sequence[Placed]:
        for sent in rows:
            assert sent.emit_ms <= self.told_ms, f"{sent.key} is early"
            assert sent.key not in self.settled, f"{sent.key} was emitted before"
            self.settled.add(sent.key)
        return await Transport.publish(self, rows)

    def crash(self) -> None:
        # What was in flight may come again: nobody was told what became of it.
        self.settled.difference_update(key for sending in self.sent for key in sending.keys)
        self.sent.clear()
        self.saving.clear()
        self.take_over()

    def step(self) -> None:
        self.told_ms = self.now_ms
        self.wheel.step(self.told_ms)

    def begin_read(self, limit: int) -> None:
        position = self.wheel.position
        end_ms = (position[0] // BUCKET_MS + 1) * BUCKET_MS
        self.wheel.reading_until_ms = end_ms
        self.page = Page(end_ms, position, limit)

    def take_page(self) -> None:
        assert self.page is not None
        found = sorted(p for p in self.schedule if self.page.behind < p and p[0] < self.page.end_ms)
        self.page.rows = [self.schedule[position] for position in found[: self.page.limit]]

    def end_read(self) -> None:
        assert self.page is not None
        if self.page.rows is None:
            self.take_page()
        assert self.page.rows is not None
        self.wheel.reading_until_ms = 0
        whole = len(self.page.rows) < self.page.limit
        self.wheel.read(
            self.page.rows, (self.page.end_ms, "", 0, 0) if whole else self.page.rows[-1].position
        )
        self.page = None

    def begin_batch(self, count: int, early: bool = False) -> None:
        rows = self.submissions[self.next_offset :][:count]
        self.next_offset += len(rows)
        self.batch = Batch(rows, self.next_offset, object())
        if early:
            self.wheel.admit_early([row for row in rows if self.wheel.is_late(row)], self.batch.early)

    def keep(self, rows: list[ScheduledRun]) -> None:
        self.schedule.update((row.position, row) for row in rows)

    def admit(self) -> None:
        assert self.batch is not None
        self.keep(self.batch.rows)
        self.wheel.admit(self.batch.rows, self.batch.end, self.batch.early)
        self.batch = None

    def store(self) -> None:
        self.stored = Stored(self.wheel.cursor_ms, self.wheel.submissions, dict(self.wheel.ready))

    def finish(self) -> None:
        """A crash, and a last owner that lives long enough."""
        self.crash()
        self.brokers_ms, self.behind_ms = END_MS, 0


def emit_ms_of(key: RunKey) -> int:
    return int(key[0].partition("@")[2])


class WheelInItsWorld(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.patch = pytest.MonkeyPatch()
        self.jobs = 0
        self.world: World

    @initialize(send_max=st.integers(1, 4), under_way_max=st.integers(1, 6))
    def begin(self, send_max: int, under_way_max: int) -> None:
        self.patch.setattr(module, "SEND_MAX", send_max)
        self.patch.setattr(module, "UNDER_WAY_MAX", under_way_max)
        self.do(lambda: setattr(self, "world", World()))

    def do(self, action: Callable[..., object], *args: object) -> None:
        """Call a method of the world inside the loop, and let all tasks come to where they wait."""

        async def work() -> None:
            action(*args)
            for _ in range(12):
                await asyncio.sleep(0)

        self.loop.run_until_complete(work())
        assert not self.world.failures, self.world.failures

    # -- what happens around a wheel -------------------------------------------------------------------------------

    @rule(ms=st.integers(1, 25), step=st.booleans())
    def time_passes(self, ms: int, step: bool) -> None:
        if self.world.brokers_ms + ms < END_MS // 2:
            self.world.brokers_ms += ms
        if step:
            self.step()

    @rule(ms=st.integers(0, 12))
    def clock_is_set(self, ms: int) -> None:
        self.world.behind_ms = ms

    @rule(
        due_in=st.integers(-5, 20),
        more=st.sampled_from([0, 0, 1, 2, 4]),
        priority=st.sampled_from([Priority.NORMAL, Priority.NORMAL, Priority.HIGH]),
    )
    def submit(self, due_in: int, more: int, priority: Priority) -> None:
        self.jobs += 1
        now_ms, offset = self.world.brokers_ms, len(self.world.submissions)
        # Ids in no order, so that rows of one instant come in no order either.
        job = f"{self.jobs * 7919 % 100:02}-{self.jobs}"
        self.world.submissions.append(
            row(now_ms + max(0, due_in), job, submission=offset, more=more, priority=priority)
        )

    @precondition(
        lambda self: self.world.batch is None and self.world.next_offset < len(self.world.submissions)
    )
    @rule(count=st.integers(1, 4), early=st.booleans(), step=st.booleans())
    def begin_batch(self, count: int, early: bool, step: bool) -> None:
        self.do(self.world.begin_batch, count, early)
        if step:
            self.step()

    @precondition(lambda self: self.world.batch is None)
    @rule(step=st.booleans())
    def accept_all(self, step: bool) -> None:
        self.do(self.world.begin_batch, 100)
        self.do(self.world.admit)
        if step:
            self.step()

    @precondition(lambda self: self.world.batch is not None and self.world.batch.rows)
    @rule(data=st.data())
    def one_row_is_durable(self, data: st.DataObject) -> None:
        assert self.world.batch is not None
        self.world.keep([data.draw(st.sampled_from(self.world.batch.rows))])

    @precondition(lambda self: self.world.batch is not None)
    @rule()
    def admit(self) -> None:
        self.do(self.world.admit)

    @precondition(
        lambda self: self.world.page is None and self.world.wheel.position[0] < self.world.brokers_ms + 40
    )
    @rule(limit=st.integers(1, 4), at_once=st.booleans())
    def begin_read(self, limit: int, at_once: bool) -> None:
        self.world.begin_read(limit)
        if at_once:
            self.do(self.world.end_read)

    @precondition(lambda self: self.world.page is not None)
    @rule()
    def take_page(self) -> None:
        self.world.take_page()

    @precondition(lambda self: self.world.page is not None)
    @rule()
    def end_read(self) -> None:
        self.do(self.world.end_read)

    @precondition(lambda self: self.world.page is None)
    @rule(limit=st.integers(1, 4))
    def read_ahead(self, limit: int) -> None:
        while self.world.wheel.position[0] <= self.world.brokers_ms + 10:
            self.world.begin_read(limit)
            self.do(self.world.end_read)

    @rule()
    def step(self) -> None:
        self.do(self.world.step)

    @precondition(lambda self: self.world.sent)
    @rule(data=st.data())
    def records_are_appended(self, data: st.DataObject) -> None:
        self.world.append(data.draw(st.sampled_from(self.world.sent)))

    @precondition(lambda self: self.world.sent)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        self.do(self.world.acknowledge, data.draw(st.sampled_from(self.world.sent)))

    @rule(store=st.booleans())
    def all_goes_well(self, store: bool) -> None:
        for saving in list(self.world.saving):
            self.answer(saving)
        for sending in list(self.world.sent):
            self.do(self.world.acknowledge, sending)
        self.step()
        if store:
            self.world.store()

    @precondition(lambda self: self.world.saving)
    @rule(data=st.data())
    def following_rows_are_durable(self, data: st.DataObject) -> None:
        self.world.keep(list(data.draw(st.sampled_from(self.world.saving)).rows))

    @precondition(lambda self: self.world.saving)
    @rule(data=st.data())
    def following_rows_are_saved(self, data: st.DataObject) -> None:
        self.answer(data.draw(st.sampled_from(self.world.saving)))

    def answer(self, saving: Saving) -> None:
        self.world.keep(list(saving.rows))
        self.do(self.world.saved, saving)

    @rule()
    def store(self) -> None:
        self.world.store()

    @precondition(lambda self: self.world.lived > 12)
    @rule()
    def crash(self) -> None:
        self.do(self.world.crash)

    # -- what holds at any time ------------------------------------------------------------------------------------

    @invariant()
    def what_may_be_stored_is_true(self) -> None:
        self.world.lived += 1
        world, wheel = self.world, self.world.wheel
        log = set(world.emitted())
        for durable in world.schedule.values():
            if durable.emit_ms < wheel.cursor_ms and durable.submission < wheel.submissions:
                assert durable.key in log, f"{durable.key} lies behind the cursor and was not emitted"
                if durable.definition is not None:
                    assert following(durable).position in world.schedule, f"nothing follows {durable.key}"
        for first in world.submissions[: wheel.submissions]:
            assert first.position in world.schedule, f"{first.key} is not durable"
        passed = {key for priority in Priority for key in world.log[priority][: wheel.ready[priority]]}
        for first in world.submissions[wheel.submissions :]:
            assert first.key not in passed, f"{first.key} will be read again and not found emitted"
        assert wheel.cursor_ms >= world.stored.cursor_ms
        assert wheel.submissions >= world.stored.submissions
        assert all(wheel.ready[priority] >= world.stored.ready[priority] for priority in Priority)

    def teardown(self) -> None:
        try:
            if hasattr(self, "world"):
                self.finish()
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    self.loop.run_until_complete(task)
            self.loop.close()
            self.patch.undo()

    def finish(self) -> None:
        world = self.world
        self.do(world.finish)
        wheel = world.wheel
        for _ in range(1000):
            if (
                wheel.submissions == len(world.submissions)
                and wheel.position[0] == END_MS
                and not (len(wheel) or world.sent or world.saving)
            ):
                break
            if world.next_offset < len(world.submissions):
                self.do(world.begin_batch, 3)
                self.do(world.admit)
            if wheel.position[0] < END_MS:
                if any(position > wheel.position for position in world.schedule):
                    self.do(world.begin_read, 3)
                    self.do(world.end_read)
                else:
                    wheel.read([], (END_MS, "", 0, 0))
            self.do(world.step)
            for sending in list(world.sent):
                self.do(world.acknowledge, sending)
            for saving in list(world.saving):
                self.answer(saving)
        else:
            pytest.fail("the last owner comes to no end")
        log = set(world.emitted())
        for first in world.submissions:
            run: ScheduledRun | None = first
            while run is not None:
                assert run.key in log, f"{run.key} is never emitted"
                run = following(run) if run.definition is not None else None
        self.what_may_be_stored_is_true()


TestWheelInItsWorld = WheelInItsWorld.TestCase
TestWheelInItsWorld.settings = settings(
    deadline=None, stateful_step_count=60, max_examples=200, suppress_health_check=[HealthCheck.too_slow]
)
