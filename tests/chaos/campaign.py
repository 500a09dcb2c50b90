"""A campaign: a seeded plan of faults against the platform under a load that never pauses, and what came of the jobs."""

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.local.servers import CassandraServer, KafkaServer
from infra.settings import Settings
from tests.chaos.checker import Judgement, judge
from tests.chaos.claims import collect, settle
from tests.chaos.faults import Fault, every_kind
from tests.chaos.field import Field, field_on
from tests.chaos.network import can_be_cut

#: Jobs a second: with the kinds of `tests.chaos.load` two cores have breath left for servers that come back.
RATE = 8.0
#: Between two steps of a plan: long enough, as a rule, to recover from one before the next.
PAUSE_S = 25.0
#: Of the faults after those that are there for each kind once, so many come as pairs, in the same moment.
PAIRS = 0.5
#: Jobs run for so long before the first fault: the calm that the rest is compared with.
CALM_S = 15.0
#: For all that is open in the end: attempts that were interrupted last, retries, servers that have just come back.
SETTLE_LIMIT_S = 300.0

Say = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Step:
    """Faults that are made at one moment, in seconds after the first possible one."""

    at_s: float
    faults: Sequence[Fault]


def plan(seed: int, duration_s: float, pause_s: float, *, cuts: bool) -> list[Step]:
    """The same for the same arguments: each kind once, in an order by chance, then any, alone or in pairs."""
    choose = random.Random(seed)
    once = every_kind(choose, cuts=cuts)
    choose.shuffle(once)
    steps, at_s = list[Step](), 0.0
    while at_s < duration_s:
        if once:
            faults = [once.pop()]
        else:
            faults = choose.sample(every_kind(choose, cuts=cuts), 2 if choose.random() < PAIRS else 1)
        steps.append(Step(round(at_s, 1), faults))
        at_s += pause_s * choose.uniform(0.6, 1.4)
    return steps


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
) -> Judgement:
    """Run a campaign on servers that run, with its history in a folder. Returns the judgement."""
    cuts = can_be_cut()
    steps = plan(seed, duration_s, pause_s, cuts=cuts)
    skipped = [] if cuts else ["cut kafka", "cut cassandra: no network namespace is allowed here"]
    say({"seed": seed, "duration_s": duration_s, "pause_s": pause_s, "rate": RATE, "skipped": skipped})
    for step in steps:
        say({"at_s": step.at_s, "plan": [asdict(fault) for fault in step.faults]})
    cuttable = ("scheduler-2", "executor-2") if cuts else ()
    with field_on(settings, kafka, cassandra, folder, cuttable=cuttable) as field:
        with field.load(seed, RATE):
            time.sleep(CALM_S)
            _injure(field, steps, say)
        for process in field.processes.values():
            process.wait_until_up()
        settled = asyncio.run(settle(settings, folder, SETTLE_LIMIT_S))
        say({"settled": settled})
        asyncio.run(collect(settings, folder))
    return judge(folder)


def _injure(field: Field, steps: Sequence[Step], say: Say) -> None:
    begun_s = time.monotonic()

    def perform(fault: Fault) -> None:
        say({"after_s": round(time.monotonic() - begun_s, 1), "fault": asdict(fault)})
        fault.perform(field)

    with ThreadPoolExecutor(32) as threads:
        performed = []
        for step in steps:
            time.sleep(max(0.0, begun_s + step.at_s - time.monotonic()))
            performed += [threads.submit(perform, fault) for fault in step.faults]
        for each in performed:
            each.result()


def print_json(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)
