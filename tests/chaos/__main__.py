"""make chaos DURATION=seconds SEED=number: a campaign on servers of its own. JSON lines; the last one is the verdict."""

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from dueline.errors import DuelineError
from infra.local.servers import servers_of
from tests.chaos.campaign import PAUSE_S, run
from tests.chaos.report import Outcome, lines_of, print_json
from tests.own_servers import FAST_START, own_settings, running

UNKNOWN = 2


@click.command()
@click.option(
    "--duration", default=300.0, show_default=True, help="For how long faults are made, in seconds."
)
@click.option("--seed", default=1, show_default=True, help="Decides on the plan and the jobs.")
@click.option(
    "--pause", default=PAUSE_S, show_default=True, help="Between two faults, on average, in seconds."
)
@click.option("--keep", is_flag=True, help="Keep history and logs also when the verdict is valid.")
def main(duration: float, seed: int, pause: float, keep: bool) -> None:
    """Hurt the platform for a while, and judge what came of the jobs."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    data = Path(tempfile.mkdtemp(prefix="dueline-chaos-"))
    verdict = ""
    try:
        outcome = _campaign(data, duration, seed, pause)
        verdict = outcome.verdict
    except (DuelineError, KeyboardInterrupt, RuntimeError) as error:
        why = str(error) or type(error).__name__
        print_json({"verdict": "unknown", "why": why, "logs": str(data / "logs")})
        sys.exit(UNKNOWN)
    finally:
        for name in ("",) if verdict == "valid" and not keep else ("kafka", "cassandra"):
            shutil.rmtree(data / name, ignore_errors=True)
    if data.exists():
        print_json({"history": str(data / "history"), "logs": str(data / "logs")})
    for line in lines_of(outcome):
        print_json(line)
    sys.exit(outcome.exit_status)


def _campaign(data: Path, duration: float, seed: int, pause: float) -> Outcome:
    settings = own_settings(data, kafka_heap="320m", cassandra_heap="640m")
    os.environ["JDK_JAVA_OPTIONS"] = FAST_START
    kafka, cassandra = servers_of(settings)
    with running(settings, kafka, cassandra):
        return run(
            settings,
            kafka,
            cassandra,
            data / "history",
            seed=seed,
            duration_s=duration,
            pause_s=pause,
            say=print_json,
        )


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """End the campaign early; once, since what was started has to be stopped then."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt(f"ended by {signal.Signals(number).name}")


if __name__ == "__main__":
    main()
