"""The executor in memory: one slot, which is this process and this thread."""

import asyncio
import heapq
from collections.abc import Coroutine, Mapping
from contextlib import redirect_stderr, redirect_stdout
from contextvars import copy_context
from io import BytesIO, TextIOWrapper
from itertools import count
from threading import Thread
from types import CoroutineType
from typing import Any

import dueline.builtin  # noqa: F401 (every executor has these classes)
from dueline.attempt import outcome_of, run_of
from dueline.clock import to_ms
from dueline.codec import decode_ready_run, encode_ready_run
from dueline.coroutines import CoroutineRun
from dueline.frames import Report
from dueline.job import Priority
from dueline.policies import Overlap
from dueline.registry import Function, Run, TimedOut, find
from dueline.runs import ReadyRun
from dueline.testing.clock import SettableClock

#: As in consumers/backlog.py.
AGING_LIMIT_MS = 5 * 60_000
_RANK = {priority: rank for rank, priority in enumerate(Priority)}


class Executor:
    """The runs that were emitted, and how they are performed."""

    def __init__(self, clock: SettableClock, stand_ins: Mapping[str, Function]) -> None:
        self._clock = clock
        self._stand_ins = stand_ins
        #: With emit time and number, as they are heaps.
        self._ready: dict[Priority, list[tuple[int, int, ReadyRun]]] = {priority: [] for priority in Priority}
        self._numbers = count()
        #: What a function raised that is the test's own affair.
        self._passing: BaseException | None = None

    def add(self, run: ReadyRun) -> None:
        """The run waits for its turn. It arrives as bytes, as from a ready topic."""
        run = decode_ready_run(encode_ready_run(run))
        heapq.heappush(self._ready[run.priority], (run.emit_ms, next(self._numbers), run))

    def next(self, until_ms: int) -> ReadyRun | None:
        """The run whose turn it is, of those emitted until then: high before normal before low, then by emit time, and first what
        is very late."""
        now_ms = self._clock.now_ms()

        def turn(heap: list[tuple[int, int, ReadyRun]]) -> tuple[int, int]:
            emit_ms, _, run = heap[0]
            return (0 if now_ms - emit_ms > AGING_LIMIT_MS else _RANK[run.priority]), emit_ms

        ready = (heap for heap in self._ready.values() if heap and heap[0][0] <= until_ms)
        heap = min(ready, key=turn, default=None)
        return heapq.heappop(heap)[2] if heap else None

    def overlapping(self, job_id: str, until_ms: int) -> list[ReadyRun]:
        """The runs of a job that came while another was performed, until now, and that their overlap policy leaves out."""
        heaps = self._ready.values()
        came = sorted(entry for heap in heaps for entry in heap if entry[2].job_id == job_id)
        left_out: list[ReadyRun] = []
        kept = 0
        for emit_ms, _, run in came:
            if run.attempt > 1 or emit_ms >= until_ms:
                continue
            if run.overlap is Overlap.SKIP or (run.overlap is Overlap.QUEUE_ONE and kept):
                left_out.append(run)
            else:
                kept += 1
        for priority, heap in self._ready.items():
            self._ready[priority] = [entry for entry in heap if entry[2] not in left_out]
            heapq.heapify(self._ready[priority])
        return left_out

    def perform(self, ready: ReadyRun) -> Report:
        """Perform an attempt, whatever comes of it.

        What is neither an error nor the run's own end, such as Ctrl-C and what pytest raises to end or skip a test,
        passes through.
        """
        ready = ready.within_its_end(self._clock.now_ms())
        run = run_of(encode_ready_run(ready), self._clock.now())
        stdout, stderr = _Kept(), _Kept()
        reported: list[str] = []
        run.tell = lambda progress: reported.append(progress) if progress is not None else None
        with redirect_stdout(stdout.text()), redirect_stderr(stderr.text()):
            outcome = outcome_of(run, self._call, __file__)
            run.at_end.close()
        passing, self._passing = self._passing, None
        if passing is not None:
            raise passing
        return Report(
            **outcome,
            exit_status=run.exit_status,
            progress=reported[-1] if reported else "",
            stdout=stdout.getvalue(),
            stderr=stderr.getvalue(),
        )

    def _call(self, run: Run) -> Any:
        function = self._stand_ins.get(run.executor_class) or find(run.executor_class)
        with self._clock.limited(to_ms(run.deadline)) as limit:
            try:
                value = function(run)
                if isinstance(value, CoroutineType):
                    value = _completed(value)
            except (Exception, SystemExit, TimedOut):
                raise
            except BaseException as error:
                self._passing = error
                raise
        if limit.is_up:
            raise TimedOut  # the function swallowed it
        return value


def _completed(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What it returns or raises. In an async test, whose own loop stands still meanwhile, it gets a thread."""
    if asyncio._get_running_loop() is None:
        return CoroutineRun().complete(coroutine)
    ends: list[tuple[Any, BaseException | None]] = []

    def complete() -> None:
        try:
            ends.append((CoroutineRun().complete(coroutine), None))
        except BaseException as error:
            ends.append((None, error))

    thread = Thread(target=copy_context().run, args=(complete,))
    thread.start()
    thread.join()
    ((value, error),) = ends
    if error is not None:
        raise error
    return value


class _Kept(BytesIO):
    """Keeps what was written, also when the function closes the stream."""

    def close(self) -> None:
        pass

    def text(self) -> TextIOWrapper:
        return TextIOWrapper(self, "utf-8", "backslashreplace", write_through=True)
