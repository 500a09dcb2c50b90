"""A job as JSON, the form that people type and any Kafka client can send:

    {"id": "nightly-report", "executor_class": "command", "params": {"argv": ["/bin/date"]}, "priority": "high",
     "trigger": {"cron": "0 2 * * *", "time_zone": "Europe/Berlin"}, "timeout_s": 60, "retry": {"max_attempts": 3}}

A trigger is `{"at": …}`, `{"every_s": …}` or `{"cron": …}`; times are ISO 8601 with an offset. `triggers` takes a
list where `trigger` takes one. An interval or a cron expression may also have `start`, `end`, `jitter_s` and `excluding`, a
list of names of calendars. A calendar is a submission of its own:

    {"calendar": "holidays-de", "dates": ["2030-12-25", "2030-12-26"], "time_zone": "Europe/Berlin"}

And so is what is asked of a job that there is, by its id:

    {"action": "pause", "id": "nightly-report", "note": "the disk is full"}
    {"action": "retry", "run": "nightly-report@1893459600000"}
    {"action": "change", "id": "nightly-report", "fields": {"priority": "low"}}
    {"action": "backfill", "id": "nightly-report", "start": "2030-01-01T00:00Z", "end": "2030-01-31T00:00Z"}

Or of many, by what they have in common, one or more of `executor_class`, `state` and `prefix` (of their ids):

    {"action": "pause", "matching": {"executor_class": "http", "state": "ACTIVE"}, "note": "the proxy is down"}
"""

from collections.abc import Collection, Mapping
from dataclasses import fields
from datetime import date, datetime, timedelta
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, TypeVar

from dueline.calendars import Calendar
from dueline.clock import to_ms
from dueline.commands import Action, BulkCommand, ControlCommand, JobFilter
from dueline.errors import InvalidJob
from dueline.ids import parse_run_id
from dueline.job import Job, Priority
from dueline.policies import IfExists, Missed, Overlap, Retry
from dueline.states import JobState
from dueline.triggers import Cron, Every, Once, Trigger

_Kind = TypeVar("_Kind", bound=StrEnum)

_JOB_FIELDS = (
    "id",
    "name",
    "executor_class",
    "priority",
    "params",
    "trigger",
    "triggers",
    "retry",
    "timeout_s",
    "missed",
    "catch_up_s",
    "overlap",
    "start_within_s",
    "end_within_s",
    "if_exists",
)
_KINDS: Mapping[str, type[StrEnum]] = {"missed": Missed, "overlap": Overlap, "if_exists": IfExists}
_COMMAND_FIELDS = ("action", "id", "run", "note", "fields", "start", "end")
_BULK_FIELDS = ("action", "matching", "note", "fields")
_FILTER_FIELDS = ("executor_class", "state", "prefix")
_RETRY_FIELDS = tuple(field.name for field in fields(Retry))
_TRIGGER_FIELDS = {
    "at": ("at",),
    "every_s": ("every_s", "start", "end", "jitter_s", "excluding"),
    "cron": ("cron", "time_zone", "start", "end", "jitter_s", "excluding"),
}
_CALENDAR_FIELDS = ("calendar", "dates", "time_zone")


def job_from_json(source: object) -> Job:
    """The job that a parsed JSON value describes. Raises InvalidJob, which names the field and the remedy."""
    fields_given = dict(_object("submission", source, _JOB_FIELDS))
    if fields_given.get("executor_class") is None:
        raise InvalidJob("executor_class", "is missing; it names the code to run, such as command or http")
    single, several = fields_given.pop("trigger", None), fields_given.pop("triggers", None)
    if single is not None and several is not None:
        raise InvalidJob("trigger", "give either trigger or triggers, not both")
    if several is not None and not isinstance(several, list):
        raise InvalidJob("triggers", "must be a list of triggers")
    triggers = several if several is not None else [] if single is None else [single]
    fields_given["triggers"] = tuple(trigger_from_json(trigger) for trigger in triggers)
    # A null stands for a field left out: some encoders write every optional field.
    fields_given = {name: value for name, value in fields_given.items() if value is not None}
    if "priority" in fields_given:
        fields_given["priority"] = priority_from_text(fields_given["priority"])
    for name in _KINDS.keys() & fields_given.keys():
        fields_given[name] = one_of(name, _KINDS[name], fields_given[name])
    if "retry" in fields_given:
        told = _object("retry", fields_given["retry"], _RETRY_FIELDS)
        retry = {name: value for name, value in told.items() if value is not None}
        lists = {name: tuple(value) for name, value in retry.items() if isinstance(value, list)}
        fields_given["retry"] = Retry(**retry | lists)
    return Job(**fields_given)


def job_to_json(job: Job) -> dict[str, Any]:
    """The JSON value of a job, with all its fields, such that `job_from_json` gives the same job again."""
    return {
        "id": job.id,
        "name": job.name,
        "executor_class": job.executor_class,
        "priority": job.priority.value,
        "params": dict(job.params),
        "triggers": [trigger_to_json(trigger) for trigger in job.triggers],
        "retry": {name: _listed(getattr(job.retry, name)) for name in _RETRY_FIELDS},
        "timeout_s": job.timeout_s,
        "missed": job.missed.value,
        "catch_up_s": job.catch_up_s,
        "overlap": job.overlap and job.overlap.value,
        "start_within_s": job.start_within_s,
        "end_within_s": job.end_within_s,
        "if_exists": job.if_exists.value,
    }


def changed_job(job: Job, fields_given: Mapping[str, Any]) -> Job:
    """The job with some of its fields changed, as in its JSON form. Raises InvalidJob."""
    form = job_to_json(job)
    _object("submission", fields_given, [name for name in _JOB_FIELDS if name not in ("id", "if_exists")])
    if "trigger" in fields_given:
        del form["triggers"]
    changed = form | dict(fields_given)
    if isinstance(retry := fields_given.get("retry"), Mapping):
        changed["retry"] = form["retry"] | dict(retry)
    return job_from_json(changed)


def command_from_json(source: object) -> ControlCommand:
    """What a parsed JSON value asks of a job. Raises InvalidJob, which names the field and the remedy."""
    given = {n: v for n, v in _object("submission", source, _COMMAND_FIELDS).items() if v is not None}
    action = one_of("action", Action, given.get("action"))
    fields_given = _new_values(given)
    start_ms, end_ms = (
        to_ms(_moment(name, given[name])) if name in given else None for name in ("start", "end")
    )
    if ("run" in given) is not (action is Action.RETRY):
        raise InvalidJob(
            "run",
            'is for the action retry, which needs it: the id of the run, such as "nightly-report@1893459600000"',
        )
    if "run" not in given and "id" not in given:
        raise InvalidJob("id", "is missing; it names the job")
    job_id = given.get("id", "")
    if "run" in given:
        try:
            job_id, start_ms = parse_run_id(given["run"])
        except (ValueError, AttributeError) as error:
            raise InvalidJob("run", str(error)) from error
        end_ms = start_ms
    return ControlCommand(
        job_id=job_id,
        action=Action(action),
        note=given.get("note", ""),
        fields=fields_given,
        start_ms=start_ms,
        end_ms=end_ms,
    )


def bulk_from_json(source: object) -> BulkCommand:
    """What a parsed JSON value asks of many jobs. Raises InvalidJob, which names the field and the remedy."""
    given = {n: v for n, v in _object("submission", source, _BULK_FIELDS).items() if v is not None}
    matching = _object("matching", given.get("matching"), _FILTER_FIELDS)
    state = matching.get("state")
    return BulkCommand(
        matching=JobFilter(
            executor_class=matching.get("executor_class"),
            state=None if state is None else one_of("matching.state", JobState, state),
            prefix=matching.get("prefix"),
        ),
        action=one_of("action", Action, given.get("action")),
        note=given.get("note", ""),
        fields=_new_values(given),
    )


def trigger_from_json(source: object) -> Trigger:
    kinds = [kind for kind in _TRIGGER_FIELDS if isinstance(source, Mapping) and kind in source]
    if len(kinds) != 1:
        raise InvalidJob("trigger", 'must be one of {"at": …}, {"every_s": …} and {"cron": …}')
    kind = kinds[0]
    given = _object("trigger", source, _TRIGGER_FIELDS[kind])
    if kind == "at":
        return Once(_moment("trigger.at", given["at"]))
    # A null stands for a field left out here too.
    start, end = (
        None if given.get(n) is None else _moment(f"trigger.{n}", given[n]) for n in ("start", "end")
    )
    jitter, time_zone = given.get("jitter_s"), given.get("time_zone")
    jitter = _seconds("trigger.jitter_s", 0 if jitter is None else jitter)
    excluding = _names("trigger.excluding", given.get("excluding"))
    if kind == "cron":
        return Cron(given["cron"], "UTC" if time_zone is None else time_zone, start, end, jitter, excluding)
    return Every(_seconds("trigger.every_s", given["every_s"]), start, end, jitter, excluding)


def trigger_to_json(trigger: Trigger) -> dict[str, Any]:
    if isinstance(trigger, Once):
        return {"at": trigger.at.isoformat()}
    assert isinstance(trigger, Every | Cron)
    if isinstance(trigger, Every):
        form: dict[str, Any] = {"every_s": trigger.interval.total_seconds()}
    else:
        form = {"cron": trigger.expression, "time_zone": trigger.time_zone}
    form |= {name: moment.isoformat() for name in ("start", "end") if (moment := getattr(trigger, name))}
    if trigger.jitter:
        form["jitter_s"] = trigger.jitter.total_seconds()
    if trigger.excluding:
        form["excluding"] = list(trigger.excluding)
    return form


def calendar_from_json(source: object) -> Calendar:
    """The calendar that a parsed JSON value describes. Raises InvalidJob, which names the field and the remedy."""
    given = _object("calendar", source, _CALENDAR_FIELDS)
    return Calendar(given.get("calendar"), _dates(given.get("dates")), given.get("time_zone"))  # type: ignore[arg-type]


def calendar_to_json(calendar: Calendar) -> dict[str, Any]:
    dates = [day.isoformat() for day in sorted(calendar.dates)]
    zone = {} if calendar.time_zone is None else {"time_zone": calendar.time_zone}
    return {"calendar": calendar.name, "dates": dates} | zone


def priority_from_text(text: object) -> Priority:
    return one_of("priority", Priority, text)


def one_of(field: str, kind: type[_Kind], text: object) -> _Kind:
    """The value of an enum that a text stands for. Raises InvalidJob, which names the others."""
    try:
        return kind(text)  # type: ignore[arg-type]
    except ValueError:
        raise InvalidJob(field, f"{text!r:.80} is not one of {', '.join(kind)}") from None


def _new_values(given: Mapping[str, Any]) -> Mapping[str, Any]:
    fields_given = given.get("fields", {})
    if not isinstance(fields_given, Mapping):
        raise InvalidJob("fields", 'must be an object of new values, such as {"priority": "high"}')
    return fields_given


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _object(field: str, source: object, known: Collection[str]) -> Mapping[str, Any]:
    if not isinstance(source, Mapping):
        raise InvalidJob(field, f"must be a JSON object, not {type(source).__name__}")
    for name in source:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise InvalidJob(name if field == "submission" else f"{field}.{name}", f"is not known; {hint}")
    return source


def _moment(field: str, text: object) -> datetime:
    try:
        moment = datetime.fromisoformat(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InvalidJob(field, f"{text!r} is no ISO 8601 time, such as 2030-01-31T02:00:00+01:00") from None
    if moment.tzinfo is None:
        raise InvalidJob(field, f"{text!r} has no offset from UTC; add one, such as Z or +01:00")
    return moment


def _seconds(field: str, value: object) -> timedelta:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 10 * 366 * 86_400:
        raise InvalidJob(field, f"{value!r} must be a number of seconds, at most ten years")
    return timedelta(seconds=value)


def _names(field: str, value: object) -> tuple[str, ...]:
    if value is not None and not isinstance(value, list):
        raise InvalidJob(field, f'{value!r:.80} must be a list of names, such as ["holidays-de"]')
    return tuple(value or ())


def _dates(value: object) -> list[date]:
    if not isinstance(value, list):
        raise InvalidJob("dates", f'{value!r:.80} must be a list of dates, such as ["2030-12-25"]')
    found = []
    for text in value:
        try:
            found.append(date.fromisoformat(text))
        except (TypeError, ValueError):
            raise InvalidJob("dates", f"{text!r:.80} is no date, such as 2030-12-25") from None
    return found
