"""Start, stop and show Kafka, Cassandra and the platform on this machine; `make up`, `down` and `status` call it."""

import shutil
import sys
import time

import click
from rich.console import Console
from rich.table import Table

from dueline.errors import DuelineError, Unavailable
from infra.cassandra import ensure_tables
from infra.kafka import ensure_topics
from infra.local.background import alone
from infra.local.platform import platform_of, start_platform, stop_platform
from infra.local.servers import servers_of, start_servers, stop_servers
from infra.settings import Settings, load_settings

_BEGUN = time.monotonic()


def say(text: str) -> None:
    """Progress, with the seconds since the command began."""
    click.echo(f"{time.monotonic() - _BEGUN:6.1f} s  {text}")


@click.group(help=__doc__)
@click.pass_context
def main(context: click.Context) -> None:
    context.obj = load_settings()


@main.command()
@click.pass_obj
def up(settings: Settings) -> None:
    """Start the servers, make what is missing of topics and tables, start the platform."""
    with alone(settings.data):
        try:
            _start_servers(settings)
            say("making topics and tables where they are missing")
            ensure_topics(settings)
            ensure_tables(settings)
            start_platform(settings, say)
        except DuelineError:
            say("failed; what was started stays: `make status` shows it, `make down` stops it")
            raise
    say(f"all is up; logs are in {settings.data / 'logs'}")


@main.command()
@click.option(
    "--remove-data", is_flag=True, help="Remove what the servers stored, all outputs and the logs as well."
)
@click.pass_obj
def down(settings: Settings, remove_data: bool) -> None:
    """Stop the platform, then the servers."""
    with alone(settings.data):
        stop_platform(settings, say)
        stop_servers(settings, say)
        for name in ("kafka", "cassandra", "outputs", "logs", "run") if remove_data else ():
            shutil.rmtree(settings.data / name, ignore_errors=True)
    say("nothing runs any more" + (", and the data is removed" if remove_data else ""))


@main.command()
@click.pass_obj
def servers_up(settings: Settings) -> None:
    """Start Kafka and Cassandra alone."""
    with alone(settings.data):
        _start_servers(settings)


@main.command()
@click.pass_obj
def servers_down(settings: Settings) -> None:
    """Stop Kafka and Cassandra alone."""
    with alone(settings.data):
        stop_servers(settings, say)


@main.command()
@click.pass_obj
def status(settings: Settings) -> None:
    """Show what runs, where it listens and where it logs."""
    table = Table("process", "state", "pid", "address", box=None)
    for server in servers_of(settings):
        address = f"127.0.0.1:{next(iter(server.ports.values()))}"
        pid = server.process.pid()
        table.add_row(server.name, _state(pid, server.is_up()), _show(pid), address)
    for process in platform_of(settings):
        state = _state(process.supervisor.pid(), process.is_up())
        table.add_row(process.name, state, _show(process.worker_pid()), "")
    Console().print(table)
    click.echo(f" logs: {settings.data / 'logs'}/<process>.log")


def _start_servers(settings: Settings) -> None:
    for elsewhere, local, setting in (
        (settings.kafka, settings.local_kafka, "DUELINE_KAFKA"),
        (settings.cassandra, settings.local_cassandra, "DUELINE_CASSANDRA"),
    ):
        if elsewhere != local:
            raise Unavailable(
                f"{setting} names {elsewhere}, and the local server would listen on {local}: "
                f"unset {setting}, or set {setting}_PORT to match"
            )
    start_servers(settings, say)


def _state(pid: int | None, is_up: bool) -> str:
    return "up" if is_up else "down" if pid is None else "not answering"


def _show(pid: int | None) -> str:
    return "" if pid is None else str(pid)


if __name__ == "__main__":
    try:
        main(prog_name="python -m infra.local")
    except DuelineError as error:
        sys.exit(f"dueline: {error}")
