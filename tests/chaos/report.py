"""What a campaign tells: JSON lines, the plan first and the verdict last."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.chaos.checker import Judgement
from tests.chaos.faults import Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a campaign ended."""

    judgement: Judgement
    #: Names of the faults that were injected, once for each time.
    injected: Sequence[str]
    #: What did not come back in time from a fault: a server, or a process for the next.
    troubles: Sequence[str]
    #: Processes that did not end in the end, on SIGTERM, and were killed.
    did_not_end: Sequence[str]
    #: Whether all that was submitted had ended when the platform was asked.
    settled: bool

    @property
    def verdict(self) -> str:
        """The checker's; but what went otherwise than planned proves nothing."""
        return "unknown" if self.troubles and self.judgement.verdict == "valid" else self.judgement.verdict

    @property
    def exit_status(self) -> int:
        return {"valid": 0, "invalid": 1, "unknown": 2}[self.verdict]


def plan_line(at_s: float, faults: Sequence[Fault]) -> Mapping[str, Any]:
    return {"at_s": at_s, "plan": [asdict(fault) for fault in faults]}


def lines_of(outcome: Outcome) -> Iterator[Mapping[str, Any]]:
    """What was injected with its figures, a line a kind; then the verdict, with the figures of the whole."""
    judged = dict(outcome.judgement.as_json())
    by_kind = judged.pop("faults")
    for kind, injected in sorted(Counter(outcome.injected).items()):
        yield {"fault": kind, **by_kind.get(kind, {}), "injected": injected}
    yield {
        **judged,
        "verdict": outcome.verdict,
        "lost": judged["anomalies"].get("lost", 0),
        "faults_injected": len(outcome.injected),
        "settled": outcome.settled,
        "troubles": list(outcome.troubles),
        "did_not_end": list(outcome.did_not_end),
    }


def print_json(line: Mapping[str, Any]) -> None:
    print(json.dumps(line), flush=True)
