"""Events of runs and starts of owners, as they lie in jobs.runs."""

from typing import Any

from dueline.codec import encode_owner_started, encode_run_event
from dueline.job import Priority
from dueline.runs import OwnerStarted, RunEvent
from dueline.states import AttemptState


def event_bytes(
    job_id: str,
    state: AttemptState,
    epoch: int = 1,
    attempt: int = 1,
    executor: str = "somebody",
    **what: Any,
) -> bytes:
    return encode_run_event(
        RunEvent(
            job_id=job_id,
            due_ms=5,
            attempt=attempt,
            version=0,
            state=state,
            at_ms=0,
            executor_class="noop",
            priority=Priority.NORMAL,
            recurring=False,
            executor=executor,
            epoch=epoch,
            **what,
        )
    )


def started(epoch: int) -> bytes:
    return encode_owner_started(OwnerStarted(shard=3, epoch=epoch, executor="somebody", at_ms=0))
