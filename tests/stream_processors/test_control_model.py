"""What becomes of a job's due times while it is changed, paused, resumed and cancelled, and its scheduler dies in between.

A small world around the real `Acceptance` and `Judge`: a log of submissions, a schedule, the rows of jobs and changes, the ready
topic. Owners of the shard come and go, and each begins from what was stored last. In the end every due time has been emitted
once, for the version of the job to which it belongs by the times of the commands alone.
"""

import asyncio
import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from dueline.codec import decode_ready_run
from dueline.job import Job
from dueline.runs import ReadyRun, RunKey
from dueline.scheduling.judge import Judge
from dueline.scheduling.values import Change, Position, ScheduledRun
from dueline.states import AttemptState
from dueline.triggers import Every
from stream_processors.scheduler.acceptance import Acceptance, Asked
from stream_processors.scheduler.calendars import CalendarsAtHand
from stream_processors.scheduler.received import Received
from stream_processors.scheduler.shard import ALL_SATISFIED
from tests.stream_processors.test_acceptance import (
    NAME,
    NOW_MS,
    SHARDS,
    Memory,
    received,
    submission,
)

MINUTE_MS = 60_000
#: Due every minute, or every three, and all that was missed is run.
PERIODS_S = (60, 180)
FIRST = submission(trigger={"every_s": 60}, missed="all")


def command(action: str, **more: Any) -> bytes:
    return json.dumps({"action": action, "id": NAME, **more}).encode()


COMMANDS = (
    *(command(action) for action in ("pause", "resume", "cancel")),
    *(submission(trigger={"every_s": s}, missed="all") for s in PERIODS_S),
    *(command("change", fields={"trigger": {"every_s": s}}) for s in PERIODS_S),
)


@dataclass
class World:
    """All that outlives a scheduler, and the present one."""

    now_ms: int = NOW_MS
    log: list[Received] = field(default_factory=list)
    known: Memory = field(default_factory=Memory)
    schedule: dict[Position, ScheduledRun] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    ready: list[ReadyRun] = field(default_factory=list)
    cancelled: list[RunKey] = field(default_factory=list)
    orders: list[int] = field(default_factory=list)
    #: The cursor and the submissions offset that are stored.
    stored: tuple[int, int] = (NOW_MS, 0)

    def __post_init__(self) -> None:
        self.take_over()

    def append(self, value: bytes) -> None:
        self.log.append(received(value, len(self.log), stamp_ms=self.now_ms))

    def take_over(self) -> None:
        self.found = len(self.log)
        self.cursor_ms, self.read = self.stored
        self.satisfied = self.read
        self.emitted = {run.key for run in self.ready}
        self.judge = Judge(self.emitted)
        self.judge.learn(self.changes)
        rehearsal = Acceptance(0, SHARDS, self.known, CalendarsAtHand({}))
        self.judge.learn(asyncio.run(rehearsal.read(self.log[self.read :], ALL_SATISFIED)).changes)
        self.acceptance = Acceptance(0, SHARDS, self.known, CalendarsAtHand({}))
        self.late: list[ScheduledRun] = []
        self.done: set[Position] = set()

    def accept(self, count: int, *, die_before_jobs: bool = False) -> None:
        left = self.log[self.read : self.read + count]
        while left:
            asked = asyncio.run(self.acceptance.read(left, self.stored[1]))
            left = left[asked.end - left[0].offset :] if asked.end else left
            if asked.end:
                self.do(asked, die_before_jobs)
                if die_before_jobs:
                    self.take_over()
                    return
            if asked.coming is not None:
                self.judge.learn(asked.coming)
                self.turn()
                self.store()
                assert self.stored[1] >= left[0].offset, "what was asked before waits for what comes"

    def do(self, asked: Asked, die_before_jobs: bool) -> None:
        self.changes += asked.changes
        self.judge.learn(asked.changes)
        self.schedule |= {row.position: row for row in asked.rows if row.emit_ms >= self.cursor_ms}
        if die_before_jobs:
            return
        self.known.store(asked.jobs)
        self.orders += [row.version for row in asked.cancelled]
        self.late += [row for row in asked.rows if row.emit_ms < self.cursor_ms]
        self.read = asked.end

    def turn(self) -> None:
        """Emit what is due."""
        while True:
            rows = [row for row in self.schedule.values() if self.cursor_ms <= row.emit_ms <= self.now_ms]
            rows = [
                row
                for row in sorted(rows, key=lambda row: row.position) + self.late
                if row.position not in self.done
            ]
            if not rows:
                break
            verdict = self.judge.judge(rows[0], self.now_ms)
            self.done.add(rows[0].position)
            run = decode_ready_run(rows[0].run)
            if verdict.ready and run.key not in self.emitted:
                self.ready.append(run)
            self.cancelled += [e.key for e in verdict.events if e.state is AttemptState.CANCELLED]
            assert all(e.state is AttemptState.CANCELLED for e in verdict.events)
            if (following := verdict.following) is not None:
                self.schedule[following.position] = following
                if following.emit_ms < self.cursor_ms:
                    self.late.append(following)
        self.late = [row for row in self.late if row.position not in self.done]
        self.cursor_ms = max(self.cursor_ms, self.now_ms + 1)
        self.satisfied = self.read

    def store(self) -> None:
        self.stored = self.cursor_ms, self.satisfied
        self.judge.forget(self.cursor_ms, self.satisfied)


def expected(log: list[Received], end_ms: int) -> tuple[dict[int, set[int]], set[int]]:
    """The versions to which each due time before an end belongs, and those of them that a cancel may have reached in time."""
    dues: dict[int, set[int]] = {}
    reached: set[int] = set()
    period_ms, state, version, since_ms, anchor_ms = 0, "NONE", 0, 0, 0

    def cut(at_ms: int) -> None:
        if state == "ACTIVE":
            trigger = Every(timedelta(milliseconds=period_ms))
            job = Job(executor_class="x", triggers=(trigger,)).anchored(anchor_ms)
            due_ms = job.next_ms(since_ms - 1)
            while due_ms is not None and due_ms < at_ms:
                dues.setdefault(due_ms, set()).add(version)
                due_ms = job.next_ms(due_ms)

    for record in log:
        source, stamp_ms = json.loads(record.value or b""), record.stamp_ms + 1
        action = source.get("action", "change")
        fields = source.get("fields", source)
        if action == "change":
            if state == "NONE":
                period_ms, state = fields["trigger"]["every_s"] * 1000, "ACTIVE"
                version, since_ms = record.offset, record.stamp_ms
                anchor_ms = since_ms
                continue
            # A command on a cancelled job is refused, and the same definition again changes nothing.
            every_ms = fields["trigger"]["every_s"] * 1000
            if ("action" in source and state == "CANCELLED") or every_ms == period_ms:
                continue
            cut(stamp_ms)
            period_ms, anchor_ms = every_ms, stamp_ms
            version, since_ms = record.offset, since_ms if state == "PAUSED" else stamp_ms
            state = "PAUSED" if state == "PAUSED" else "ACTIVE"
        elif action == "pause" and state == "ACTIVE":
            cut(stamp_ms)
            state, version, since_ms = "PAUSED", record.offset, stamp_ms
        elif action == "resume" and state in ("PAUSED", "CANCELLED"):
            since_ms = since_ms if state == "PAUSED" else stamp_ms
            state, version = "ACTIVE", record.offset
        elif action == "cancel" and state in ("ACTIVE", "PAUSED"):
            cut(stamp_ms)
            reached |= {due for due, versions in dues.items() if min(versions) < record.offset}
            state, version, since_ms = "CANCELLED", record.offset, stamp_ms
    cut(end_ms)
    return dues, reached


steps = st.one_of(
    st.tuples(st.just("pass"), st.integers(1, 400_000)),
    st.tuples(st.just("say"), st.sampled_from(COMMANDS)),
    st.tuples(st.just("accept"), st.integers(1, 4)),
    st.tuples(st.just("turn"), st.just(0)),
    st.tuples(st.just("store"), st.just(0)),
    st.tuples(st.just("die"), st.booleans()),
)


#: A run that was missed is asked for by the resume, is late, and so lies nowhere when the owner dies; by then the job is paused again.
RESUMED_AND_PAUSED: list[tuple[str, Any]] = [
    ("accept", 1),
    ("say", command("pause")),
    ("accept", 1),
    ("turn", 0),
    ("store", 0),
    ("pass", 180_000),
    ("say", command("resume")),
    ("die", False),
    ("pass", 1000),
    ("turn", 0),
    ("accept", 1),
    ("say", command("pause")),
    ("accept", 1),
    ("die", False),
    ("accept", 2),
]


@settings(max_examples=300)
@example(RESUMED_AND_PAUSED)
@given(st.lists(steps, max_size=25))
def test_every_due_time_is_emitted_once_for_the_version_it_belongs_to(did: list[tuple[str, Any]]) -> None:
    world = World()
    world.append(FIRST)
    for what, value in did:
        match what:
            case "pass":
                world.now_ms += value
            case "say":
                world.now_ms += 1
                world.append(value)
            case "accept":
                world.accept(value)
            case "turn":
                # What comes while an owner lives is read before anything is due; only what it finds waits.
                if len(world.log) > max(world.found, world.read):
                    world.accept(len(world.log))
                world.turn()
            case "store":
                world.store()
            case "die" if value:
                world.accept(1, die_before_jobs=True)
            case "die":
                world.take_over()
    world.take_over()
    world.accept(len(world.log))
    world.now_ms += 10 * MINUTE_MS
    world.turn()
    world.turn()
    emitted = [run.due_ms for run in world.ready]
    dues, reached = expected(world.log, world.now_ms + 1)
    assert len(emitted) == len(set(emitted))
    assert set(emitted) - dues.keys() == set()
    cancelled = {int(run_id.rpartition("@")[2]) for run_id, _ in world.cancelled}
    missing = dues.keys() - set(emitted)
    assert missing <= reached & cancelled
    for run in world.ready:
        assert run.version in dues[run.due_ms]
