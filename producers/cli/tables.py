"""Tables for people: of jobs, runs, executors and rejected submissions. Instants are in UTC, and today's lack the date."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dueline.clock import SystemClock, from_ms
from dueline.runs import Heartbeat
from dueline.states import JobState, RunState
from infra.rejects import Rejected
from infra.view_values import AttemptView, JobView, RunView
from producers.forms import readable

#: A process beats every 5 s; after three times that it is not to be counted on.
SILENT_AFTER_MS = 15_000
#: Wide enough for every column where no terminal bounds the width: a line of a pipe is never cut.
PIPE_WIDTH = 400
VALUE_LENGTH_MAX = 120

_COLOURS = {
    "SUCCEEDED": "green",
    "COMPLETED": "green",
    "RUNNING": "cyan",
    "READY": "cyan",
    "FAILED": "red",
    "TIMED_OUT": "red",
    "CRASHED": "red",
    "REJECTED": "red",
    "MISSED": "red",
    "INTERRUPTED": "yellow",
}


def console() -> Console:
    """A console for what a command shows."""
    made = Console(highlight=False, markup=False)  # what users wrote may hold brackets
    return made if made.is_terminal else Console(highlight=False, markup=False, width=PIPE_WIDTH)


def jobs_table(jobs: Iterable[JobView]) -> Table:
    table = _table(
        "job",
        "class",
        "priority",
        "state",
        "next due",
        "last run",
        "started",
        "ended",
        "attempts",
        "lateness",
        "executor",
    )
    for job in jobs:
        definition, last = job.job, job.last_run
        table.add_row(
            _id(job.job_id + (f" ({definition.name})" if definition and definition.name else "")),
            definition.executor_class if definition else "",
            definition.priority.value if definition else "",
            state(job.state),
            when(job.next_due_ms),
            *(
                (
                    state(last.state),
                    when(last.started_ms),
                    when(last.ended_ms),
                    str(last.attempts),
                    span(last.lateness_ms),
                    last.executor,
                )
                if last
                else ()
            ),
        )
    return table


def runs_table(runs: Iterable[RunView]) -> Table:
    """A line for each run, and one for each of its attempts where there are several."""
    table = _table(
        "run", "due", "state", "attempt", "started", "ended", "lateness", "exit", "executor", "reason"
    )
    for run in runs:
        last = run.last
        single = run.attempts if len(run.attempts) == 1 else ()
        table.add_row(
            _id(run.run_id),
            when(run.due_ms),
            state(run.state),
            str(last.attempt) if last else "",
            *(_attempt_cells(single[0], run) if single else ("", "", span(run.lateness_ms))),
        )
        for attempt in () if single else run.attempts:
            table.add_row("", "", state(attempt.state), str(attempt.attempt), *_attempt_cells(attempt, None))
    return table


def _attempt_cells(attempt: AttemptView, run: RunView | None) -> tuple[str, ...]:
    return (
        when(attempt.started_ms),
        when(attempt.ended_ms),
        span(run.lateness_ms) if run else "",
        "" if attempt.exit_status is None else str(attempt.exit_status),
        attempt.executor,
        shortened(attempt.reason),
    )


def executors_table(beats: Iterable[Heartbeat]) -> Table:
    now_ms = SystemClock().now_ms()
    table = _table("executor", "state", "last heartbeat", "started", "slots", "running", "classes")
    for beat in beats:
        silent_ms = now_ms - beat.at_ms
        is_there = "stopped" if not beat.alive else "silent" if silent_ms > SILENT_AFTER_MS else "alive"
        table.add_row(
            _id(beat.executor),
            Text(is_there, "green" if is_there == "alive" else "yellow"),
            when(beat.at_ms),
            when(beat.started_ms),
            str(beat.slots),
            str(beat.running),
            ", ".join(beat.classes),
        )
    return table


def rejected_table(rejected: Iterable[Rejected]) -> Table:
    table = _table("rejected", "place", "reason", "value")
    for one in rejected:
        table.add_row(when(one.at_ms), _id(one.place), one.reason, shortened(readable(one.value) or ""))
    return table


def state(value: JobState | RunState | str) -> Text:
    return Text(str(value), _COLOURS.get(str(value), ""), no_wrap=True)


def when(ms: int | None) -> str:
    """An instant: today's without the date."""
    if ms is None:
        return ""
    moment = from_ms(ms)
    today = from_ms(SystemClock().now_ms()).date()
    return f"{moment:%H:%M:%S}.{ms % 1000:03d}" if moment.date() == today else f"{moment:%Y-%m-%d %H:%M:%S}"


def span(ms: int | None) -> str:
    """A length of time, in the unit that suits it."""
    if ms is None:
        return ""
    if abs(ms) < 1000:
        return f"{ms} ms"
    return f"{ms / 1000:.1f} s" if abs(ms) < 600_000 else f"{ms / 60_000:.0f} min"


def shortened(value: str) -> str:
    line = " ".join(value.split())
    return line if len(line) <= VALUE_LENGTH_MAX else f"{line[:VALUE_LENGTH_MAX]}… ({len(value)} characters)"


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, header_style="bold", pad_edge=False)


def _id(value: str) -> Text:
    """What people copy: never cut, never wrapped."""
    return Text(value, no_wrap=True, overflow="ignore")
