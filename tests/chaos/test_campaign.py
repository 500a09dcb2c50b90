"""A short campaign, which makes every kind of fault, and the plans of all."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.campaign import plan, run
from tests.chaos.faults import Fault, every_kind
from tests.chaos.history import FAULTS, History
from tests.chaos.network import can_be_cut
from tests.chaos.report import lines_of
from tests.conftest import Servers
from tests.platform.conftest import drop_submissions

#: Enough for each kind, in pairs.
SHORT_S, SHORT_PAUSE_S = 150.0, 6.5


@pytest.mark.servers
@pytest.mark.timeout(900)
def test_a_campaign_with_every_kind_of_fault_is_valid(servers: Servers, tmp_path: Path) -> None:
    drop_submissions(servers.settings)
    said: list[Mapping[str, Any]] = []
    outcome = run(
        servers.settings,
        servers.kafka,
        servers.cassandra,
        tmp_path,
        seed=1,
        duration_s=SHORT_S,
        pause_s=SHORT_PAUSE_S,
        say=said.append,
    )
    *_, last = lines_of(outcome)
    assert last["verdict"] == "valid", last
    assert last["lost"] == last["overlapping_ms"] == 0
    assert said[0]["left_out"] == []
    made = {line["kind"] for line in History(tmp_path).read(FAULTS)}
    assert made == {fault.name for fault in every_kind(random.Random(1), cuts=can_be_cut())}


def test_a_seed_makes_the_same_plan_again() -> None:
    assert plan(7, 600, 13, cuts=True) == plan(7, 600, 13, cuts=True)
    assert plan(7, 600, 13, cuts=True) != plan(8, 600, 13, cuts=True)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("duration_s", [SHORT_S, 300, 1800])
def test_a_plan_makes_every_kind_in_its_time(seed: int, duration_s: float) -> None:
    steps = plan(seed, duration_s, SHORT_PAUSE_S, cuts=True)
    made = {fault.name for step in steps for fault in step.faults}
    assert made == {fault.name for fault in every_kind(random.Random(seed), cuts=True)}
    instants = [step.at_s for step in steps]
    assert instants == sorted(instants)
    assert 0 <= instants[0] <= instants[-1] < duration_s


def test_a_plan_without_room_leaves_kinds_out() -> None:
    assert 0 < len(plan(1, 30, 13, cuts=True)) < 5


def test_where_nothing_can_be_cut_there_are_no_cuts() -> None:
    kinds = {fault.kind for fault in every_kind(random.Random(1), cuts=False)}
    assert kinds == {"sigkill", "sigterm", "sigstop", "sigstop long", "restart", "crash"}


def test_the_name_of_a_fault_tells_of_whom_it_met() -> None:
    assert Fault(kind="sigkill", target="executor-2", part="slot").name == "sigkill executor slot"
    assert Fault(kind="crash", target="kafka").name == "crash kafka"
