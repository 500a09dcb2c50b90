"""The commands that ask something of jobs that there are: cancel, pause, resume, run-now, change, backfill, retry."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from dueline.client import Client
from dueline.commands import Action, JobFilter
from dueline.states import JobState
from infra.settings import Settings
from infra.view_values import JobView
from producers.cli.fields import Instant, within_option
from producers.cli.job_options import fields_from_options, job_options

if TYPE_CHECKING:
    from infra.views import Views

#: Jobs that are looked at in one go.
PAGE = 500

_note = click.option("--note", default="", help="Why; it is shown with the job.")


def _which(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the ways to say which jobs it is for."""
    for option in (
        click.argument("ids", metavar="[ID]...", nargs=-1),
        click.option("--class", "executor_class", metavar="NAME", help="All jobs of this executor class."),
        click.option(
            "--state", type=click.Choice(list(JobState), case_sensitive=False), help="All jobs in this state."
        ),
        click.option("--prefix", metavar="TEXT", help="All jobs whose ids begin like this."),
        click.option("--dry-run", is_flag=True, help="Print the ids and do nothing."),
        _note,
        within_option,
        click.pass_obj,
    ):
        command = option(command)
    return command


def _control(
    name: str, action: Action, method: Callable[[Client], Callable[..., None]], done: str, doc: str
) -> click.Command:
    def command(
        settings: Settings, ids: tuple[str, ...], dry_run: bool, note: str, within: timedelta, **filters: Any
    ) -> None:
        given = {name: value for name, value in filters.items() if value is not None}
        if bool(ids) is bool(given):
            raise click.UsageError("which jobs? give their ids, or options that describe them")
        if dry_run:
            chosen = ids or _fitting(settings, JobFilter(**given))
            click.echo("".join(f"{job_id}\n" for job_id in chosen), nl=False)
            return
        timeout_s = within.total_seconds()
        with Client(settings.kafka) as client:
            for job_id in ids:
                method(client)(job_id, note, timeout=timeout_s)
                click.echo(f"{job_id} {done}")
            if given:
                client.control_all(action, JobFilter(**given), note, timeout=timeout_s)
                click.echo(f"each job of which all of this holds {done}: {_told(given)}")
        if ids:
            _tell_where_refusals_are()

    command.__doc__ = doc
    return click.command(name)(_which(command))


cancel = _control(
    "cancel",
    Action.CANCEL,
    lambda client: client.cancel,
    "is to be cancelled",
    """Cancel jobs: no run of theirs starts any more, and what runs is ended.

    By their ids, or all that the options describe, together:

    \b
      dueline cancel nightly-report --note "the report moved"
      dueline cancel --class http --state PAUSED
    """,
)
pause = _control(
    "pause",
    Action.PAUSE,
    lambda client: client.pause,
    "is to be paused",
    """Pause jobs: runs that become due from now on wait until their job is resumed.""",
)
resume = _control(
    "resume",
    Action.RESUME,
    lambda client: client.resume,
    "is to be resumed",
    """Resume jobs that are paused; what becomes of the due times that they missed, their --missed policy says.

    A cancelled job starts anew.
    """,
)
run_now = _control(
    "run-now",
    Action.RUN,
    lambda client: client.run_now,
    "is to be run",
    """Run jobs once more, besides what their triggers say, also while they are paused.""",
)


@click.command()
@click.argument("job_id", metavar="ID")
@job_options
@_note
@within_option
@click.pass_obj
def change(settings: Settings, /, job_id: str, note: str, within: timedelta, **options: Any) -> None:
    """Change a job: what is given is new, all else stays. Times that were due before the change stay as they were.

    Parameters are one thing: --params, or a program after --, takes the place of all that the job had. So are its times: --at, --in,
    --every and --cron take the place of all of them, with their start, end, jitter and calendars.

    \b
      dueline change nightly-report --cron "0 3 * * *" --time-zone Europe/Berlin
      dueline change nightly-report --priority low --timeout 2m -- /opt/report --brief
    """
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    if "param" in given and "params" not in given:
        raise click.UsageError(
            "--param would take the place of all parameters that the job has: give all of them, with --params"
        )
    if "cron" in given and "time_zone" not in given:
        raise click.UsageError(
            "--cron takes the place of the job's times with their zone: say --time-zone, too"
        )
    fields = fields_from_options(given)
    if not fields:
        raise click.UsageError("what is to change? give an option of a job, or a program after --")
    with Client(settings.kafka) as client:
        client.change(job_id, fields, note, timeout=within.total_seconds())
    click.echo(f"{job_id} is to be changed: {', '.join(sorted(fields))}")
    _tell_where_refusals_are()


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--start", type=Instant(), required=True, help="The first due time.")
@click.option("--end", type=Instant(), required=True, help="The last due time.")
@_note
@within_option
@click.pass_obj
def backfill(
    settings: Settings, job_id: str, start: datetime, end: datetime, note: str, within: timedelta
) -> None:
    """Run the due times of a span that were left out, or that lie before the job's time. Those that have run stay.

    \b
      dueline backfill nightly-report --start 2030-01-01T00:00Z --end 2030-01-31T23:59Z
    """
    with Client(settings.kafka) as client:
        client.backfill(job_id, start, end, note, timeout=within.total_seconds())
    click.echo(f"{job_id} is to be run for its due times of that span")
    _tell_where_refusals_are()


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@_note
@within_option
@click.pass_obj
def retry(settings: Settings, /, runs: tuple[str, ...], note: str, within: timedelta) -> None:
    """Perform runs again that have ended without success, by their jobs' present definitions.

    \b
      dueline failed                                          lists them
      dueline retry nightly-report@1893459600000
      dueline failed --json --limit 1000 | jq -r .run_id | xargs dueline retry
    """
    with Client(settings.kafka) as client:
        for run in runs:
            client.retry(run, note, timeout=within.total_seconds())
            click.echo(f"{run} is to be performed again")
    _tell_where_refusals_are()


def _tell_where_refusals_are() -> None:
    """Whether a command can be obeyed only the scheduler knows, which reads it later."""
    click.echo("accepted; if it can't be obeyed, dueline rejected says why", err=True)


def _told(given: dict[str, Any]) -> str:
    words = {"executor_class": "class", "state": "state", "prefix": "prefix"}
    return ", ".join(f"{words[name]} {value}" for name, value in given.items())


def _fitting(settings: Settings, matching: JobFilter) -> list[str]:
    from infra.views import open_views  # needs the extra `platform`, and says so

    async def ask() -> list[str]:
        async with open_views(settings) as views:
            return [view.job_id async for view in _all(views, matching.state) if view.fits(matching)]

    return asyncio.run(ask())


async def _all(views: "Views", state: JobState | None) -> AsyncIterator[JobView]:
    before = None
    while True:
        page = await views.jobs(PAGE, before=before, state=state)
        for view in page.jobs:
            yield view
        if page.before is None:
            return
        before = page.before
