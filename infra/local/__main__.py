"""Start, stop and show the servers and the platform of this machine: what `make up`, `make down`, `make status` call."""

import sys
import time

import click

from dueline.errors import DuelineError
from infra.local.servers import start_servers, stop_servers
from infra.settings import load_settings


@click.group(help=__doc__)
def main() -> None: ...


_BEGUN = time.monotonic()


def say(text: str) -> None:
    click.echo(f"{time.monotonic() - _BEGUN:6.1f} s  {text}")


@main.command()
def servers_up() -> None:
    """Start Kafka and Cassandra alone."""
    start_servers(load_settings(), say)


@main.command()
def servers_down() -> None:
    """Stop Kafka and Cassandra alone."""
    stop_servers(load_settings(), say)


if __name__ == "__main__":
    try:
        main()
    except DuelineError as error:
        sys.exit(f"dueline: {error}")
