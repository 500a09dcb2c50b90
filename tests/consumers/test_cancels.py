"""Which runs a cancel ends at an executor, and when it has done all it can."""

from consumers.cancels import Cancels
from dueline.address import CONTROL, READY
from dueline.commands import CancelOrder
from dueline.job import Priority
from tests.consumers.ready_runs import taken

PLACE = (CONTROL, 0)
ENDS = {Priority.HIGH: 0, Priority.NORMAL: 5, Priority.LOW: 2}


def order(job_id: str = "job", version: int = 2) -> CancelOrder:
    return CancelOrder(job_id=job_id, version=version, reason="why", ready=ENDS)


def finished(**ends: int) -> dict[tuple[str, int], int]:
    return {(READY[Priority(name)], 0): end for name, end in ends.items()}


def test_a_cancel_is_for_runs_of_lower_versions_of_its_job() -> None:
    cancels = Cancels()
    run = taken("job").run
    assert cancels.reason(run) is None
    cancels.take(order(version=run.version), PLACE, 3)
    assert cancels.reason(run) is None
    cancels.take(order(version=run.version + 1), PLACE, 4)
    assert cancels.reason(run) == "why"
    assert cancels.reason(taken("other").run) is None


def test_a_cancel_is_done_when_all_that_was_emitted_before_it_is_finished() -> None:
    cancels = Cancels()
    cancels.take(order(), PLACE, 3)
    assert cancels.settle(finished(normal=5, low=1)) == []
    assert cancels.settle(finished(normal=4, low=2)) == []
    assert cancels.settle(finished(normal=5, low=2)) == [(PLACE, 3)]
    assert not cancels
    assert cancels.reason(taken("job").run) is None


def test_what_belongs_to_a_shard_that_was_given_up_is_forgotten() -> None:
    cancels = Cancels()
    cancels.take(order("here"), PLACE, 3)
    cancels.take(order("there"), (CONTROL, 1), 3)
    cancels.forget({1})
    assert cancels.reason(taken("there").run) is None
    assert cancels.reason(taken("here").run) == "why"


def test_an_order_that_lies_in_the_log_counts_before_it_is_taken_and_is_done_after() -> None:
    cancels = Cancels()
    cancels.foresee(order(), PLACE, 3)
    assert cancels.reason(taken("job").run) == "why"
    assert cancels.settle(finished(normal=5, low=2)) == []
    cancels.take(order(), PLACE, 3)
    assert cancels.settle(finished(normal=5, low=2)) == [(PLACE, 3)]
    assert not cancels
    cancels.foresee(order(), PLACE, 4)
    cancels.forget({0})
    assert not cancels
