"""What a past measures: lateness in calm and under each kind of fault, times to recover, executions that were repeated."""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.checker.past import Execution, Fault, Past
from tests.chaos.checker.rules import overlaps

#: Later than this, a start tells of something that is not in order.
LATE_MS = 1_000
#: What a fault has done shows until so long after its end: a scheduler's take-over takes up to 15 s.
AFTER_NS = 15_000_000_000
#: Kinds whose executions end without a word by design.
_ENDS_SILENTLY = {"crashing", "overrunning"}


@dataclass(frozen=True, slots=True)
class Start:
    """When a run could begin, and when it did, for the first time or after it was cut."""

    eligible_ms: int
    start_ms: int
    #: When that which a fault may have hit began: what was cut later, at the end of a lease, had begun before.
    since_ms: int

    @property
    def lateness_ms(self) -> int:
        return self.start_ms - self.eligible_ms


def cut(past: Past) -> list[tuple[Execution, Execution]]:
    """Executions that did not come to their end though they were to, each with the one that repeated it."""
    found = []
    for executions in past.executions.values():
        demand = past.demands.get(executions[0].job)
        if demand is not None and demand.kind not in _ENDS_SILENTLY:
            pairs = itertools.pairwise(executions)
            found += [(one, following) for one, following in pairs if one.outcome is None]
    return found


def hit(past: Past) -> list[tuple[Execution, Execution]]:
    """Those of them that a fault explains."""
    return [pair for pair in cut(past) if _explained(past, *pair)]


def repeated_without_fault(past: Past) -> int:
    """Repeats, of what was cut as of what had ended well, that no fault explains."""
    pairs = cut(past)
    for executions in past.executions.values():
        pairs += [pair for pair in itertools.pairwise(executions) if pair[0].outcome == "success"]
    return len([pair for pair in pairs if not _explained(past, *pair)])


def _explained(past: Past, one: Execution, following: Execution) -> bool:
    return any(
        fault.at_ns <= following.start_ns and one.start_ns <= fault.until_ns + AFTER_NS
        for fault in past.faults
    )


def duplicates(past: Past) -> int:
    """Executions of runs that had been performed to their end before."""
    count = 0
    for executions in past.executions.values():
        ended = [index for index, each in enumerate(executions) if each.outcome == "success"]
        count += len(executions) - 1 - ended[0] if ended else 0
    return count


def figures(past: Past) -> Mapping[str, Any]:
    """All of them, as JSON has it."""
    acknowledged = [demand for demand in past.demands.values() if demand.acknowledged_ms is not None]
    executions = sum(map(len, past.executions.values()))
    starts = _starts(past)
    recovered = [(fault, _recovered_ms(fault, past, starts)) for fault in past.faults]
    by_kind: defaultdict[str, list[int]] = defaultdict(list)
    to_recover: defaultdict[str, list[int]] = defaultdict(list)
    calm = []
    for start in starts:
        kinds = {
            fault.kind
            for fault, until in recovered
            if past_ms(past, fault.at_ns) <= start.eligible_ms <= until
        }
        for kind in kinds:
            by_kind[kind].append(start.lateness_ms)
        if not kinds:
            calm.append(start.lateness_ms)
    for fault, until_ms in recovered:
        to_recover[fault.kind].append(until_ms - past_ms(past, fault.at_ns))
    repeated = duplicates(past)
    return {
        "jobs_submitted": len(past.demands),
        "jobs_acknowledged": len(acknowledged),
        "acknowledgement_ms": quantiles([round(demand.took_ms) for demand in acknowledged]),
        "runs_performed": len(past.executions),
        "executions": executions,
        "executions_cut_and_repeated": len(cut(past)),
        "repeated_without_fault": repeated_without_fault(past),
        "duplicates": repeated,
        "duplicates_per_million": round(1e6 * repeated / executions) if executions else 0,
        "overlapping_ms": round(sum(overlap_ns for _, _, overlap_ns in overlaps(past)) / 1e6, 3),
        "lateness_ms_calm": quantiles(calm),
        "faults": {
            kind: {
                "count": len(to_recover[kind]),
                "recovered_after_ms": quantiles(to_recover[kind]),
                "lateness_ms": quantiles(by_kind[kind]),
            }
            for kind in sorted(to_recover)
        },
    }


def past_ms(past: Past, at_ns: int) -> int:
    """An instant of the history by the wall clock, which stands beside the other in each start."""
    for executions in past.executions.values():
        return executions[0].start_wall_ms + (at_ns - executions[0].start_ns) // 1_000_000
    return at_ns // 1_000_000


def quantiles(values: Sequence[int]) -> Mapping[str, int] | None:
    if not values:
        return None
    ordered = sorted(values)

    def at(share: float) -> int:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return {"p50": at(0.5), "p99": at(0.99), "max": ordered[-1]}


def _starts(past: Past) -> Sequence[Start]:
    starts = []
    for executions in past.executions.values():
        demand = past.demands.get(executions[0].job)
        accepted_ms = (demand.acknowledged_ms or 0) if demand else 0
        eligible_ms = max(executions[0].due_ms, accepted_ms)
        starts.append(Start(eligible_ms, executions[0].start_wall_ms, eligible_ms))
    for one, following in cut(past):
        starts.append(Start(past_ms(past, one.last_ns), following.start_wall_ms, one.start_wall_ms))
    return starts


def _recovered_ms(fault: Fault, past: Past, starts: Sequence[Start]) -> int:
    """The first instant after a fault began at which nothing that it delayed or cut waits for longer than `LATE_MS`.

    At that instant all that could begin `LATE_MS` before it has begun, what the fault had cut included.
    """
    at_ms = past_ms(past, fault.at_ns)
    late = sorted(
        (start for start in starts if start.lateness_ms > LATE_MS and start.start_ms > at_ms),
        key=lambda start: start.since_ms,
    )
    until_ms, hits_ms = at_ms, max(at_ms + LATE_MS, past_ms(past, fault.until_ns))
    for start in late:
        if start.since_ms <= max(until_ms, hits_ms):
            until_ms = max(until_ms, start.start_ms)
    return until_ms
