"""make chaos DURATION=seconds SEED=number: a campaign on servers of its own. JSON lines; the last one is the verdict."""

import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click

from infra.cassandra import ensure_tables
from infra.kafka import ensure_topics
from infra.local.checks import free_ports
from infra.local.servers import Server, at_once, servers_of
from infra.settings import Settings
from tests.chaos.campaign import PAUSE_S, print_json, run


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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    kafka_port, controller_port, cassandra_port, storage_port = free_ports(4)
    data = Path(tempfile.mkdtemp(prefix="dueline-chaos-"))
    settings = Settings(
        data=data,
        kafka=f"127.0.0.1:{kafka_port}",
        cassandra=f"127.0.0.1:{cassandra_port}",
        kafka_port=kafka_port,
        kafka_controller_port=controller_port,
        cassandra_port=cassandra_port,
        cassandra_storage_port=storage_port,
    )
    kafka, cassandra = servers_of(settings)
    both: tuple[Server, Server] = (kafka, cassandra)
    with ExitStack() as ends:
        ends.callback(at_once, Server.stop, both)
        at_once(Server.start, both)
        at_once(Server.wait_until_up, both)
        ensure_topics(settings)
        ensure_tables(settings)
        judgement = run(
            settings,
            kafka,
            cassandra,
            data / "history",
            seed=seed,
            duration_s=duration,
            pause_s=pause,
            say=print_json,
        )
    if judgement.verdict == "valid" and not keep:
        shutil.rmtree(data, ignore_errors=True)
    else:
        for name in ("kafka", "cassandra"):
            shutil.rmtree(data / name, ignore_errors=True)
        print_json({"history": str(data / "history"), "logs": str(data / "logs")})
    for kind, figures in judgement.figures["faults"].items():
        print_json({"kind": kind, **figures})
    print_json({name: value for name, value in judgement.as_json().items() if name != "faults"})
    sys.exit(judgement.exit_status)


if __name__ == "__main__":
    main()
