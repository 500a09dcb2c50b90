"""What of a run's reports goes to the executor while the run goes on."""

import signal
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue
from typing import Any

import pytest

from dueline.frames import unpack_news
from dueline.progress_sender import ProgressSender
from dueline.registry import Run, nowhere


def run() -> Run:
    return Run(
        run_id="job@0",
        job_id="job",
        executor_class="a",
        attempt=1,
        due=datetime.now(UTC),
        params={},
        timeout=timedelta(seconds=1),
        deadline=datetime.now(UTC),
    )


class Line:
    """The executor's end."""

    def __init__(self) -> None:
        self._frames: SimpleQueue[bytes] = SimpleQueue()
        self.sender = ProgressSender(self._frames.put)

    def next(self) -> Any:
        return unpack_news(self._frames.get(timeout=10))


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    monkeypatch.setattr("dueline.progress_sender.PROGRESS_INTERVAL_S", 0.05)
    return Line()


def test_a_report_is_sent_at_once_and_the_latest_of_many_soon(line: Line) -> None:
    first = run()
    line.sender.begin(first)
    first.progress("first")
    assert line.next() == '"first"'
    for number in range(100):
        first.progress(number)
    while (heard := line.next()) != "99":
        assert int(heard) < 99
    first.heartbeat()
    assert line.next() == "99"
    assert line.sender.end(first) == "99"


def test_a_run_that_is_over_reports_no_more_not_even_as_the_next(line: Line) -> None:
    first, second = run(), run()
    line.sender.begin(first)
    assert line.sender.end(first) == ""
    line.sender.begin(second)
    first.progress("from a thread that was left behind")
    second.progress("second")
    assert line.next() == '"second"'
    assert line.sender.end(second) == '"second"'


def test_a_run_without_a_slot_reports_to_nobody() -> None:
    alone = run()
    alone.heartbeat()
    alone.progress({"done": 1})
    assert alone.tell is nowhere
    with pytest.raises(TypeError, match="not JSON serializable"):
        alone.progress(object())


def test_the_signal_of_a_timeout_may_come_at_any_point_of_a_report(line: Line) -> None:
    """A handler that raises, a thousand times: nothing is locked for good, and the last report counts."""

    class TimeUp(BaseException):
        pass

    def raise_(*_: Any) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, raise_)
    first = run()
    line.sender.begin(first)
    try:
        for pause_us in range(1, 1000):
            try:
                signal.setitimer(signal.ITIMER_REAL, pause_us % 50 / 1e6 + 1e-6)
                while True:
                    first.progress(pause_us)
            except TimeUp:
                continue
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    first.progress("last")
    while line.next() != '"last"':
        pass
    assert line.sender.end(first) == '"last"'
