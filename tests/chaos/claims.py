"""What the platform says of itself in the end: its views and its output store, written beside the history."""

import asyncio
import hashlib
import time
from collections.abc import Iterable
from pathlib import Path

from dueline.errors import DuelineError, NotFound
from dueline.outputs import read_output
from dueline.states import ENDS, JobState
from infra.settings import Settings
from infra.view_values import AttemptView, RunView
from infra.views import Views, open_views
from tests.chaos.history import CLAIMS, SUBMISSIONS, History

POLL_S = 0.5
RUNS_MAX = 1_000
#: Jobs asked for at once.
ABREAST = 32


async def settle(settings: Settings, folder: Path, limit_s: float) -> bool:
    """Return when nothing is left open of all jobs that were submitted; False if something is when the time is over."""
    open_jobs = set(_submitted(folder))
    acknowledged = {
        line["job"] for line in History(folder).read(SUBMISSIONS) if line["what"] == "acknowledged"
    }
    give_up = time.monotonic() + limit_s
    async with open_views(settings) as views:
        while True:
            for batch in _batches(sorted(open_jobs)):
                settled = await asyncio.gather(
                    *(_is_settled(views, job, job in acknowledged) for job in batch)
                )
                open_jobs -= {job for job, is_settled in zip(batch, settled, strict=True) if is_settled}
            if not open_jobs or time.monotonic() > give_up:
                return not open_jobs
            await asyncio.sleep(POLL_S)


async def collect(settings: Settings, folder: Path) -> None:
    """Write down what the views say of every job that was submitted, and the hashes of what the output store holds."""
    history = History(folder)
    async with open_views(settings) as views:
        for batch in _batches(_submitted(folder)):
            await asyncio.gather(*(_collect_job(views, settings, history, job) for job in batch))
    history.close()


async def _is_settled(views: Views, job_id: str, acknowledged: bool) -> bool:
    try:
        view = await views.job(job_id)
        if view.state is JobState.REJECTED:
            return True
        runs = await views.runs(job_id, RUNS_MAX)
    except NotFound:
        return not acknowledged  # what was may lie before a scheduler that has not come to it yet
    return view.state is JobState.COMPLETED and all(run.state in ENDS for run in runs)


async def _collect_job(views: Views, settings: Settings, history: History, job_id: str) -> None:
    try:
        view = await views.job(job_id)
        runs = await views.runs(job_id, RUNS_MAX) if view.state is not JobState.REJECTED else ()
    except NotFound:
        history.write(CLAIMS, "no job", sync=False, job=job_id)
        return
    history.write(CLAIMS, "job", sync=False, job=job_id, state=view.state, reason=view.reason)
    for run in runs:
        history.write(
            CLAIMS, "run", sync=False, job=job_id, run=run.run_id, due_ms=run.due_ms, state=run.state
        )
        for attempt in run.attempts:
            _collect_attempt(settings, history, run, attempt)


def _collect_attempt(settings: Settings, history: History, run: RunView, attempt: AttemptView) -> None:
    digest, trouble = None, ""
    if attempt.output:
        try:
            output = read_output(settings.data / "outputs", attempt.output)
            digest = hashlib.sha256(output.stdout).hexdigest()
            if (output.run_id, output.attempt) != (run.run_id, attempt.attempt):
                trouble = f"it is that of {output.run_id} attempt {output.attempt}"
        except (DuelineError, OSError) as error:
            trouble = str(error)
    history.write(
        CLAIMS,
        "attempt",
        sync=False,
        run=run.run_id,
        attempt=attempt.attempt,
        state=attempt.state,
        executor=attempt.executor,
        reason=attempt.reason,
        output=attempt.output,
        sha256=digest,
        trouble=trouble,
    )


def _submitted(folder: Path) -> list[str]:
    return [line["job"] for line in History(folder).read(SUBMISSIONS) if line["what"] == "submitting"]


def _batches(jobs: list[str]) -> Iterable[list[str]]:
    return (jobs[start : start + ABREAST] for start in range(0, len(jobs), ABREAST))
