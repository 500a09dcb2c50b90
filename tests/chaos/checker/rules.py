"""What must hold of a past. Each rule yields what hurts it."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tests.chaos.checker.past import AttemptClaim, Demand, Execution, Past

#: A run starts within fifteen minutes of its due time: what the platform promises, and the width of all windows.
WINDOW_MS = 15 * 60_000
#: The crash that ends a run, as the README promises it.
CRASHES_MAX = 3
_ENDS = {"SUCCEEDED", "FAILED", "TIMED_OUT", "CRASHED", "CANCELLED", "SKIPPED", "MISSED"}
#: What an execution's own end makes of its attempt. One that did not come to its end may have any other.
_STATE_OF = {"success": "SUCCEEDED", "failure": "FAILED"}


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something that must not be."""

    rule: str
    #: The job or run.
    subject: str
    detail: str


def lost(past: Past) -> Iterator[Anomaly]:
    for demand in past.demands.values():
        for due_ms in demand.required_ms:
            if trouble := _unfinished(past, demand, f"{demand.job}@{due_ms}"):
                yield Anomaly("lost", f"{demand.job}@{due_ms}", trouble)
        yield from _unmatched(past, demand)


def overlap(past: Past) -> Iterator[Anomaly]:
    for one, other, overlap_ns in overlaps(past):
        detail = f"attempt {other.attempt} began {overlap_ns / 1e6:.3f} ms before attempt {one.attempt} of {one.run} was over"
        yield Anomaly("overlap", other.run, detail)


def overlaps(past: Past) -> Iterator[tuple[Execution, Execution, int]]:
    """Pairs of executions of one job that went on at the same time, and for how long, in ns."""
    for executions in past.by_job().values():
        longest: Execution | None = None
        for execution in executions:
            if longest is not None and execution.start_ns <= longest.last_ns:
                yield longest, execution, min(longest.last_ns, execution.last_ns) - execution.start_ns
            if longest is None or execution.last_ns > longest.last_ns:
                longest = execution


def early(past: Past) -> Iterator[Anomaly]:
    for run, executions in past.executions.items():
        if (by_ms := executions[0].due_ms - executions[0].start_wall_ms) > 0:
            yield Anomaly("early", run, f"it began {by_ms} ms before its due time")


def unsubmitted(past: Past) -> Iterator[Anomaly]:
    for run, executions in past.executions.items():
        demand = past.demands.get(executions[0].job)
        if demand is None:
            yield Anomaly("unsubmitted", run, "nobody submitted its job")
        elif executions[0].due_ms not in demand.allowed_ms:
            yield Anomaly("unsubmitted", run, "its job has no such due time")
        elif executions[0].start_wall_ms < demand.submitted_ms:
            yield Anomaly("unsubmitted", run, "it began before its job was submitted")


def output(past: Past) -> Iterator[Anomaly]:
    for claim in _attempts(past):
        if claim.trouble:
            yield Anomaly("output", claim.run, f"attempt {claim.attempt}: {claim.trouble}")
        elif claim.state in _STATE_OF.values():
            printed = {
                each.sha256
                for each in _executions_of(past, claim)
                if _STATE_OF.get(each.outcome or "") == claim.state
            }
            if printed and claim.sha256 not in printed:
                detail = (
                    f"attempt {claim.attempt} has {claim.output or 'no output'}, which is not what it printed"
                )
                yield Anomaly("output", claim.run, detail)


def view(past: Past) -> Iterator[Anomaly]:
    for demand in past.demands.values():
        state, reason = past.claims.jobs.get(demand.job, ("", ""))
        if demand.acknowledged_ms is not None and state not in ("COMPLETED", "REJECTED"):
            yield Anomaly("view", demand.job, f"the job is shown as {state or 'unknown'} {reason}")
    for run, state in past.claims.runs.items():
        if state not in _ENDS:
            yield Anomaly("view", run, f"the run is shown as {state}")
        executions = past.executions.get(run, ())
        if (
            any(each.outcome == "success" for each in executions)
            and state != "SUCCEEDED"
            and not _despaired(past, run)
        ):
            yield Anomaly("view", run, f"it was performed with success, and is shown as {state}")
    yield from _not_asked_for(past)
    for run in past.executions:
        if run not in past.claims.runs:
            yield Anomaly("view", run, "it was performed, and the views know no such run")
    for run, state in past.claims.runs.items():
        yield from _view_of_attempts(past, run, state)
    for claim in _attempts(past):
        yield from _view_of_attempt(past, claim)


def _not_asked_for(past: Past) -> Iterator[Anomaly]:
    for run in past.claims.runs:
        job, _, due = run.rpartition("@")
        demand = past.demands.get(job)
        if demand is not None and int(due) not in demand.allowed_ms:
            yield Anomaly("view", run, "it is shown, and its job has no such due time")


def _view_of_attempts(past: Past, run: str, state: str) -> Iterator[Anomaly]:
    """The attempts that are shown are all there were, end as the run does, and are as many as the policy wants."""
    claims = sorted(past.claims.attempts.get(run, ()), key=lambda claim: claim.attempt)
    numbers = [claim.attempt for claim in claims]
    begun = max((each.attempt for each in past.executions.get(run, ())), default=0)
    if numbers != list(range(1, max(begun, len(numbers)) + 1)):
        yield Anomaly("view", run, f"attempts {numbers} are shown, and attempt {begun} was begun")
    elif claims and state in _ENDS and claims[-1].state != state:
        yield Anomaly("view", run, f"it is shown as {state}, and its last attempt as {claims[-1].state}")
    states = Counter(claim.state for claim in claims)
    demand = past.demands.get(run.rpartition("@")[0])
    if state in ("FAILED", "TIMED_OUT") and demand is not None and demand.max_attempts is not None:
        failed = states["FAILED"] + states["TIMED_OUT"]
        if failed != demand.max_attempts:
            yield Anomaly("view", run, f"given up after {failed} failures of {demand.max_attempts}")
    if state == "CRASHED" and states["CRASHED"] != CRASHES_MAX and not _despaired(past, run):
        yield Anomaly("view", run, f"given up after {states['CRASHED']} crashes of {CRASHES_MAX}")


def _view_of_attempt(past: Past, claim: AttemptClaim) -> Iterator[Anomaly]:
    executions = _executions_of(past, claim)
    if claim.state == "RUNNING":
        yield Anomaly("view", claim.run, f"attempt {claim.attempt} is shown as RUNNING for ever")
    elif claim.state in _STATE_OF.values():
        if not any(_STATE_OF.get(each.outcome or "") == claim.state for each in executions):
            yield Anomaly(
                "view", claim.run, f"attempt {claim.attempt} is shown as {claim.state}, and never ended so"
            )
    elif claim.state in ("TIMED_OUT", "CRASHED") and not executions and not _despaired(past, claim.run):
        yield Anomaly(
            "view", claim.run, f"attempt {claim.attempt} is shown as {claim.state}, and never began"
        )


RULES: Sequence[Callable[[Past], Iterable[Anomaly]]] = (lost, overlap, early, unsubmitted, output, view)


def _unfinished(past: Past, demand: Demand, run: str) -> str:
    """Why the demand is not satisfied by this run; empty if it is."""
    state = past.claims.runs.get(run, "")
    executions = past.executions.get(run, ())
    if _despaired(past, run):
        return ""
    if demand.expects == "SUCCEEDED":
        if any(each.outcome == "success" for each in executions):
            return ""
        return f"it was begun {len(executions)} times, never performed to its end, and is shown as {state or 'unknown'}"
    if executions and state == demand.expects:
        return ""
    return f"it was begun {len(executions)} times, and is shown as {state or 'unknown'} instead of {demand.expects}"


def _unmatched(past: Past, demand: Demand) -> Iterator[Anomaly]:
    """Earliest deadline first: enough to find a matching, since the windows of a job have the same width."""
    found = (past.executions.get(f"{demand.job}@{due}", ()) for due in demand.dues_ms)
    runs = [_performed(executions) for executions in found if executions]
    starts = sorted(execution.start_wall_ms for execution in runs)
    open_dues = sorted({*demand.required_ms, *(execution.due_ms for execution in runs)})
    for start_ms in starts:
        in_window = [due for due in open_dues if due <= start_ms <= due + WINDOW_MS]
        if in_window:
            open_dues.remove(min(in_window))
        else:
            yield Anomaly(
                "lost", demand.job, f"a run began at {start_ms}, in the window of no due time that was left"
            )
    for due_ms in open_dues:
        if not _unfinished(past, demand, f"{demand.job}@{due_ms}"):
            yield Anomaly("lost", demand.job, f"no run began in the window of {due_ms}")


def _performed(executions: Sequence[Execution]) -> Execution:
    """The execution that counts: the first that ended well, of a run that ran into a cut or was retried; else the first."""
    if executions[0].outcome == "failure":
        return executions[0]  # its retries wait on purpose
    return next((each for each in executions if each.outcome == "success"), executions[0])


def _despaired(past: Past, run: str) -> bool:
    """Whether the platform ended the run since its executors were lost again and again: a recorded reason."""
    attempts = past.claims.attempts.get(run, ())
    return any(each.state == "CRASHED" and "executors were lost" in each.reason for each in attempts)


def _attempts(past: Past) -> Iterator[AttemptClaim]:
    for attempts in past.claims.attempts.values():
        yield from attempts


def _executions_of(past: Past, claim: AttemptClaim) -> Sequence[Execution]:
    return [each for each in past.executions.get(claim.run, ()) if each.attempt == claim.attempt]
