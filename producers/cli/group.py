"""The command `dueline`: its addresses, its subcommands, and how errors look."""

import logging
from typing import Any

import click

from dueline.errors import DuelineError
from infra.settings import load_settings
from producers.cli.calendar import calendar
from producers.cli.control import backfill, cancel, change, pause, resume, retry, run_now
from producers.cli.crontab import crontab
from producers.cli.look import executors, failed, job, jobs, output, rejected, runs
from producers.cli.start import executor, ledger, scheduler
from producers.cli.submit import submit


class _Failure(click.ClickException):
    """An error as people see it: the sentence that it brings, and nothing around it."""

    def show(self, file: Any = None) -> None:
        click.echo(f"dueline: {self.message}", file=file, err=file is None)


class _Commands(click.Group):
    """Lists its commands in the order in which one needs them, and words Dueline's errors."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DuelineError as error:
            raise _Failure(str(error)) from error


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.option(
    "--kafka", metavar="HOST:PORT", help="Kafka's address.  [env DUELINE_KAFKA; else 127.0.0.1:9092]"
)
@click.option(
    "--cassandra",
    metavar="HOST:PORT",
    help="Cassandra's address.  [env DUELINE_CASSANDRA; else 127.0.0.1:9042]",
)
@click.version_option(package_name="dueline", message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context, kafka: str | None, cassandra: str | None) -> None:
    """Dueline schedules jobs: submit them, and see what became of them.

    \b
      dueline submit --in 10s -- /bin/echo hello      a command, due in ten seconds; prints the job's id
      dueline job ID                                  how the job stands
      dueline output ID                               what its latest run wrote

    Submitting needs Kafka. Looking at jobs needs Cassandra, and the extra `platform` of this package. All instants are
    shown in UTC.
    """
    logging.getLogger("cassandra").setLevel(logging.CRITICAL)  # what it has to say reaches us as an error
    given = {"kafka": kafka, "cassandra": cassandra}
    context.obj = load_settings(**{name: address for name, address in given.items() if address})


_SUBMITTING = (submit, calendar, crontab)
_LOOKING = (jobs, job, runs, output, failed, executors, rejected)
_CONTROLLING = (cancel, pause, resume, run_now, change, backfill, retry)
for command in (*_SUBMITTING, *_LOOKING, *_CONTROLLING, scheduler, ledger, executor):
    main.add_command(command)
