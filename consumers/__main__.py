"""python -m consumers [--slots N] [--import MODULE …]: an executor."""

import asyncio
import logging
import signal
import sys

import click
import uvloop

from consumers.executor import Executor
from dueline.errors import DuelineError
from infra.ready import say_ready
from infra.settings import Settings, load_settings


@click.command()
@click.option("--slots", type=click.IntRange(1, 1024), help="Runs at once; DUELINE_SLOTS without it.")
@click.option(
    "--import", "imports", multiple=True, metavar="MODULE", help="A module that registers executor classes."
)
def main(slots: int | None, imports: tuple[str, ...]) -> None:
    """Perform ready runs until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = load_settings()
        if slots is not None:
            settings = settings.model_copy(update={"slots": slots})
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        asyncio.run(_serve(settings, imports))
    except DuelineError as error:
        sys.exit(f"the executor ends: {error}")


async def _serve(settings: Settings, imports: tuple[str, ...]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    ready: asyncio.Future[None] = loop.create_future()
    ready.add_done_callback(lambda _: say_ready())
    await Executor(settings, imports).run(stop, ready)


if __name__ == "__main__":
    main()
