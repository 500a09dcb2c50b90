"""What the executor makes of what it reads. All else of it is in tests/platform, on a real Kafka."""

from typing import Any, cast

import pytest

from consumers.executor import TAKE_OVER_MAX_S, Executor
from dueline.clock import ManualClock
from dueline.codec import encode_ready_run
from infra.settings import Settings
from tests.consumers.ready_runs import taken

NOW_MS = 1_800_000_000_000


def test_who_can_take_nothing_over_leaves_it_to_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[BaseException] = []
    executor, clock = Executor(Settings(), []), ManualClock()
    monkeypatch.setattr(executor, "_clock", clock)
    monkeypatch.setattr(executor, "fail", failures.append)
    executor.assigned({1, 2})
    clock.advance(round(TAKE_OVER_MAX_S * 1000))
    executor.assigned({3})
    executor._check_take_overs()
    clock.advance(1)
    executor._epochs[3] = 7
    executor._check_take_overs()
    assert failures == [], "not yet, or to the harm of what runs"
    executor.forget({3})
    executor._check_take_overs()
    assert [str(failure) for failure in failures] == [
        "shards [1, 2] could not be taken over within 300 s; it starts anew"
    ]


class OfARun:
    """A record of a ready topic."""

    def __init__(self, job_id: str, offset: int) -> None:
        self._taken = taken(job_id, emit_ms=NOW_MS)
        self._offset = offset

    def topic(self) -> str:
        return self._taken.place[0]

    def partition(self) -> int:
        return self._taken.place[1]

    def offset(self) -> int:
        return self._offset

    def value(self) -> bytes:
        return encode_ready_run(self._taken.run)


async def test_a_record_that_is_read_twice_is_finished_no_earlier(caplog: pytest.LogCaptureFixture) -> None:
    executor = Executor(Settings(), [])
    messages = [OfARun("a", 10), OfARun("b", 11)]
    for message in (*messages, *messages):
        executor._take_one(cast(Any, message), NOW_MS)
    account, runs = executor._account, executor._early[messages[0].partition()]
    assert list(account.committable.values()) == [10]
    assert [run.offset for run in runs] == [10, 11]
    assert "/10 was read twice" in caplog.text
    for run in runs:
        account.begin(run)
        account.remember(run.key, NOW_MS)
        account.finish(run.place, run.offset)
        executor._take_one(cast(Any, messages[0]), NOW_MS)
    assert list(account.committable.values()) == [12]
