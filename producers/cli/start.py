"""Starts the processes of the platform: this process becomes the one asked for."""

import os
import sys
from importlib.util import find_spec

import click

from dueline.errors import Unavailable
from infra.settings import Settings

#: A package of the extra `platform` that each of them cannot do without.
_NEEDS = {"stream_processors.scheduler": "faust", "stream_processors.ledger": "faust", "consumers": "uvloop"}


@click.command()
@click.pass_obj
def scheduler(settings: Settings) -> None:
    """Run a scheduler: accept jobs, emit due runs."""
    _become(settings, "stream_processors.scheduler")


@click.command()
@click.pass_obj
def ledger(settings: Settings) -> None:
    """Run a ledger: record what became of the runs."""
    _become(settings, "stream_processors.ledger")


@click.command()
@click.option("--slots", type=click.IntRange(1, 1024), help="Runs at once.  [env DUELINE_SLOTS; else 4]")
@click.option(
    "--import",
    "imports",
    multiple=True,
    metavar="MODULE",
    help="A module that registers executor classes (@dueline.executor_class); may be given several times.",
)
@click.pass_obj
def executor(settings: Settings, slots: int | None, imports: tuple[str, ...]) -> None:
    """Run an executor: perform the runs that are due."""
    arguments = [] if slots is None else ["--slots", str(slots)]
    for module in imports:
        arguments += ["--import", module]
    _become(settings, "consumers", *arguments)


def _become(settings: Settings, module: str, *arguments: str) -> None:
    package = _NEEDS[module]
    # Faust, once imported, has no spec.
    if package not in sys.modules and find_spec(package) is None:
        raise Unavailable(
            f"the {module.rpartition('.')[2]} needs the package {package}, which is not installed here: "
            "pip install 'dueline[platform]', best in an environment of its own"
        )
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, "-m", module, *arguments]
    os.execve(sys.executable, command, {**os.environ, **settings.environment()})
