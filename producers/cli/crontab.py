"""`dueline crontab import`: the lines of a crontab as jobs."""

import json
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import IO

import click

from dueline.client import Client
from dueline.cron import zone_of
from dueline.errors import InvalidJob, SomeNotAccepted
from dueline.job import TIMEOUT_MAX_S
from dueline.json_form import job_to_json
from infra.settings import Settings
from producers.cli.fields import within_option
from producers.cli.submit import echo_all, require_acceptable
from producers.crontab import PREFIX, Crontab, Entry, Remark, read_crontab

LOCALTIME, ZONE_NAME = Path("/etc/localtime"), Path("/etc/timezone")


@click.group()
def crontab() -> None:
    """Take over what cron does."""


@crontab.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--system", is_flag=True, help="It is a system's crontab, with a user before each command.")
@click.option("--time-zone", metavar="ZONE", help="Where no CRON_TZ says it.  [else this machine's]")
@click.option("--prefix", default=PREFIX, show_default=True, help="What the jobs' names begin with.")
@click.option("--dry-run", is_flag=True, help="Show the jobs and submit nothing.")
@click.option(
    "--json", "as_json", is_flag=True, help="Show them as lines of JSON, for dueline submit --file."
)
@within_option
@click.pass_context
def import_(
    context: click.Context,
    file: IO[bytes],
    system: bool,
    time_zone: str | None,
    prefix: str,
    dry_run: bool,
    as_json: bool,
    within: timedelta,
) -> None:
    """Submit the lines of a crontab as named jobs, and print their ids.

    What can't be taken over is told on stderr, with its line and the reason; if a line made no job the exit status is 1.

    \b
      crontab -l | dueline crontab import --dry-run -
      crontab -l | dueline crontab import -
      dueline crontab import --system /etc/crontab

    Importing the same file again changes nothing. A job is named after its command, or by a comment on the line above
    it: "# dueline: nightly-report". A line whose time or settings were changed changes its job. A job whose line is gone stays.
    """
    settings: Settings = context.obj
    zone = time_zone or local_zone()
    zone_of(zone, "--time-zone")
    found = _acceptable(read_crontab(file.read(), system=system, time_zone=zone, prefix=prefix))
    name = getattr(file, "name", "<stdin>")
    for remark in found.remarks:
        kind = "left out" if remark.left_out else "note"
        click.echo(f"{'stdin' if name == '<stdin>' else name}:{remark.line}: {kind}: {remark.text}", err=True)
    if as_json:
        _echo_json(found.entries)
    elif dry_run:
        _echo_table(found.entries)
    else:
        _submit(settings, found.entries, within.total_seconds())
    left_out = sum(remark.left_out for remark in found.remarks)
    click.echo(
        f"{len(found.entries)} jobs{'' if dry_run or as_json else ' submitted'}, {left_out} lines left out; "
        f"times are in {zone} unless CRON_TZ says otherwise, and a run may take {TIMEOUT_MAX_S / 60:g} minutes",
        err=True,
    )
    if left_out:
        context.exit(1)


def local_zone() -> str:
    """The IANA name of the time zone that this machine's cron keeps to. Raises UsageError where that can't be told."""
    machine = _machine_zone()
    ours = os.environ.get("TZ", "").lstrip(":")
    try:
        zone_of(ours)
    except InvalidJob:
        ours = ""
    if machine and ours and machine.removeprefix("Etc/") != ours.removeprefix("Etc/"):
        raise click.UsageError(
            f"TZ says {ours} and {LOCALTIME} {machine}: give --time-zone, with the one that cron keeps to"
        )
    return machine or ours or "UTC"


def _machine_zone() -> str:
    """As this machine is set up; empty if it is not."""
    _, _, linked = str(LOCALTIME.resolve()).partition("zoneinfo/")
    if linked or not LOCALTIME.exists():
        return linked
    if not ZONE_NAME.exists():  # where Debian keeps the name of what may be a copy
        raise click.UsageError(f"{LOCALTIME} does not tell the name of its time zone: give --time-zone")
    return ZONE_NAME.read_text().strip()


def _acceptable(found: Crontab) -> Crontab:
    """The same with the lines left out whose jobs would be refused."""
    checked = Crontab(remarks=found.remarks)
    for entry in found.entries:
        try:
            require_acceptable(entry.job)
        except InvalidJob as error:
            checked.remarks.append(Remark(line=entry.line, text=str(error), left_out=True))
        else:
            checked.entries.append(entry)
    checked.remarks.sort(key=lambda remark: remark.line)
    return checked


def _submit(settings: Settings, entries: Sequence[Entry], timeout_s: float) -> None:
    if not entries:
        return
    with Client(settings.kafka) as client:
        try:
            echo_all(client.submit_many([entry.job for entry in entries], timeout=timeout_s))
        except SomeNotAccepted as error:
            echo_all(error.accepted)
            raise


def _echo_json(entries: Sequence[Entry]) -> None:
    for entry in entries:
        click.echo(json.dumps(job_to_json(entry.job), ensure_ascii=False))


def _echo_table(entries: Sequence[Entry]) -> None:
    width = max((len(entry.job.id or "") for entry in entries), default=0)
    for entry in entries:
        trigger = entry.trigger
        click.echo(f"{entry.job.id:<{width}}  {trigger.expression:<15} {trigger.time_zone}  {entry.command}")
