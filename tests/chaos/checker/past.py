"""A campaign's folder as values: what was asked for, what was executed, what was done to the platform, and what it claims."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.history import CLAIMS, EXECUTIONS, FAULTS, SUBMISSIONS, History


@dataclass(slots=True)
class Execution:
    """One time that the code of a run ran, by its own words."""

    run: str
    attempt: int
    id: str
    start_ns: int
    start_wall_ms: int
    #: When it, or anything that it left behind, last said something.
    last_ns: int
    #: None if it did not come to its end.
    outcome: str | None = None
    sha256: str = ""

    @property
    def job(self) -> str:
        return self.run.rpartition("@")[0]

    @property
    def due_ms(self) -> int:
        return int(self.run.rpartition("@")[2])


@dataclass(slots=True, kw_only=True)
class Demand:
    """A job that was submitted."""

    job: str
    kind: str
    expects: str
    dues_ms: Sequence[int]
    recurring: bool
    submitted_ms: int
    #: How many attempts may fail; None where the history doesn't say.
    max_attempts: int | None = None
    #: None if it never was, as far as the submitter knows.
    acknowledged_ms: int | None = None
    took_ms: float = 0.0

    @property
    def required_ms(self) -> Sequence[int]:
        """The due times for which it must have been run."""
        if self.acknowledged_ms is None:
            return ()
        if not self.recurring:
            return self.dues_ms
        return [due for due in self.dues_ms if due >= self.acknowledged_ms]

    @property
    def allowed_ms(self) -> frozenset[int]:
        """Those for which it may have been run: what came while its submission was on its way may count or not."""
        if not self.recurring:
            return frozenset(self.dues_ms)
        return frozenset(due for due in self.dues_ms if due >= self.submitted_ms)


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    at_ns: int
    until_ns: int


@dataclass(frozen=True, slots=True)
class AttemptClaim:
    """What the views say of an attempt, and the hash of what the output store has of it."""

    run: str
    attempt: int
    state: str
    reason: str
    output: str
    sha256: str | None
    trouble: str


@dataclass(slots=True)
class Claims:
    """What the platform says in the end."""

    #: State and reason.
    jobs: dict[str, tuple[str, str]] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    attempts: defaultdict[str, list[AttemptClaim]] = field(default_factory=lambda: defaultdict(list))


@dataclass(slots=True)
class Past:
    demands: Mapping[str, Demand]
    #: By run, in the order of their starts.
    executions: Mapping[str, Sequence[Execution]]
    faults: Sequence[Fault]
    claims: Claims

    def by_job(self) -> Mapping[str, Sequence[Execution]]:
        """The executions of each job, in the order of their starts."""
        jobs: defaultdict[str, list[Execution]] = defaultdict(list)
        for executions in self.executions.values():
            jobs[executions[0].job] += executions
        return {job: sorted(executions, key=lambda each: each.start_ns) for job, executions in jobs.items()}


def read(folder: Path) -> Past:
    """Read a folder."""
    history = History(folder)
    return Past(
        demands=_demands(history),
        executions=_executions(history),
        faults=[Fault(f["kind"], f["begun_ns"], f["until_ns"]) for f in history.read(FAULTS)],
        claims=_claims(history),
    )


def _demands(history: History) -> Mapping[str, Demand]:
    demands: dict[str, Demand] = {}
    for line in history.read(SUBMISSIONS):
        job = line["job"]
        if line["what"] == "submitting":
            demands[job] = Demand(
                job=job,
                kind=line["kind"],
                expects=line["expects"],
                dues_ms=_dues(line),
                recurring="every_ms" in line,
                submitted_ms=line["wall_ms"],
                max_attempts=line.get("max_attempts"),
            )
        elif line["what"] == "acknowledged":
            demands[job].acknowledged_ms = line["wall_ms"]
            demands[job].took_ms = line["took_ms"]
    return demands


def _dues(line: Mapping[str, Any]) -> Sequence[int]:
    if "every_ms" not in line:
        return [line["first_ms"]]
    return range(line["first_ms"], line["last_ms"] + 1, line["every_ms"])


def _executions(history: History) -> Mapping[str, Sequence[Execution]]:
    found: dict[str, Execution] = {}
    for line in history.read(EXECUTIONS):
        execution, at_ns = line["execution"], line["at_ns"]
        if line["what"] == "start":
            found[execution] = Execution(
                line["run"], line["attempt"], execution, at_ns, line["wall_ms"], last_ns=at_ns
            )
        else:
            # A line's own time: several processes write, and the order of the lines is not that of the clock.
            found[execution].last_ns = max(found[execution].last_ns, at_ns)
        if line["what"] == "end":
            found[execution].outcome, found[execution].sha256 = line["outcome"], line["sha256"]
    runs: defaultdict[str, list[Execution]] = defaultdict(list)
    for each in sorted(found.values(), key=lambda each: each.start_ns):
        runs[each.run].append(each)
    return runs


def _claims(history: History) -> Claims:
    claims = Claims()
    for line in history.read(CLAIMS):
        if line["what"] == "job":
            claims.jobs[line["job"]] = line["state"], line["reason"]
        elif line["what"] == "run":
            claims.runs[line["run"]] = line["state"]
        elif line["what"] == "attempt":
            names = AttemptClaim.__slots__
            claims.attempts[line["run"]].append(AttemptClaim(*(line[name] for name in names)))
    return claims
