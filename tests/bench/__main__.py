"""make bench [ONLY=drain] [ROUNDS=3] [SEED=1] [QUICK=1]: JSON lines on the standard output, and a page with plots."""

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from dueline.errors import DuelineError
from tests.bench.benches.backlog import Backlog
from tests.bench.benches.boundary import Boundary
from tests.bench.benches.drain import Drain
from tests.bench.benches.listing import Listing
from tests.bench.benches.recover import Recover
from tests.bench.benches.recurring import Recurring
from tests.bench.benches.scale import Scale
from tests.bench.benches.sustain import Sustain
from tests.bench.machine import machine_line
from tests.bench.options import made, options_of
from tests.bench.page import write_page
from tests.bench.session import Benchmark, Session, say

#: In the order in which they run when none is named.
BENCHES: dict[str, type[Any]] = {
    "drain": Drain,
    "sustain": Sustain,
    "boundary": Boundary,
    "backlog": Backlog,
    "recurring": Recurring,
    "recover": Recover,
    "scale": Scale,
    "list": Listing,
}


@click.group(chain=True, invoke_without_command=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Of each benchmark.")
@click.option("--seed", type=int, default=1, show_default=True, help="Decides on jobs and times.")
@click.option("--quick", is_flag=True, help="A few hundred jobs: shows that it works, measures nothing.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("build/bench"),
    help="For results.",
    show_default=True,
)
@click.pass_context
def main(context: click.Context, rounds: int, seed: int, quick: bool, out: Path) -> None:
    """Measure the platform: the benchmarks that are named, or all of them."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    session = context.obj = Session(seed=seed, rounds=rounds, quick=quick, folder=out)
    # Also after a failure or a Ctrl-C; the last of these goes first.
    context.call_on_close(lambda: _write(session))
    context.call_on_close(session.close)
    session.tell(machine_line(seed=seed, rounds=rounds, quick=quick))
    if context.invoked_subcommand is None:
        for command in main.commands.values():
            context.invoke(command)


def _command(name: str, kind: type[Any]) -> None:
    @main.command(name, help=kind.__doc__)
    @options_of(kind)
    @click.pass_obj
    def run(session: Session, /, **sizes: Any) -> None:
        bench: Benchmark = made(kind, sizes, quick=session.quick)
        try:
            bench.run(session)
        except Exception:
            session.failed = True
            raise


for _name, _kind in BENCHES.items():
    _command(_name, _kind)


def _write(session: Session) -> None:
    say(f"the page: {write_page(session.folder, session.lines)}")


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """End early; once, since what was started has to be stopped then."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt(f"ended by {signal.Signals(number).name}")


if __name__ == "__main__":
    try:
        main(prog_name="python -m tests.bench")
    except DuelineError as error:
        sys.exit(f"dueline: {error}")
