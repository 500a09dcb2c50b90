"""The checker finds out every build with a mistake in it, and has nothing against the sound one in the same scenarios."""

import asyncio
import subprocess
import sys
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

import pytest

from dueline import Priority
from tests.chaos.checker import judge
from tests.chaos.checker.judgement import Judgement
from tests.chaos.claims import collect
from tests.chaos.sabotage.awaited import await_settled
from tests.chaos.sabotage.executors import MISTAKES as OF_EXECUTORS
from tests.chaos.sabotage.scenarios import (
    Scenario,
    killed_executor,
    killed_scheduler,
    stopped_executor,
    succession,
)
from tests.chaos.sabotage.schedulers import MISTAKES as OF_SCHEDULERS
from tests.chaos.sabotage.stage import Stage
from tests.conftest import Servers
from tests.platform.conftest import drop_submissions

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

ONE_OF_EACH = {"ledger": 1, "scheduler": 1, "executor": 1}
KILLED_EXECUTOR = Scenario(processes=ONE_OF_EACH, play=killed_executor)
STOPPED_EXECUTOR = Scenario(
    processes=ONE_OF_EACH | {"executor": 2}, play=partial(stopped_executor, seconds=12.0)
)
KILLED_SCHEDULER = Scenario(processes=ONE_OF_EACH, play=killed_scheduler)
TWO_SCHEDULERS = ONE_OF_EACH | {"scheduler": 2}
SUCCESSION = Scenario(processes=TWO_SCHEDULERS, play=partial(succession, without_kafka=False))
SUCCESSION_WITHOUT_KAFKA = Scenario(processes=TWO_SCHEDULERS, play=partial(succession, without_kafka=True))


@pytest.fixture(scope="module")
def stage(servers: Servers) -> Iterator[Stage]:
    drop_submissions(servers.settings)
    stage = Stage(servers)
    try:
        yield stage
    finally:
        stage.close()


@pytest.mark.parametrize(
    ("scenario", "builds"),
    [
        # That of processes which are killed, and come back, is the campaign.
        pytest.param(SUCCESSION_WITHOUT_KAFKA, {}, id="succession"),
        pytest.param(STOPPED_EXECUTOR, {}, id="stopped-executor"),
        pytest.param(STOPPED_EXECUTOR, {"executor": "long-lease"}, id="stopped-executor-long-lease"),
    ],
)
def test_the_sound_build_is_not_invalid(
    stage: Stage, tmp_path: Path, scenario: Scenario, builds: dict[str, str]
) -> None:
    stage.begin(tmp_path / "sound")
    stage.have(scenario.processes, builds)
    scenario.play(stage)
    stage.have(ONE_OF_EACH, builds)
    judgement = end(stage)
    assert judgement.anomalies == ()
    assert judgement.verdict != "invalid"


@pytest.mark.parametrize(
    ("mistake", "role", "scenario", "rule"),
    [
        ("no-guard", "executor", STOPPED_EXECUTOR, "overlap"),
        ("long-lease+no-lease-wait", "executor", STOPPED_EXECUTOR, "overlap"),
        ("commit-before-output", "executor", KILLED_EXECUTOR, "lost"),
        ("output-not-atomic", "executor", KILLED_EXECUTOR, "output"),
        ("acknowledge-before-store", "scheduler", KILLED_SCHEDULER, "lost"),
        ("cursor-without-epoch", "scheduler", SUCCESSION_WITHOUT_KAFKA, "lost"),
        ("wheel-kept", "scheduler", SUCCESSION, "lost"),
    ],
)
def test_a_mistake_is_found_out(
    stage: Stage, tmp_path: Path, mistake: str, role: str, scenario: Scenario, rule: str
) -> None:
    stage.begin(tmp_path / "mistaken")
    stage.have(scenario.processes, {role: mistake})
    victims = scenario.play(stage)[rule]
    if rule != "overlap":
        stage.have(ONE_OF_EACH, {})  # the sound build takes over, and what is lost by now stays lost
    judgement = end(stage, lost=victims if rule == "lost" else ())
    assert judgement.verdict == "invalid"
    found = {anomaly.rule for anomaly in judgement.anomalies}
    assert rule in found
    assert found <= {rule, "view"}  # what is lost is shown as waiting or running for ever
    assert {anomaly.subject.partition("@")[0] for anomaly in judgement.anomalies} <= set(victims)


def test_each_mistake_finds_what_it_replaces() -> None:
    every = "+".join([*OF_EXECUTORS, *OF_SCHEDULERS])
    subprocess.run([sys.executable, "-m", "tests.chaos.sabotage", every, "infra.ready"], check=True)


def end(stage: Stage, lost: Collection[str] = ()) -> Judgement:
    """The judgement when all has ended that will ever end."""
    # Behind the victims in their shards: when these are over, those have passed, or will never come.
    stage.submit("pulse", range(stage.settings.partitions), priority=Priority.LOW, seconds=0.3)
    await_settled(stage, but=lost)
    asyncio.run(collect(stage.settings, stage.history.folder))
    return judge(stage.history.folder)
