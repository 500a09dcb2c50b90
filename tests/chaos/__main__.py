"""make chaos DURATION=seconds SEED=number: a campaign on servers of its own. JSON lines; the last one is the verdict."""

import os
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from dueline.errors import DuelineError
from infra.cassandra import ensure_tables
from infra.kafka import ensure_topics
from infra.local.checks import free_ports
from infra.local.servers import Server, at_once, servers_of
from infra.settings import Settings
from tests.chaos.campaign import PAUSE_S, run
from tests.chaos.report import Outcome, lines_of, print_json
from tests.conftest import FAST_START

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
    kafka_port, controller_port, cassandra_port, storage_port = free_ports(4)
    settings = Settings(
        data=data,
        kafka=f"127.0.0.1:{kafka_port}",
        cassandra=f"127.0.0.1:{cassandra_port}",
        kafka_port=kafka_port,
        kafka_controller_port=controller_port,
        cassandra_port=cassandra_port,
        cassandra_storage_port=storage_port,
        kafka_heap="320m",
        cassandra_heap="640m",
    )
    os.environ["JDK_JAVA_OPTIONS"] = FAST_START
    kafka, cassandra = servers_of(settings)
    both: tuple[Server, Server] = (kafka, cassandra)
    with ExitStack() as ends:
        ends.callback(at_once, Server.stop, both)
        at_once(Server.start, both)
        at_once(Server.wait_until_up, both)
        ensure_topics(settings)
        ensure_tables(settings)
        folder = data / "history"
        return run(
            settings,
            kafka,
            cassandra,
            folder,
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
