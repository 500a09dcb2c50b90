"""Ready runs as an executor takes them."""

from consumers.backlog import Taken
from consumers.findings import NOTHING, Past
from dueline.address import READY
from dueline.job import Priority
from dueline.policies import Overlap, Retry
from dueline.runs import ReadyRun


def taken(
    job_id: str,
    *,
    emit_ms: int = 0,
    priority: Priority = Priority.NORMAL,
    shard: int = 0,
    offset: int = 0,
    past: Past = NOTHING,
    attempt: int = 1,
    overlap: Overlap = Overlap.QUEUE_ALL,
) -> Taken:
    run = ReadyRun(
        job_id=job_id,
        due_ms=emit_ms,
        emit_ms=emit_ms,
        attempt=attempt,
        version=1,
        executor_class="command",
        priority=priority,
        params={},
        timeout_ms=1000,
        retry=Retry(),
        overlap=overlap,
    )
    place = (READY[priority], shard)
    return Taken(run=run, key=run.key, place=place, offset=offset, record=b"", past=past)
