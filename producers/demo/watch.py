"""Looks at the demo's jobs until all have ended, shows them meanwhile, and compares them with what is expected."""

import asyncio
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rich.live import Live
from rich.table import Table

from dueline.clock import to_ms
from dueline.errors import DuelineError, NotFound
from dueline.outputs import read_output
from dueline.states import JobState
from infra.local.servers import Say
from infra.view_values import JobView, RunView
from infra.views import Views
from producers.cli.tables import console, shortened, span, state, when
from producers.demo.scenario import Scene

#: The last run is due within 66 s; twice that is for a machine that is busy with something else.
WATCH_LIMIT_S = 130.0
POLL_INTERVAL_S = 0.4
#: Without a terminal: how long to stay silent while nothing changes.
SILENCE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the views say of one job of the demo, at one moment."""

    scene: Scene
    job_id: str
    #: None while it can't be seen yet.
    job: JobView | None = None
    #: The runs of which something is recorded or that are due, the earliest first.
    runs: tuple[RunView, ...] = ()

    @property
    def ended(self) -> bool:
        return self.job is not None and self.job.state in (JobState.COMPLETED, JobState.REJECTED)

    @property
    def progress(self) -> str:
        """How it stands, in a few words."""
        if self.job is None:
            return "submitted"
        if self.job.state is JobState.REJECTED:
            return f"REJECTED: {self.job.reason}"
        if not self.runs:
            return str(self.job.state)
        run = self.runs[-1]
        count = f"run {len(self.runs)} of {self.scene.runs} " if self.scene.runs > 1 else ""
        tries = f", attempt {len(run.attempts)}" if len(run.attempts) > 1 else ""
        return f"{count}{run.state}{tries}"


async def watch(views: Views, submitted: Mapping[str, Scene], say: Say) -> list[Seen]:
    """Look until all jobs have ended, or the limit has passed; what was seen last."""
    give_up = time.monotonic() + WATCH_LIMIT_S
    with _LiveTable() if sys.stdout.isatty() else _Lines(say) as display:
        while True:
            seen = await _look_at_all(views, submitted)
            display.show(seen)
            if all(one.ended for one in seen) or time.monotonic() > give_up:
                break
            await asyncio.sleep(POLL_INTERVAL_S)
    # The ledger writes the rows of a batch side by side: those of its last one may still be on their way.
    await asyncio.sleep(POLL_INTERVAL_S)
    return await _look_at_all(views, submitted)


async def _look_at_all(views: Views, submitted: Mapping[str, Scene]) -> list[Seen]:
    return list(await asyncio.gather(*(_look(views, *one) for one in submitted.items())))


async def _look(views: Views, job_id: str, scene: Scene) -> Seen:
    try:
        job = await views.job(job_id)
        runs = await views.runs(job_id, limit=20) if job.state is not JobState.REJECTED else ()
    except NotFound:
        return Seen(scene=scene, job_id=job_id)
    return Seen(scene=scene, job_id=job_id, job=job, runs=tuple(reversed(runs)))


# -- showing -----------------------------------------------------------------------------------------------------------


class _LiveTable:
    """On a terminal: a table that changes in place."""

    def __init__(self) -> None:
        self._live = Live(console=console(), refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, seen: Sequence[Seen]) -> None:
        table = Table("job", "stands", "next due", "attempts", "lateness", box=None, header_style="bold")
        for one in seen:
            last = one.runs[-1] if one.runs else None
            table.add_row(
                one.scene.title,
                state(one.progress),
                when(one.job.next_due_ms if one.job else None),
                str(len(last.attempts) or "") if last else "",
                span(last.lateness_ms) if last else "",
            )
        self._live.update(table)


class _Lines:
    """Elsewhere: a line for each change, and one now and then while nothing changes."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._shown: dict[str, str] = {}
        self._said_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, seen: Sequence[Seen]) -> None:
        for one in seen:
            if self._shown.get(one.job_id) != one.progress:
                self._shown[one.job_id] = one.progress
                self._tell(f"{one.scene.title}: {one.progress}")
        if time.monotonic() - self._said_s > SILENCE_S:
            waiting = (f"{one.scene.title} ({one.progress})" for one in seen if not one.ended)
            self._tell(f"waiting for: {', '.join(waiting)}")

    def _tell(self, text: str) -> None:
        self._said_s = time.monotonic()
        self._say(text)


def results_table(seen: Iterable[Seen], outputs: Path) -> Table:
    """What came of every run."""
    titles = ("job", "due", "ended as", "attempts", "lateness", "duration", "output")
    table = Table(*titles, box=None, header_style="bold")
    for one in seen:
        if one.job is not None and one.job.state is JobState.REJECTED:
            table.add_row(one.scene.title, "", state(one.job.state), "", "", "", shortened(one.job.reason))
        for run in one.runs:
            last = run.last
            lasted_ms = (
                last.ended_ms - last.started_ms if last and last.ended_ms and last.started_ms else None
            )
            table.add_row(
                one.scene.title if run is one.runs[0] else "",
                when(run.due_ms),
                state(run.state),
                str(len(run.attempts)),
                span(run.lateness_ms),
                span(lasted_ms),
                shortened(_stdout(run, outputs)),
            )
    return table


# -- checking ----------------------------------------------------------------------------------------------------------


def problems(one: Seen, outputs: Path) -> Iterator[str]:
    """What is not as the scene expects, a sentence each."""
    scene = one.scene
    if one.job is None:
        yield "it can't be seen"
        return
    if one.job.state is not scene.job_state:
        yield f"the job is {one.job.state}, not {scene.job_state} {one.job.reason}".rstrip()
    if len(one.runs) != scene.runs:
        yield f"it has {len(one.runs)} runs, not {scene.runs}"
    dues = tuple(run.due_ms for run in one.runs)
    if scene.dues is not None and dues != tuple(map(to_ms, scene.dues)):
        yield f"its runs were due at {', '.join(map(when, dues))}, not {', '.join(map(str, scene.dues))}"
    if not one.runs and scene.reason not in one.job.reason:
        yield f"the reason is {one.job.reason!r}, without {scene.reason!r}"
    for run in one.runs:
        for problem in _problems_of_run(run, scene, outputs):
            yield f"run {run.run_id}: {problem}"


def _problems_of_run(run: RunView, scene: Scene, outputs: Path) -> Iterator[str]:
    if run.state is not scene.run_state:
        yield f"it is {run.state}, not {scene.run_state}"
    if len(run.attempts) != scene.attempts:
        yield f"it has {len(run.attempts)} attempts, not {scene.attempts}"
    if run.lateness_ms is None or run.lateness_ms < 0:
        yield f"it started before its due time, or never: its lateness is {span(run.lateness_ms) or 'unknown'}"
    if run.last is not None and scene.reason not in run.last.reason:
        yield f"the reason is {run.last.reason!r}, without {scene.reason!r}"
    if (stdout := _stdout(run, outputs)) != scene.stdout:
        yield f"it wrote {stdout!r}, not {scene.stdout!r}"


def _stdout(run: RunView, outputs: Path) -> str:
    if run.last is None or not run.last.output:
        return ""
    try:
        return read_output(outputs, run.last.output).stdout.decode("utf-8", "backslashreplace")
    except DuelineError as error:
        return f"<{error}>"
