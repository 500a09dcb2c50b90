"""Injuries in the order in which mistakes show at them. Each scenario tells whom the mistakes would have hurt.

They wait for what has happened, never for a time, but for the due times of jobs.
"""

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from tests.chaos.history import wall_ms
from tests.chaos.sabotage.awaited import (
    await_committed,
    await_cursors,
    await_executions,
    await_owners,
    await_read_ahead,
    is_there,
)
from tests.chaos.sabotage.stage import Stage

#: By rule of the checker: the jobs that may break it, and no others.
Victims = Mapping[str, Collection[str]]


#: A successor that has taken shards waits for 5 s, and commits what it has accepted within two more.
ACCEPTED_IN_S = 12.0
#: The session of a scheduler that is stopped lasts 8 s, and then its shards are assigned anew.
SUCCEEDED_IN_S = 18.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How many processes of each role it needs, and what happens to them."""

    processes: Mapping[str, int]
    play: Callable[[Stage], Victims]


def killed_executor(stage: Stage) -> Victims:
    """An executor is killed while it performs runs, when it has reported others and committed several times since."""
    reported = stage.submit("wordy", list(range(8)) * 5, bytes=1_000)
    await_executions(stage, reported, 1)
    cut = stage.submit("long", [3, 7], seconds=4.0)
    await_executions(stage, cut, 1, seconds=1.5)
    stage.kill("executor-1")
    return {"lost": cut, "output": reported}


def stopped_executor(stage: Stage, seconds: float) -> Victims:
    """An executor is stopped while its slots perform runs, until its successor has performed them too for a while."""
    first, second = stage.pid("executor-1"), stage.pid("executor-2")
    shards = await_owners(stage, "executor", first, second)[second][:2]
    overlapped = stage.submit("long", shards, seconds=seconds)
    await_executions(stage, overlapped, 1, seconds=0.5)
    with stage.stopped("executor-2"):
        await_executions(stage, overlapped, 2, seconds=0.5)
    return {"overlap": overlapped}


def killed_scheduler(stage: Stage) -> Victims:
    """A scheduler is killed as soon as it has committed submissions, of jobs that are not due yet."""
    shards = [1, 3, 4, 6]
    # A wheel that has not read the present minute yet takes no row of it from a submission; in a mistaken build that one would be lost too.
    await_cursors(stage, shards, wall_ms())
    stage.submit("quick", shards)
    await_committed(stage, shards)
    waiting = stage.submit("quick", shards, in_s=ACCEPTED_IN_S)
    await_committed(stage, shards)
    stage.kill("scheduler-1")
    return {"lost": waiting}


def succession(stage: Stage, *, without_kafka: bool) -> Victims:
    """A scheduler is stopped, and woken up when jobs are due that its successor, killed since, has accepted.

    It doesn't learn of them from the schedule, since it has read that so far already; and without Kafka it can't learn at once
    that its shards have passed on.
    """
    first, second = stage.pid("scheduler-1"), stage.pid("scheduler-2")
    shards = await_owners(stage, "scheduler", first, second)[first][:3]
    # What it has to commit it has committed, and knows that: later it would only take the group's offsets back, and have
    # all read again.
    stage.submit("quick", shards)
    await_committed(stage, shards)
    await_cursors(stage, shards, wall_ms())
    read_until_ms = await_read_ahead(SUCCEEDED_IN_S + ACCEPTED_IN_S)
    with ExitStack() as away:
        with stage.stopped("scheduler-1"):
            await_owners(stage, "scheduler", second)
            due_ms = wall_ms() + round(ACCEPTED_IN_S * 1000)
            assert due_ms < read_until_ms, "the succession took too long"
            waiting = stage.submit("quick", shards, in_s=ACCEPTED_IN_S)
            await_committed(stage, shards)
            stage.kill("scheduler-2")
            assert wall_ms() < due_ms, "the successor took too long, and may have emitted them"
            time.sleep((due_ms - wall_ms()) / 1000)
            if without_kafka:
                away.enter_context(stage.without_kafka())
        await_cursors(stage, shards, due_ms, or_end_of=first)
        if without_kafka and is_there(first):
            # When Kafka is back, it answers the fetch that waits there, and from that it would learn of the jobs.
            stage.kill("scheduler-1")
    return {"lost": waiting}
