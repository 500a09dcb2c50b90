"""A job: what somebody asks for, and the rules that make it valid."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any

from dueline.calendars import Calendars
from dueline.clock import from_ms, to_ms
from dueline.cron import next_fire_ms, require_portable
from dueline.errors import InvalidJob
from dueline.ids import NAME_LENGTH_MAX, is_generated, is_name
from dueline.policies import IfExists, Missed, Overlap, Retry, require_number
from dueline.triggers import Cron, Every, Once, Trigger

TIMEOUT_MAX_S = 300.0
#: As far back as missed due times are ever run.
CATCH_UP_MAX_S = 366 * 24 * 3600.0
TRIGGERS = (Once, Every, Cron)
TRIGGERS_MAX = 16
#: Due times further away than this are refused: more likely a mistake of units than a plan.
HORIZON_MS = 10 * 366 * 24 * 3600 * 1000
_ONE_MS = timedelta(milliseconds=1)
_POLICIES: tuple[tuple[str, type[StrEnum]], ...] = (("missed", Missed), ("if_exists", IfExists))


class Priority(StrEnum):
    """Which of the ready runs of one executor starts first."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What somebody asks for. A value that exists is valid: making an invalid one raises `InvalidJob`."""

    #: The registered code that performs the runs.
    executor_class: str
    #: A UUIDv7 or a name that the caller chose; None lets the platform make one.
    id: str | None = None
    #: What people call the job; free text for views, no address.
    name: str = ""
    priority: Priority = Priority.NORMAL
    #: What the executor class is given: an object of JSON values.
    params: Mapping[str, Any] = field(default_factory=dict)
    #: When the job is due; none means once, at acceptance.
    triggers: tuple[Trigger, ...] = ()
    retry: Retry = field(default_factory=Retry)
    #: After this many seconds an attempt is ended, its process tree included.
    timeout_s: float = TIMEOUT_MAX_S
    #: What becomes of the due times of a recurring job that were missed; those of a single instant are always run.
    missed: Missed = Missed.LATEST
    #: What was missed longer ago than this many seconds is MISSED, whatever that says.
    catch_up_s: float = CATCH_UP_MAX_S
    #: What becomes of a run while the one before is performed; None: `queue_one` for recurring jobs that don't want all that they
    #: missed, and else `queue_all`.
    overlap: Overlap | None = None
    #: A run that can't start so many seconds after its due time is MISSED; None for no such limit.
    start_within_s: float | None = None
    #: A run ends, all its attempts included, so many seconds after its due time; None for no such limit.
    end_within_s: float | None = None
    #: What this submission asks for if there is such a job with another definition; no part of the definition.
    if_exists: IfExists = IfExists.REPLACE

    def __post_init__(self) -> None:
        _require_text("executor_class", self.executor_class, 1)
        if self.id is not None and not (
            isinstance(self.id, str) and (is_generated(self.id) or is_name(self.id))
        ):
            raise InvalidJob(
                "id", f"{self.id!r} must be 1 to {NAME_LENGTH_MAX} letters, digits or any of . _ : / -"
            )
        _require_text("name", self.name, 0)
        if not isinstance(self.priority, Priority):
            raise InvalidJob("priority", f"{self.priority!r} is not one of {', '.join(Priority)}")
        if not isinstance(self.params, Mapping):
            raise InvalidJob("params", f"must be an object, such as {{}}, not {type(self.params).__name__}")
        if not isinstance(self.triggers, tuple) or not all(isinstance(t, TRIGGERS) for t in self.triggers):
            raise InvalidJob("trigger", f"{self.triggers!r:.80} must hold Once, Every or Cron only")
        if not isinstance(self.retry, Retry):
            raise InvalidJob("retry", f"{self.retry!r:.80} must be a Retry, such as Retry(max_attempts=3)")
        if len(self.triggers) > TRIGGERS_MAX:
            raise InvalidJob("triggers", f"there are {len(self.triggers)}; a job has at most {TRIGGERS_MAX}")
        _require_pace(self.triggers)
        require_number("timeout_s", self.timeout_s, 0.001, TIMEOUT_MAX_S)
        for field_name, kind in _POLICIES:
            if not isinstance(value := getattr(self, field_name), kind):
                raise InvalidJob(field_name, f"{value!r:.80} is not one of {', '.join(kind)}")
        if self.overlap is not None and not isinstance(self.overlap, Overlap):
            raise InvalidJob("overlap", f"{self.overlap!r:.80} is not one of {', '.join(Overlap)}")
        require_number("catch_up_s", self.catch_up_s, 0, CATCH_UP_MAX_S)
        for field_name in ("start_within_s", "end_within_s"):
            if (limit_s := getattr(self, field_name)) is not None:
                require_number(field_name, limit_s, 0.001, CATCH_UP_MAX_S)

    @property
    def recurring(self) -> bool:
        """Whether the job can have more than one run."""
        return len(self.triggers) > 1 or not all(isinstance(t, Once) for t in self.triggers)

    @property
    def overlap_policy(self) -> Overlap:
        """What becomes of a run while the one before is performed."""
        if self.overlap is not None:
            return self.overlap
        return Overlap.QUEUE_ONE if self.recurring and self.missed is not Missed.ALL else Overlap.QUEUE_ALL

    def anchored(self, accepted_ms: int) -> "Job":
        """The job with what its triggers leave open taken from the time of its acceptance, in ms."""
        if not self.triggers:
            return replace(self, triggers=(Once(from_ms(accepted_ms)),))
        triggers = tuple(t.anchored(accepted_ms) for t in self.triggers)
        return self if triggers == self.triggers else replace(self, triggers=triggers)

    def next_ms(self, after_ms: int, calendars: Calendars | None = None) -> int | None:
        """The first due time of any trigger later than `after_ms`; triggers that coincide make one run.

        Without `calendars` no dates are left out.
        """
        return min(
            (due for t in self.triggers if (due := t.next_ms(after_ms, calendars)) is not None), default=None
        )

    def excluded_by(self, due_ms: int, calendars: Calendars) -> str | None:
        """The calendar because of which there is no run for a due time; None if a trigger that is due then has none."""
        names = [t.excluded_by(due_ms, calendars) for t in self._triggers_due(due_ms)]
        return names[0] if names and all(names) else None

    def emit_ms(self, due_ms: int) -> int:
        """When the run for a due time is to be emitted: then, or later by the jitter of the trigger that is due.

        How much later is always the same for one job, so that its runs stay as far apart as their due times, and lies
        before the next due time, so that they stay in order. It follows from the job's id, so a replay gives the same.
        """
        if not any(t.jitter for t in self.triggers):
            return due_ms
        assert self.id is not None
        jitter_ms = min((t.jitter for t in self._triggers_due(due_ms)), default=timedelta(0)) // _ONE_MS
        next_ms = self.next_ms(due_ms)
        span_ms = jitter_ms if next_ms is None else min(jitter_ms, next_ms - due_ms)
        share = int.from_bytes(hashlib.blake2b(self.id.encode(), digest_size=8).digest())
        return due_ms + (span_ms * share >> 64)

    def first_due_ms(self, accepted_ms: int, calendars: Calendars | None = None) -> int | None:
        """The first due time of an anchored job, if it has one.

        A single instant counts also when it is past: such a job is late, not wrong.
        """
        if len(self.triggers) == 1 and isinstance(self.triggers[0], Once):
            return self.triggers[0].next_ms(-1)
        return self.next_ms(accepted_ms - 1, calendars)

    def first_ms(self, accepted_ms: int, calendars: Calendars | None = None) -> int:
        """The first due time of an anchored job. Raises InvalidJob if it never comes, or too late to be meant."""
        for trigger in self.triggers:
            _require_dates(trigger, accepted_ms)
        due_ms = self.first_due_ms(accepted_ms, calendars)
        if due_ms is None:
            raise InvalidJob(
                "trigger",
                f"it is never due after its acceptance, {from_ms(accepted_ms):%Y-%m-%d %H:%M:%S} UTC; "
                "check its dates, its end and the calendars that it excludes",
            )
        if due_ms > accepted_ms + HORIZON_MS:
            raise InvalidJob(
                "trigger",
                f"first due {from_ms(due_ms):%Y-%m-%d}, in more than 10 years; give an earlier time",
            )
        return due_ms

    def _triggers_due(self, due_ms: int) -> list[Trigger]:
        return [t for t in self.triggers if t.next_ms(due_ms - 1) == due_ms]


class ReadParams(dict[str, Any]):
    """Parameters as they were read, with the JSON text that they came in, by which they are passed on. Not to be changed."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        try:
            params = _READER.decode(text)
        except (ValueError, RecursionError) as error:
            raise InvalidJob("params", f"not valid JSON: {error}") from error
        if not isinstance(params, dict):
            raise InvalidJob("params", f"must be a JSON object, such as {{}}, not {type(params).__name__}")
        super().__init__(params)
        # An escape may stand for half a surrogate pair.
        self.text = params_text(params) if "\\u" in text else text


def params_text(params: Mapping[str, Any]) -> str:
    """Parameters as JSON text. Raises InvalidJob for what JSON cannot hold."""
    if isinstance(params, ReadParams):
        return params.text
    try:
        text = json.dumps(dict(params), allow_nan=False, separators=(",", ":"), ensure_ascii=False)
        text.encode()  # half a surrogate pair is no text, and neither Avro nor Cassandra takes it
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidJob("params", f"must hold JSON values only: {error}") from error
    return text


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large a number")
    return number


#: Refuses NaN and the infinities, which Python's own reader lets through and its writer does not.
_READER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def _require_dates(trigger: Trigger, accepted_ms: int) -> None:
    """Raises InvalidJob for an expression that matches no date at all, also beside triggers that are due, or other ones elsewhere."""
    if not isinstance(trigger, Cron):
        return
    require_portable(trigger.time_zone)
    if next_fire_ms(trigger.expression, trigger.time_zone, accepted_ms - 1) is None:
        raise InvalidJob(
            "trigger.cron",
            f"{trigger.expression!r} is never due: no month that it names has such a day; check day and month",
        )


def _require_pace(triggers: tuple[Trigger, ...]) -> None:
    """Raises InvalidJob for intervals that are due more often than once a second together, once their starts are known.

    They are counted over the minute from each start, so what coincides counts once, and a few that fall into one second
    by chance do no harm. Cron is due once a minute at most, and single instants are few.
    """
    everies = [t for t in triggers if isinstance(t, Every)]
    starts = [to_ms(t.start) for t in everies if t.start is not None]
    if len(everies) < 2 or len(starts) < len(everies):
        return
    for start_ms in starts:
        due_ms, end_ms = start_ms - 1, start_ms + 60_000
        for _ in range(61):
            due_ms = min((due for t in everies if (due := t.next_ms(due_ms)) is not None), default=end_ms)
            if due_ms >= end_ms:
                break
        else:
            raise InvalidJob(
                "triggers",
                f"together they are due more than 60 times in the minute from {from_ms(start_ms).isoformat()}; "
                "once a second is the most: make the intervals longer, or multiples of each other with one start",
            )


def _require_text(field_name: str, value: object, length_min: int) -> None:
    if not isinstance(value, str) or not length_min <= len(value) <= NAME_LENGTH_MAX:
        raise InvalidJob(
            field_name, f"{value!r:.80} must be a text of {length_min} to {NAME_LENGTH_MAX} characters"
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidJob(
            field_name, f"{value!r:.80} holds half a surrogate pair, which is no text"
        ) from error
