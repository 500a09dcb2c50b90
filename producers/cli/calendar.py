"""`dueline calendar`: dates that jobs leave out."""

from datetime import date, timedelta
from typing import IO, Any

import click

from dueline.calendars import Calendar
from dueline.client import Client
from infra.settings import Settings
from producers.cli.fields import within_option


class Date(click.ParamType):
    """A date as ISO 8601 has it."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        if isinstance(value, date):
            return value
        try:
            return date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no date, such as 2030-12-25", param, ctx)


@click.command()
@click.argument("name")
@click.argument("dates", nargs=-1, type=Date(), metavar="[DATE]...")
@click.option("--file", type=click.File("r"), help="More dates, one a line; # begins a comment. - is stdin.")
@click.option(
    "--time-zone", metavar="ZONE", help="Where the dates begin and end.  [else the trigger's own, or UTC]"
)
@click.option("--clear", is_flag=True, help="Leave it without dates.")
@within_option
@click.pass_obj
def calendar(
    settings: Settings,
    name: str,
    dates: tuple[date, ...],
    file: IO[str] | None,
    time_zone: str | None,
    clear: bool,
    within: timedelta,
) -> None:
    """Keep dates under a name, for jobs that are not to run on them. The same name again replaces them.

    \b
      dueline calendar holidays-de 2030-12-25 2030-12-26 --time-zone Europe/Berlin
      dueline submit --cron "0 8 * * *" --time-zone Europe/Berlin --excluding holidays-de -- /opt/open

    What a job was due at on such a date ends SKIPPED.
    """
    try:
        lines = (line.partition("#")[0].strip() for line in file or ())
        listed = [Date().convert(line, None, None) for line in lines if line]
    except UnicodeDecodeError as error:
        raise click.UsageError(f"--file: it must be UTF-8: {error}") from error
    if clear is bool(dates or listed):
        raise click.UsageError(
            "which dates? give them, or --file; or else --clear, which leaves it without any"
        )
    kept = Calendar(name, [*dates, *listed], time_zone)
    with Client(settings.kafka) as client:
        client.submit_calendar(kept, timeout=within.total_seconds())
    click.echo(f"{name}: {len(set(kept.dates))} dates")
