"""The commands that show: jobs, runs, outputs, executors, rejected submissions."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dueline.errors import NotFound
from dueline.ids import parse_run_id
from dueline.json_form import trigger_to_json
from dueline.outputs import read_output
from dueline.policies import Retry
from dueline.runs import Output
from dueline.states import AttemptState, JobState
from infra.rejects import latest_rejected
from infra.settings import Settings
from infra.view_values import AttemptView, JobView, RunView
from producers.cli.tables import (
    console,
    executors_table,
    jobs_table,
    rejected_table,
    runs_table,
    shortened,
    span,
    state,
    when,
)
from producers.forms import executor_form, job_form, output_form, rejected_form, run_form

if TYPE_CHECKING:
    from infra.views import Views

T = TypeVar("T")

json_option = click.option("--json", "as_json", is_flag=True, help="JSON for programs.")
lines_option = click.option("--json", "as_json", is_flag=True, help="JSON for programs, an object a line.")
limit_option = click.option(
    "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many at most."
)


@click.command()
@click.option(
    "--state", "wanted", type=click.Choice(list(JobState), case_sensitive=False), help="Only these."
)
@limit_option
@click.option("--before", metavar="ID", help="Only those that stand below this job in the listing.")
@lines_option
@click.pass_obj
def jobs(settings: Settings, wanted: JobState | None, limit: int, before: str | None, as_json: bool) -> None:
    """List jobs, the newest first."""
    page = _ask(settings, lambda views: views.jobs(limit, before=before, state=wanted))
    if as_json:
        _echo_lines(map(job_form, page.jobs))
    elif page.jobs:
        console().print(jobs_table(page.jobs))
    else:
        click.echo("there are no such jobs" if wanted or before else "there are no jobs")
    _tell_of_more(page.before)


@click.command()
@click.argument("job_id", metavar="ID")
@json_option
@click.pass_obj
def job(settings: Settings, job_id: str, as_json: bool) -> None:
    """Show one job: its state, its next due time and its last run."""

    async def ask(views: "Views") -> tuple[JobView, RunView | None]:
        view = await views.job(job_id)
        return view, await views.run(view.last_run.run_id) if view.last_run else None

    view, last = _ask(settings, ask)
    if as_json:
        _echo(job_form(view) | {"last_run": run_form(last) if last else None})
        return
    _print_lines(_described(view))
    if last is not None:
        click.echo("\nlast run:")
        console().print(runs_table([last]))
        _print_lines(_progress(last.last))


@click.command()
@click.argument("job_id", metavar="ID")
@limit_option
@click.option("--before", metavar="RUN", help="Only those that are due before this run.")
@lines_option
@click.pass_obj
def runs(settings: Settings, job_id: str, limit: int, before: str | None, as_json: bool) -> None:
    """List the runs of a job, the latest first, with their attempts."""
    try:
        behind = {} if before is None else {"before_ms": parse_run_id(before)[1]}
    except ValueError as error:
        raise click.UsageError(f"--before: {error}") from error
    found = _ask(settings, lambda views: views.runs(job_id, limit, **behind))
    if as_json:
        _echo_lines(map(run_form, found))
    else:
        console().print(runs_table(found))
    _tell_of_more(found[-1].run_id if len(found) == limit else None)


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--attempt", type=click.IntRange(1), help="Which attempt.  [else the latest]")
@click.option("--stdout-only", is_flag=True, help="Its standard output alone, byte for byte.")
@json_option
@click.pass_obj
def output(settings: Settings, run: str, attempt: int | None, stdout_only: bool, as_json: bool) -> None:
    """Print what a run wrote. RUN may also be a job's id, for its latest run."""
    view = _ask(settings, lambda views: views.run(run))
    wanted = _attempt_of(view, attempt)
    if not wanted.output:
        why = f": {wanted.reason}" if wanted.reason else ""
        raise NotFound(f"attempt {wanted.attempt} of {view.run_id} is {wanted.state} and has no output{why}")
    found = read_output(settings.data / "outputs", wanted.output)
    if as_json:
        _echo(output_form(found))
    elif stdout_only:
        click.get_binary_stream("stdout").write(found.stdout)
    else:
        _print_output(found, view, wanted)


@click.command()
@limit_option
@click.option("--before", metavar="RUN", help="Only those that stand below this run in the listing.")
@lines_option
@click.pass_obj
def failed(settings: Settings, limit: int, before: str | None, as_json: bool) -> None:
    """List the runs that ended without success in the last thirty days, the latest first. See dueline retry."""
    page = _ask(settings, lambda views: views.failed(limit, before=before))
    if as_json:
        _echo_lines(map(run_form, page.runs))
    elif page.runs:
        console().print(runs_table(page.runs))
    else:
        click.echo("no run has failed")
    _tell_of_more(page.before)


@click.command()
@lines_option
@click.pass_obj
def executors(settings: Settings, as_json: bool) -> None:
    """List the executors of the last seven days."""
    beats = _ask(settings, lambda views: views.executors())
    if as_json:
        _echo_lines(map(executor_form, beats))
    elif beats:
        console().print(executors_table(beats))
    else:
        click.echo("no executor has been heard of; start one with: dueline executor")


@click.command()
@limit_option
@lines_option
@click.pass_obj
def rejected(settings: Settings, limit: int, as_json: bool) -> None:
    """List submissions that could not be accepted, the latest first."""
    found = latest_rejected(settings, limit)
    if as_json:
        _echo_lines(map(rejected_form, found))
    elif found:
        console().print(rejected_table(found))
    else:
        click.echo("nothing was rejected")


def _tell_of_more(before: str | None) -> None:
    """That a listing was cut behind this one, if it was."""
    if before:
        click.echo(f"more may follow: --before {before}", err=True)


def _ask(settings: Settings, question: "Callable[[Views], Awaitable[T]]") -> T:
    from infra.views import open_views  # needs the extra `platform`, and says so

    async def ask() -> T:
        async with open_views(settings) as views:
            return await question(views)

    return asyncio.run(ask())


def _print_lines(lines: Iterable[tuple[str, Any]]) -> None:
    for label, value in lines:
        console().print(f"{label:<12}", value, soft_wrap=True, markup=False)


def _progress(attempt: AttemptView | None) -> list[tuple[str, str]]:
    """How far an attempt is, or was when it ended in vain, as lines of label and value."""
    if attempt is None:
        return []
    lines = [("progress", shortened(attempt.progress))] if attempt.progress else []
    if attempt.state is AttemptState.RUNNING:
        lines.append(("last heard", when(attempt.heard_ms)))
    return lines


def _described(view: JobView) -> list[tuple[str, Any]]:
    """A job as lines of label and value."""
    lines: list[tuple[str, Any]] = [("job", view.job_id), ("state", state(view.state))]
    if view.reason:
        lines.append(("reason", view.reason))
    if (definition := view.job) is not None:
        lines += [
            ("name", definition.name),
            ("class", definition.executor_class),
            ("params", json.dumps(dict(definition.params), ensure_ascii=False)),
            ("priority", definition.priority.value),
            *(("trigger", json.dumps(trigger_to_json(trigger))) for trigger in definition.triggers),
            ("attempts", _attempts(definition.retry)),
            ("timeout", f"{definition.timeout_s:g} s"),
            ("missed", definition.missed.value if definition.recurring else ""),
            ("overlap", definition.overlap_policy.value),
            ("start within", "" if definition.start_within_s is None else f"{definition.start_within_s:g} s"),
            ("end within", "" if definition.end_within_s is None else f"{definition.end_within_s:g} s"),
        ]
    lines += [("accepted", when(view.accepted_ms)), ("next due", when(view.next_due_ms))]
    return [(label, value) for label, value in lines if value != ""]


def _attempts(retry: Retry) -> str:
    if retry.max_attempts == 1:
        return "at most 1"
    pauses = ", ".join(f"{retry.backoff_ms(n, 0.0) / 1000:g}" for n in range(1, min(retry.max_attempts, 6)))
    more = ", …" if retry.max_attempts > 6 else ""
    unless = f"; none after {', '.join(retry.give_up_on)}" if retry.give_up_on else ""
    return f"at most {retry.max_attempts}, after pauses of {pauses}{more} s{unless}"


def _attempt_of(run: RunView, number: int | None) -> AttemptView:
    if not run.attempts:
        raise NotFound(f"run {run.run_id} is {run.state} and has written nothing yet")
    if number is None:
        return run.attempts[-1]
    for attempt in run.attempts:
        if attempt.attempt == number:
            return attempt
    known = ", ".join(str(attempt.attempt) for attempt in run.attempts)
    raise NotFound(f"run {run.run_id} has no attempt {number}; it has {known}")


def _print_output(found: Output, run: RunView, attempt: AttemptView) -> None:
    """All of an output: what the run wrote goes to stdout as it is, what we say about it stands around it."""
    lasted = span(found.ended_ms - found.started_ms)
    late = f", lateness {span(run.lateness_ms)}" if run.lateness_ms is not None else ""
    click.echo(f"run {found.run_id}, attempt {found.attempt}: {found.state} after {lasted}{late}")
    if found.exit_status is not None:
        click.echo(f"exit status {found.exit_status}")
    if found.result:
        click.echo(f"result {found.result}")
    if attempt.reason:
        click.echo(f"reason {attempt.reason}")
    for title, written in (
        ("stdout", found.stdout),
        ("stderr", found.stderr),
        ("error", found.error.encode("utf-8", "backslashreplace")),
    ):
        if written:
            click.echo(f"--- {title}")
            click.echo(written, nl=not written.endswith(b"\n"))
    if found.bytes_dropped:
        click.echo(f"--- {found.bytes_dropped} bytes more were written, beyond the limit, and not kept")


def _echo(form: dict[str, Any]) -> None:
    click.echo(json.dumps(form, ensure_ascii=False))


def _echo_lines(forms: Iterable[dict[str, Any]]) -> None:
    for form in forms:
        _echo(form)
