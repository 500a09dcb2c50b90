"""A campaign: a seeded plan of faults against the platform under a load that never pauses, and what came of the jobs."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.local.servers import CassandraServer, KafkaServer
from infra.settings import Settings
from tests.chaos.checker import judge
from tests.chaos.claims import collect, settle
from tests.chaos.faults import Fault, every_kind
from tests.chaos.field import Field, field_on
from tests.chaos.network import can_be_cut
from tests.chaos.report import Outcome, plan_line

#: Jobs a second: with the kinds of `tests.chaos.load` two cores have breath left for servers that come back.
RATE = 8.0
#: Between two steps of a plan: long enough, as a rule, to recover from one before the next.
PAUSE_S = 13.0
#: Of the faults after those that are there for each kind once, so many come as pairs, in the same moment.
PAIRS = 0.5
#: A server takes some 15 s to come back, and what hangs on it a moment more.
SERVER_WEIGHT = 2.5
#: A step comes so many pauses later, at most, than its turn: nothing is to be in step with the platform's own periods.
JITTER = 0.6
#: Jobs run for so long before the first fault: the calm that the rest is compared with.
CALM_S = 15.0
#: For all that is open in the end: attempts that were interrupted last, retries, servers that have just come back.
SETTLE_LIMIT_S = 300.0

#: A server that takes longer to come back is no matter of the platform's.
SERVER_LIMIT_S = 300.0

Say = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Step:
    """Faults that are made at one moment, in seconds after the first possible one."""

    at_s: float
    faults: Sequence[Fault]


def plan(seed: int, duration_s: float, pause_s: float, *, cuts: bool) -> list[Step]:
    """The same for the same arguments: each kind once, in an order by chance, then any, alone or in pairs.

    Has it too little time to do each alone, it does them in pairs; what does not fit even so is left out. A server has
    its step for itself then, and more time: what is done while it is away meets a platform that does nothing.
    """
    choose = random.Random(seed)
    room = duration_s / pause_s
    once = _each_once(choose, room, cuts)
    steps, filled = list[tuple[float, Sequence[Fault]]](), 0.0
    while not steps or filled < room:
        number = 2 if choose.random() < PAIRS else 1
        faults = once.pop() if once else choose.sample(every_kind(choose, cuts=cuts), number)
        steps.append((filled + choose.uniform(0, JITTER), faults))
        filled += _weight(faults)
    return [Step(round(duration_s * at / filled, 1), faults) for at, faults in steps]


def _each_once(choose: random.Random, room: float, cuts: bool) -> list[Sequence[Fault]]:
    kinds = every_kind(choose, cuts=cuts)
    choose.shuffle(kinds)
    alone = [[fault] for fault in kinds]
    servers = [step for step in alone if _weight(step) > 1]
    others = [fault for fault in kinds if _weight([fault]) == 1]
    pairs = [*servers, *(others[start : start + 2] for start in range(0, len(others), 2))]
    choose.shuffle(pairs)
    return [*(alone if sum(map(_weight, alone)) <= room else pairs)]


def _weight(faults: Sequence[Fault]) -> float:
    """How many pauses follow."""
    return SERVER_WEIGHT if any(fault.target in ("kafka", "cassandra") for fault in faults) else 1.0


def run(
    settings: Settings,
    kafka: KafkaServer,
    cassandra: CassandraServer,
    folder: Path,
    *,
    seed: int,
    duration_s: float,
    pause_s: float = PAUSE_S,
    say: Say,
) -> Outcome:
    """Run a campaign on servers that run, with its history in a folder."""
    cuts = can_be_cut()
    steps = plan(seed, duration_s, pause_s, cuts=cuts)
    skipped = [] if cuts else ["cut kafka", "cut cassandra: no network namespace is allowed here"]
    made = {fault.name for step in steps for fault in step.faults}
    left_out = [fault.name for fault in every_kind(random.Random(seed), cuts=cuts) if fault.name not in made]
    say(
        {
            "seed": seed,
            "duration_s": duration_s,
            "pause_s": pause_s,
            "rate": RATE,
            "skipped": skipped,
            "left_out": left_out,
        }
    )
    for step in steps:
        say(plan_line(step.at_s, step.faults))
    cuttable = ("scheduler-2", "executor-2") if cuts else ()
    with field_on(settings, kafka, cassandra, folder, cuttable=cuttable) as field:
        with field.load(seed, RATE):
            field.over.wait(CALM_S)
            troubles = _injure(field, steps, say)
        for server in (kafka, cassandra):
            server.wait_until_up(SERVER_LIMIT_S)
        # Whether the processes have come back too is seen by whether they settle what is open.
        settled = asyncio.run(settle(settings, folder, SETTLE_LIMIT_S))
        asyncio.run(collect(settings, folder))
    injected = [fault.name for step in steps for fault in step.faults]
    return Outcome(
        judgement=judge(folder),
        injected=injected,
        troubles=troubles,
        did_not_end=field.did_not_end,
        settled=settled,
    )


def _injure(field: Field, steps: Sequence[Step], say: Say) -> Sequence[str]:
    """Carry out a plan. Returns what went wrong with it."""
    begun_s = time.monotonic()

    def perform(fault: Fault) -> str:
        say({"after_s": round(time.monotonic() - begun_s, 1), "fault": asdict(fault)})
        return fault.perform(field)

    with ThreadPoolExecutor(sum(len(step.faults) for step in steps)) as threads:
        performed = []
        try:
            for step in steps:
                field.over.wait(max(0.0, begun_s + step.at_s - time.monotonic()))
                performed += [threads.submit(perform, fault) for fault in step.faults]
            return [trouble for each in performed if (trouble := each.result())]
        except BaseException:
            field.over.set()  # those that go on end at once
            raise
