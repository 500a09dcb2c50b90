"""The fields of a job as options, for commands that submit a job or change one."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, TypeVar

import click

from dueline.clock import SystemClock, from_ms
from dueline.job import Job, Priority
from dueline.json_form import job_to_json, one_of, trigger_to_json
from dueline.policies import IfExists, Missed, Overlap, Retry
from dueline.triggers import Cron, Every, Once, Trigger
from producers.cli.fields import Duration, Instant, JsonObject, Param

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.argument("argv", nargs=-1),
    click.option("--class", "executor_class", metavar="NAME", help="Executor class: the code that runs."),
    click.option("--param", "param", type=Param(), multiple=True, help="A parameter; several may be given."),
    click.option("--params", type=JsonObject(), help="All parameters as one JSON object."),
    click.option("--name", help="What people call the job."),
    click.option("--priority", type=click.Choice([p.value for p in Priority]), help="[else normal]"),
    click.option(
        "--at", type=Instant(), multiple=True, help="Due at this time, such as 2030-01-31T02:00+01:00."
    ),
    click.option(
        "--in", "in_", type=Duration(), multiple=True, help="Due after this time, such as 10s or 1h30m."
    ),
    click.option("--every", type=Duration(), multiple=True, help="Due again and again, this long apart."),
    click.option(
        "--cron", metavar="EXPRESSION", multiple=True, help="Due by a cron expression of five fields."
    ),
    click.option(
        "--time-zone", metavar="ZONE", help="Of the cron expression, such as Europe/Berlin.  [else UTC]"
    ),
    click.option("--start", type=Instant(), help="Not due before this time (--every, --cron)."),
    click.option("--end", type=Instant(), help="Not due after this time (--every, --cron)."),
    click.option(
        "--jitter", type=Duration(), help="Start up to this much later, against the herd (--every, --cron)."
    ),
    click.option(
        "--excluding",
        metavar="CALENDAR",
        multiple=True,
        help="Not on the dates of this calendar (--every, --cron); see dueline calendar.",
    ),
    click.option("--retries", type=int, help="Attempts after a failed one.  [else 0]"),
    click.option("--max-attempts", type=int, help="The same, the first attempt included."),
    click.option(
        "--backoff", type=Duration(), help="Pause before the first retry; each is twice the one before."
    ),
    click.option("--timeout", type=Duration(), help="An attempt is ended after this time.  [else 5m]"),
    click.option(
        "--pause", "pauses", type=Duration(), multiple=True, help="The pauses before retries, one by one."
    ),
    click.option(
        "--give-up-on",
        metavar="KIND",
        multiple=True,
        help="No retry after this exception class (or one below it), or timeout.",
    ),
    click.option(
        "--missed",
        type=click.Choice([m.value for m in Missed]),
        help="Which missed due times are run.  [else latest]",
    ),
    click.option("--catch-up", type=Duration(), help="Nothing is run that was missed longer ago."),
    click.option(
        "--overlap",
        type=click.Choice([o.value for o in Overlap]),
        help="What to do with a run while the one before goes on.  [else queue_one for recurring jobs]",
    ),
    click.option(
        "--start-within", type=Duration(), help="A run that can't start so soon after its due time is missed."
    ),
    click.option(
        "--end-within", type=Duration(), help="A run ends so long after its due time, retries included."
    ),
)
_DURATIONS = {
    "timeout": "timeout_s",
    "catch_up": "catch_up_s",
    "start_within": "start_within_s",
    "end_within": "end_within_s",
}


def job_options(command: F) -> F:
    """Gives a command an option for each field of a job but its id, and a program behind all options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def job_from_options(given: dict[str, Any]) -> Job:
    """The job that the options describe. Raises UsageError for options that don't go together, InvalidJob for values."""
    return Job(
        executor_class=_executor_class(given),
        params=_params(given),
        triggers=tuple(_triggers(given)),
        retry=_retry(given),
        **_plain(given),
    )


def fields_from_options(given: dict[str, Any]) -> dict[str, Any]:
    """The fields that options change, as in the JSON form of a job."""
    fields = _plain(given)
    if "argv" in given or "executor_class" in given:
        fields["executor_class"] = _executor_class(given)
    if given.keys() & {"argv", "param", "params"}:
        fields["params"] = _params(given)
    retry = _retry_fields(given)
    whole: dict[str, Any] = {"executor_class": "any", "retry": Retry(**retry)} | fields
    form = job_to_json(Job(**whole))
    changed = {name: form[name] for name in fields}
    if retry:
        changed["retry"] = {name: form["retry"][name] for name in retry}
    if triggers := tuple(_triggers(given)):
        changed["triggers"] = [trigger_to_json(trigger) for trigger in triggers]
    return changed


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    """The fields that one option says all about."""
    fields: dict[str, Any] = {name: given[name] for name in ("id", "name") if name in given}
    kinds = {"priority": Priority, "missed": Missed, "overlap": Overlap, "if_exists": IfExists}
    fields |= {name: one_of(name, kind, given[name]) for name, kind in kinds.items() if name in given}
    return fields | {
        field: given[name].total_seconds() for name, field in _DURATIONS.items() if name in given
    }


def _executor_class(given: dict[str, Any]) -> str:
    if "argv" in given and given.setdefault("executor_class", "command") != "command":
        raise click.UsageError(
            f"a program is for --class command, not {given['executor_class']}; use --param"
        )
    if "executor_class" not in given:
        raise click.UsageError("what is to run? give a program after --, or --class and its parameters")
    name: str = given["executor_class"]
    return name


def _params(given: dict[str, Any]) -> dict[str, Any]:
    params: dict[str, Any] = given.get("params", {}) | dict(given.get("param", ()))
    if "argv" in given:
        if "argv" in params:
            raise click.UsageError("argv is given twice: as a parameter, and after the options")
        params["argv"] = list(given["argv"])
    return params


def _triggers(given: dict[str, Any]) -> Iterator[Trigger]:
    recurring: dict[str, Any] = {name: given[name] for name in ("start", "end", "jitter") if name in given}
    if "excluding" in given:
        recurring["excluding"] = tuple(given["excluding"])
    if recurring and not ("every" in given or "cron" in given):
        raise click.UsageError(
            "--start, --end, --jitter and --excluding are for --every or --cron; for one run give --at or --in"
        )
    if "time_zone" in given and "cron" not in given:
        raise click.UsageError("--time-zone is that of --cron; other times carry their offset")
    yield from map(Once, given.get("at", ()))
    for wait in given.get("in_", ()):
        yield Once(_after(wait))
    for interval in given.get("every", ()):
        yield Every(interval, **recurring)
    for expression in given.get("cron", ()):
        yield Cron(expression, given.get("time_zone", "UTC"), **recurring)


def _after(wait: timedelta) -> datetime:
    try:
        return from_ms(SystemClock().now_ms()) + wait
    except OverflowError:
        raise click.UsageError(f"--in {wait}: that is beyond the calendar's end") from None


def _retry(given: dict[str, Any]) -> Retry:
    fields = _retry_fields(given)
    if fields and "max_attempts" not in fields:
        raise click.UsageError(
            "--backoff, --pause and --give-up-on are for retries: say how many, with --retries"
        )
    return Retry(**fields)


def _retry_fields(given: dict[str, Any]) -> dict[str, Any]:
    if "retries" in given and "max_attempts" in given:
        raise click.UsageError(
            "give --retries or --max-attempts, not both: the latter counts the first attempt too"
        )
    fields: dict[str, Any] = {}
    if "retries" in given:
        fields["max_attempts"] = given["retries"] + 1
    if "max_attempts" in given:
        fields["max_attempts"] = given["max_attempts"]
    if "backoff" in given:
        fields["backoff_s"] = given["backoff"].total_seconds()
    if "pauses" in given:
        fields["pauses_s"] = tuple(pause.total_seconds() for pause in given["pauses"])
    if "give_up_on" in given:
        fields["give_up_on"] = tuple(given["give_up_on"])
    return fields
