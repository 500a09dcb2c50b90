"""The checker finds each thing that must not be, and finds nothing where nothing is."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chaos.checker import Judgement, judge
from tests.chaos.checker.past import read
from tests.chaos.checker.rules import WINDOW_MS, lost

MS = 1_000_000
#: The wall clock at CLOCK_BOOTTIME 0.
EPOCH_MS = 1_700_000_000_000
RUN_OF_JOB = f"job@{EPOCH_MS}"


@dataclass
class Story:
    """Makes a history by hand. Times are in ms from the beginning."""

    lines: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {"submissions": [], "executions": [], "faults": [], "claims": []}
    )
    executions: int = 0

    def asked(
        self, job: str, due: int = 0, *, kind: str = "quick", expects: str = "SUCCEEDED", **times: int
    ) -> "Story":
        fields = {
            "job": job,
            "kind": kind,
            "expects": expects,
            "wall_ms": EPOCH_MS - 10,
            "first_ms": EPOCH_MS + due,
            **times,
        }
        self._add("submissions", "submitting", -10, **fields)
        return self._add("submissions", "acknowledged", -5, job=job, wall_ms=EPOCH_MS - 5, took_ms=5.0)

    def executed(
        self,
        job: str,
        start: int,
        end: int,
        *,
        due: int = 0,
        attempt: int = 1,
        outcome: str | None = "success",
        alive: int = 0,
    ) -> "Story":
        """From start to end; without an outcome it was cut there. Something of it goes on until `alive`."""
        self.executions += 1
        marks = {"run": f"{job}@{EPOCH_MS + due}", "attempt": attempt, "execution": f"e{self.executions}"}
        self._add("executions", "start", start, **marks, wall_ms=EPOCH_MS + start)
        if outcome is None:
            return self._add("executions", "alive", end, **marks)
        self._add("executions", "end", end, **marks, outcome=outcome, sha256=f"e{self.executions}")
        return self._add("executions", "alive", alive, **marks) if alive else self

    def claimed(
        self, job: str, *attempts: str, due: int = 0, state: str = "SUCCEEDED", job_state: str = "COMPLETED", printed: str | None = "",
        reason: str = "",
    ) -> "Story":  # fmt: skip
        """What the views say: the states of the attempts, and what the last of them printed, else the last execution's."""
        run = f"{job}@{EPOCH_MS + due}"
        self._add("claims", "job", 0, job=job, state=job_state, reason="")
        self._add("claims", "run", 0, job=job, run=run, due_ms=EPOCH_MS + due, state=state)
        for number, attempt in enumerate(attempts or ("SUCCEEDED",), 1):
            sha256 = printed if printed != "" else f"e{self.executions}"
            self._add(
                "claims", "attempt", 0, run=run, attempt=number, state=attempt, executor="x", reason=reason,
                output="somewhere", sha256=sha256 if attempt == "SUCCEEDED" else None, trouble="",
            )  # fmt: skip
        return self

    def hit(self, begun: int, until: int) -> "Story":
        return self._add(
            "faults", "fault", until, kind="sigkill executor", begun_ns=begun * MS, until_ns=until * MS
        )

    def judge(self, folder: Path) -> Judgement:
        for name, lines in self.lines.items():
            (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        return judge(folder)

    def _add(self, file: str, what: str, at: int, **fields: Any) -> "Story":
        self.lines[file].append({"what": what, "at_ns": at * MS, **fields})
        return self


def cut_and_repeated() -> Story:
    """A run that a fault cut: without one a campaign proves nothing."""
    story = Story().asked("cut").executed("cut", 10, 20, outcome=None).hit(20, 20)
    return story.executed("cut", 9000, 9010, attempt=2).claimed("cut", "INTERRUPTED", "SUCCEEDED")


def test_a_campaign_in_which_all_went_well_is_valid(tmp_path: Path) -> None:
    story = cut_and_repeated().asked("good", 100).executed("good", 130, 140, due=100).claimed("good", due=100)
    judgement = story.judge(tmp_path)
    assert (judgement.verdict, judgement.anomalies, judgement.exit_status) == ("valid", (), 0)
    assert judgement.figures["executions_cut_and_repeated"] == 1
    assert judgement.figures["duplicates"] == 0
    assert judgement.figures["lateness_ms_calm"]["max"] == 10
    assert judgement.figures["faults"]["sigkill executor"]["recovered_after_ms"]["max"] == 8980
    assert judgement.figures["faults"]["sigkill executor"]["lateness_ms"]["p50"] == 8980


def test_a_campaign_that_cut_nothing_is_unknown(tmp_path: Path) -> None:
    judgement = Story().asked("good").executed("good", 1, 2).claimed("good").judge(tmp_path)
    assert (judgement.verdict, judgement.exit_status) == ("unknown", 2)


def test_a_repeat_of_what_had_ended_is_counted(tmp_path: Path) -> None:
    story = cut_and_repeated().asked("twice").executed("twice", 1, 2).executed("twice", 3, 4).claimed("twice")
    judgement = story.judge(tmp_path)
    assert judgement.verdict == "valid"
    assert judgement.figures["duplicates"] == 1
    assert judgement.figures["duplicates_per_million"] == 250_000


def test_a_submission_that_nobody_acknowledged_may_have_come_or_not(tmp_path: Path) -> None:
    story = cut_and_repeated()
    for job in ("came", "vanished"):
        story.asked(job).lines["submissions"].pop()
    assert story.executed("came", 1, 2).claimed("came").judge(tmp_path).verdict == "valid"


def test_due_times_from_before_the_acceptance_may_be_left_out(tmp_path: Path) -> None:
    story = cut_and_repeated().asked("tick", -100, every_ms=100, last_ms=EPOCH_MS + 100)
    for due in (0, 100):
        story.executed("tick", due + 1, due + 2, due=due).claimed("tick", due=due)
    assert story.judge(tmp_path).verdict == "valid"


BAD: dict[str, tuple[str, Callable[[Story], Story]]] = {
    "never begun": ("lost", lambda s: s.asked("job").claimed("job", "RUNNING", state="READY")),
    "begun and never ended": ("lost", lambda s: s.asked("job").executed("job", 1, 2, outcome=None).claimed("job", "CRASHED", state="CRASHED")),
    "not even known": ("lost", lambda s: s.asked("job")),
    "one due time of many left out": (
        "lost",
        lambda s: s.asked("job", 0, every_ms=10, last_ms=EPOCH_MS + 10).executed("job", 1, 2).claimed("job"),
    ),
    "started too late": ("lost", lambda s: s.asked("job").executed("job", WINDOW_MS + 1, WINDOW_MS + 2).claimed("job")),
    "rejected": ("lost", lambda s: s.asked("job").claimed("job", job_state="REJECTED", state="MISSED")),
    "ended in another state": ("lost", lambda s: s.asked("job", expects="FAILED").executed("job", 1, 2).claimed("job")),
    "two at once": (
        "overlap",
        lambda s: s.asked("job").executed("job", 1, 20).executed("job", 19, 30, attempt=2).claimed("job", "INTERRUPTED", "SUCCEEDED"),
    ),
    "two runs of a job at once": (
        "overlap",
        lambda s: s.asked("job", every_ms=10, last_ms=EPOCH_MS + 10)
        .executed("job", 1, 15)
        .claimed("job", printed="e3")
        .executed("job", 12, 18, due=10)
        .claimed("job", due=10),
    ),
    "inside one that was longer": (
        "overlap",
        lambda s: s.asked("job").executed("job", 1, 50).executed("job", 60, 70, alive=90).executed("job", 80, 85).claimed("job"),
    ),
    "a grandchild that goes on": (
        "overlap",
        lambda s: s.asked("job").executed("job", 1, 2, alive=40).executed("job", 30, 31, attempt=2).claimed("job", "FAILED", "SUCCEEDED"),
    ),
    "before its time": ("early", lambda s: s.asked("job", 100).executed("job", 99, 120, due=100).claimed("job", due=100)),
    "a job of nobody's": ("unsubmitted", lambda s: s.executed("ghost", 1, 2)),
    "a due time of nobody's": ("unsubmitted", lambda s: s.asked("job").executed("job", 1, 2).claimed("job").executed("job", 9, 10, due=5)),
    "the output of another attempt": (
        "output",
        lambda s: s.asked("job").executed("job", 1, 2, outcome="failure").executed("job", 3, 4, attempt=2).claimed("job", "FAILED", "SUCCEEDED", printed="e3"),
    ),
    "no output": ("output", lambda s: s.asked("job").executed("job", 1, 2).claimed("job", printed=None)),
    "a run that is open for ever": ("view", lambda s: s.asked("job").executed("job", 1, 2).claimed("job", "RUNNING", state="RUNNING")),
    "a success that is shown as a failure": ("view", lambda s: s.asked("job").executed("job", 1, 2).claimed("job", "FAILED", state="FAILED")),
    "a success that never was": ("view", lambda s: s.asked("job").executed("job", 1, 2, attempt=2).claimed("job")),
    "a repeat outside the window": (
        "lost",
        lambda s: s.asked("job").executed("job", 1, 2, outcome=None).executed("job", WINDOW_MS + 1, WINDOW_MS + 2, attempt=2).claimed("job", "INTERRUPTED", "SUCCEEDED"),
    ),
    "before it was submitted": ("unsubmitted", lambda s: s.asked("job", -500).executed("job", -300, -290, due=-500).claimed("job", due=-500)),
    "given up after one crash": ("view", lambda s: s.asked("job", kind="crashing", expects="CRASHED").executed("job", 1, 2, outcome=None).claimed("job", "CRASHED", state="CRASHED")),
    "a run for a due time of nobody's": ("view", lambda s: s.asked("job").executed("job", 1, 2).claimed("job").claimed("job", due=5)),
    "a job that is open for ever": ("view", lambda s: s.asked("job").executed("job", 1, 2).claimed("job", job_state="ACTIVE")),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "wrong"), BAD.values(), ids=BAD)
def test_what_must_not_be_is_found(rule: str, wrong: Callable[[Story], Story], tmp_path: Path) -> None:
    judgement = wrong(cut_and_repeated()).judge(tmp_path)
    assert (judgement.verdict, judgement.exit_status) == ("invalid", 1)
    assert rule in {anomaly.rule for anomaly in judgement.anomalies}
    assert not [anomaly for anomaly in judgement.anomalies if anomaly.subject.startswith("cut")]


def test_a_cut_that_no_fault_explains_proves_nothing(tmp_path: Path) -> None:
    story = cut_and_repeated()
    story.lines["faults"].clear()
    judgement = story.judge(tmp_path)
    assert (judgement.verdict, judgement.figures["repeated_without_fault"]) == ("unknown", 1)


def test_a_run_that_is_cut_when_the_lease_ends_was_hit_when_the_fault_began(tmp_path: Path) -> None:
    story = Story().asked("cut").executed("cut", 10, 3020, outcome=None).hit(20, 20)
    story.executed("cut", 9000, 9010, attempt=2).claimed("cut", "INTERRUPTED", "SUCCEEDED")
    figures = story.judge(tmp_path).figures
    assert figures["faults"]["sigkill executor"]["recovered_after_ms"]["max"] == 8980


def test_a_performed_run_whose_row_is_missing_is_found(tmp_path: Path) -> None:
    for what in ("run", "attempt"):
        story = cut_and_repeated().asked("job").executed("job", 1, 2).claimed("job")
        claims = story.lines["claims"]
        claims[:] = [c for c in claims if not (c["what"] == what and c["run"].startswith("job"))]
        judgement = story.judge(tmp_path)
        assert {(anomaly.rule, anomaly.subject) for anomaly in judgement.anomalies} == {("view", RUN_OF_JOB)}


@pytest.mark.parametrize(("failures", "verdict"), [(1, "invalid"), (2, "valid"), (3, "invalid")])
def test_a_run_fails_as_often_as_its_policy_says(tmp_path: Path, failures: int, verdict: str) -> None:
    story = cut_and_repeated().asked("job", kind="failing", expects="FAILED", max_attempts=2)
    for number in range(failures):
        story.executed("job", 10 * number + 1, 10 * number + 2, attempt=number + 1, outcome="failure")
    story.claimed("job", *["FAILED"] * failures, state="FAILED")
    for claim in story.lines["claims"]:
        if claim["what"] == "attempt" and claim["run"] == RUN_OF_JOB:
            claim["sha256"] = f"e{claim['attempt'] + 2}"  # behind the two executions of the run that was cut
    assert story.judge(tmp_path).verdict == verdict


def test_a_torn_line_hides_nothing_behind_it(tmp_path: Path) -> None:
    story = cut_and_repeated()
    story.judge(tmp_path)
    path = tmp_path / "executions.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, f"{first[:40]}{rest[0]}", *rest[1:], ""]))
    assert judge(tmp_path).verdict == "valid"


def test_overlapping_time_is_measured(tmp_path: Path) -> None:
    story = Story().asked("job").executed("job", 1, 20).executed("job", 15, 40).claimed("job")
    assert story.judge(tmp_path).figures["overlapping_ms"] == 5.0


def test_a_run_that_was_given_up_for_a_recorded_reason_is_not_lost(tmp_path: Path) -> None:
    story = cut_and_repeated().asked("heavy").executed("heavy", 1, 2, outcome=None)
    story.claimed("heavy", "CRASHED", state="CRASHED", reason="its executors were lost at 5 starts")
    assert story.judge(tmp_path).verdict == "valid"


def test_a_torn_last_line_is_being_written(tmp_path: Path) -> None:
    story = cut_and_repeated()
    story.judge(tmp_path)
    with (tmp_path / "executions.jsonl").open("a") as file:
        file.write('{"what": "sta')
    assert judge(tmp_path).verdict == "valid"


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 500)), min_size=1, max_size=12))
def test_one_after_the_other_never_overlaps_and_any_shift_into_another_does(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, int]]
) -> None:
    story, at = Story().asked("job"), 1
    spans = []
    for pause, length in pieces:
        at += pause + 1
        spans.append((at, at + length))
        story.executed("job", at, at + length)
        at += length
    sound = story.claimed("job").judge(tmp_path_factory.mktemp("sound"))
    assert "overlap" not in {anomaly.rule for anomaly in sound.anomalies}
    start, end = spans[len(spans) // 2]
    broken = story.executed("job", (start + end) // 2, end + 1).judge(tmp_path_factory.mktemp("broken"))
    assert "overlap" in {anomaly.rule for anomaly in broken.anomalies}


@settings(max_examples=100)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.lists(st.integers(0, 6), min_size=1, max_size=4),
)
def test_the_earliest_deadline_first_finds_a_matching_where_there_is_one(
    tmp_path_factory: pytest.TempPathFactory, gaps: list[int], lateness: list[int]
) -> None:
    """Against all assignments of starts to due times, with windows of the width that all have."""
    dues = [sum(gaps[: index + 1]) * WINDOW_MS // 3 + index for index in range(len(gaps))]
    every = 1
    story = Story().asked("job", dues[0], every_ms=every, last_ms=EPOCH_MS + dues[-1])
    story.lines["submissions"][0] |= {
        "first_ms": EPOCH_MS + dues[0],
        "every_ms": 10**9,
        "last_ms": EPOCH_MS + dues[0],
    }
    starts = [due + late * WINDOW_MS // 4 for due, late in zip(dues, lateness, strict=False)]
    for due, start in zip(dues, starts, strict=False):
        story.executed("job", start, start, due=due)
    folder = tmp_path_factory.mktemp("matching")
    story.judge(folder)
    past = read(folder)
    past.demands["job"].dues_ms = [EPOCH_MS + due for due in dues[: len(starts)]]
    asked = dues[: len(starts)]
    possible = any(
        all(due <= start <= due + WINDOW_MS for due, start in zip(order, starts, strict=True))
        for order in permutations(asked)
    )
    unmatched = [anomaly for anomaly in lost(past) if anomaly.subject == "job"]
    assert bool(unmatched) is not possible
