"""The verdict on a past."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.checker.figures import figures, hit
from tests.chaos.checker.past import read
from tests.chaos.checker.rules import RULES, Anomaly

#: Anomalies that are told in full.
TOLD_MAX = 50


@dataclass(frozen=True, slots=True)
class Judgement:
    #: valid, invalid or unknown.
    verdict: str
    anomalies: tuple[Anomaly, ...]
    figures: Mapping[str, Any]

    @property
    def exit_status(self) -> int:
        return {"valid": 0, "invalid": 1, "unknown": 2}[self.verdict]

    def as_json(self) -> Mapping[str, Any]:
        return {
            "verdict": self.verdict,
            "anomalies": dict(Counter(anomaly.rule for anomaly in self.anomalies)),
            "examples": [f"{each.rule}: {each.subject}: {each.detail}" for each in self.anomalies[:TOLD_MAX]],
            **self.figures,
        }


def judge(folder: Path) -> Judgement:
    """Judge what lies in a folder."""
    past = read(folder)
    anomalies = tuple(anomaly for rule in RULES for anomaly in rule(past))
    if anomalies:
        verdict = "invalid"
    elif not hit(past):
        verdict = "unknown"  # no fault hit a run between its start and its commit: nothing was tried
    else:
        verdict = "valid"
    return Judgement(verdict, anomalies, figures(past))
