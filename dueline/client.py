"""The SDK: submit jobs from Python, from threads or from asyncio.

    with Client() as client:
        job_id = client.submit("command", {"argv": ["/bin/date"]}, trigger=Cron("0 2 * * *", "Europe/Berlin"))

A job is accepted when Kafka has acknowledged it; only then does a call return. A call that fails with NotAccepted
leaves open whether the job was stored, so submit it again *with the same id*: the same id twice is one job. A call
that fails with InvalidJob or Unavailable has sent nothing.

A job that there is can be cancelled, paused, resumed, run besides its schedule, changed and backfilled, by its id: these are
commands on the same topic, in order with the submissions of that job, so what is acknowledged takes effect on all that comes after.
One that can't be obeyed is rejected like a job that is wrong: `dueline rejected` lists it. What is asked of many jobs at once, by a
filter, takes effect on one after the other.

A client may be shared by threads (an AsyncClient by the tasks of any loop): one for a process is right. A client also
survives `fork`: the child opens a connection of its own when it first submits something.
"""

import asyncio
import os
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from time import monotonic, sleep
from typing import Any, Generic, Self, TypeVar

from dueline.calendars import Calendar
from dueline.clock import Clock, SystemClock, to_ms
from dueline.codec import (
    SUBMISSION_LENGTH_MAX,
    encode,
    encode_bulk_command,
    encode_calendar,
    encode_control_command,
    job_fields,
    require_job_id,
)
from dueline.commands import Action, BulkCommand, ControlCommand, JobFilter
from dueline.delivery import DELIVERY_MAX_S, Batch, Delivery, Flow, Waker
from dueline.errors import InvalidJob, NotAccepted, SomeNotAccepted, Unavailable
from dueline.ids import IdGenerator, parse_run_id
from dueline.job import CATCH_UP_MAX_S, TIMEOUT_MAX_S, Job, Priority
from dueline.json_form import changed_job, one_of, priority_from_text
from dueline.policies import IfExists, Missed, Overlap, Retry
from dueline.triggers import Once, Trigger, require_moment

BOOTSTRAP_DEFAULT = "127.0.0.1:9092"
#: Time allowed for an acknowledgement: a cluster's failover to another broker fits into it.
TIMEOUT_S = 10.0
#: How long `close` waits for what other threads or tasks still have under way.
CLOSE_S = 2.0
#: `submit_many` hands jobs over in batches of this many, which take about 10 ms to encode (an event loop's pause).
BATCH_JOBS_MAX = 500
#: And of this many bytes, which bounds memory where jobs are large.
BATCH_BYTES_MAX = 4_000_000
#: Batches that wait for their acknowledgements at once: some 100 ms of work, far more than a round trip takes.
BATCHES_UNDER_WAY_MAX = 8

#: The key of what is asked of many jobs: the same for all, so that they are obeyed in their order. It is no job's id.
BULK_KEY = "*"

Id = TypeVar("Id", covariant=True)
Ids = TypeVar("Ids", covariant=True)
Done = TypeVar("Done", covariant=True)


class _Submitting(Generic[Id, Ids, Done]):
    """What both clients offer. They differ in how they wait, and so in the types of what they return."""

    _delivery: Delivery | None
    _at_exit: "weakref.finalize[..., _Submitting[Id, Ids, Done]]"

    def __init__(self, bootstrap: str | None = None, *, clock: Clock | None = None) -> None:
        """`bootstrap` is Kafka's address; without one DUELINE_KAFKA has it, or else it is 127.0.0.1:9092."""
        self._bootstrap = bootstrap or os.environ.get("DUELINE_KAFKA") or BOOTSTRAP_DEFAULT
        self._clock = clock or SystemClock()
        self._closed = False
        self._start_afresh()
        _clients.add(self)

    def submit(
        self,
        executor_class: str,
        params: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        name: str = "",
        priority: Priority | str = Priority.NORMAL,
        trigger: Trigger | datetime | None = None,
        triggers: Iterable[Trigger] = (),
        retry: Retry | None = None,
        timeout_s: float = TIMEOUT_MAX_S,
        missed: Missed | str = Missed.LATEST,
        catch_up_s: float = CATCH_UP_MAX_S,
        overlap: Overlap | str | None = None,
        start_within_s: float | None = None,
        end_within_s: float | None = None,
        if_exists: IfExists | str = IfExists.REPLACE,
        timeout: float = TIMEOUT_S,
    ) -> Id:
        """Submits one job and returns its id when Kafka has acknowledged it.

        The fields are those of `dueline.Job`; `trigger` may be a plain aware datetime, and without any trigger the
        job is due at once. `timeout` is the time in seconds allowed for the acknowledgement.
        """
        job = Job(
            id=id,
            name=name,
            executor_class=executor_class,
            priority=priority_from_text(priority),
            params={} if params is None else params,
            triggers=_triggers(trigger, triggers),
            retry=retry or Retry(),
            timeout_s=timeout_s,
            missed=one_of("missed", Missed, missed),
            catch_up_s=catch_up_s,
            overlap=None if overlap is None else one_of("overlap", Overlap, overlap),
            start_within_s=start_within_s,
            end_within_s=end_within_s,
            if_exists=one_of("if_exists", IfExists, if_exists),
        )
        return self.submit_job(job, timeout=timeout)

    def submit_job(self, job: Job, *, timeout: float = TIMEOUT_S) -> Id:
        """Submits a job that was made before, and returns its id when Kafka has acknowledged it."""
        result: Id = self._drive(self._submit_one(job, timeout))
        return result

    def submit_many(self, jobs: Iterable[Job], *, timeout: float = TIMEOUT_S) -> Ids:
        """Submits many jobs and returns their ids, in order, when Kafka has acknowledged each.

        `jobs` is read as it is sent, so it may be a generator of any length. `timeout` is the time in seconds allowed
        for the acknowledgement of each job since it was handed to Kafka. Raises SomeNotAccepted, which tells the
        acknowledged ones from the rest, when some are not, or when `jobs` fails or holds an invalid job after others
        of it were sent.
        """
        result: Ids = self._drive(self._submit_many(jobs, timeout))
        return result

    def submit_calendar(self, calendar: Calendar, *, timeout: float = TIMEOUT_S) -> Done:
        """Dates that jobs may leave out, by the calendar's name (`Cron(..., excluding=("holidays-de",))`).

        The same name again replaces them; schedulers heed that within ten seconds. Submit it before the jobs that name it.
        """
        calendar.require_portable()
        record = (calendar.name, encode_calendar(calendar))
        result: Done = self._drive(self._send(record, timeout))
        return result

    def cancel(self, job_id: str, note: str = "", *, timeout: float = TIMEOUT_S) -> Done:
        """No run of the job starts any more, and what runs is ended: SIGTERM, 2 seconds, SIGKILL."""
        return self._command(ControlCommand(job_id=job_id, action=Action.CANCEL, note=note), timeout)

    def pause(self, job_id: str, note: str = "", *, timeout: float = TIMEOUT_S) -> Done:
        """Runs of the job that become due from now on wait until it is resumed. What runs, and its retries, go on."""
        return self._command(ControlCommand(job_id=job_id, action=Action.PAUSE, note=note), timeout)

    def resume(self, job_id: str, note: str = "", *, timeout: float = TIMEOUT_S) -> Done:
        """The job goes on; its policy says what becomes of the due times that it missed. A cancelled job starts anew."""
        return self._command(ControlCommand(job_id=job_id, action=Action.RESUME, note=note), timeout)

    def run_now(self, job_id: str, note: str = "", *, timeout: float = TIMEOUT_S) -> Done:
        """A run of the job besides those of its triggers, also while it is paused."""
        return self._command(ControlCommand(job_id=job_id, action=Action.RUN, note=note), timeout)

    def change(
        self, job_id: str, fields: Mapping[str, Any], note: str = "", *, timeout: float = TIMEOUT_S
    ) -> Done:
        """The job gets new values for some fields, which are named and written as in the JSON form of a job.

        `{"priority": "high", "trigger": {"every_s": 60}}`; a None stands for the field's default.
        """
        self._check_new_values(fields)
        command = ControlCommand(job_id=job_id, action=Action.CHANGE, fields=fields, note=note)
        return self._command(command, timeout)

    def backfill(
        self, job_id: str, start: datetime, end: datetime, note: str = "", *, timeout: float = TIMEOUT_S
    ) -> Done:
        """The job's due times of a span, both ends included, are run as far as they were left out or lie before its time."""
        require_moment("start", start)
        require_moment("end", end)
        command = ControlCommand(
            job_id=job_id, action=Action.BACKFILL, note=note, start_ms=to_ms(start), end_ms=to_ms(end)
        )
        return self._command(command, timeout)

    def retry(self, run_id: str, note: str = "", *, timeout: float = TIMEOUT_S) -> Done:
        """A run that has ended without success is performed again, as its next attempt, by the job's present definition."""
        try:
            job_id, due_ms = parse_run_id(run_id)
        except ValueError as error:
            raise InvalidJob("run", str(error)) from error
        command = ControlCommand(
            job_id=job_id, action=Action.RETRY, note=note, start_ms=due_ms, end_ms=due_ms
        )
        return self._command(command, timeout)

    def control_all(
        self,
        action: Action | str,
        matching: JobFilter,
        note: str = "",
        *,
        fields: Mapping[str, Any] | None = None,
        timeout: float = TIMEOUT_S,
    ) -> Done:
        """Cancels, pauses, resumes, runs or changes the jobs that a filter fits; `fields` are the new values of a change.

            client.control_all("pause", JobFilter(executor_class="http"), "the proxy is down")

        It is for jobs accepted before it, as they stand when their turn comes: a scheduler gets through some thousands a second.
        What can't be asked of a job is not asked of it. A later command for one of them may be obeyed first.
        """
        command = BulkCommand(
            matching=matching, action=one_of("action", Action, action), note=note, fields=fields or {}
        )
        if command.fields:
            self._check_new_values(command.fields)
        value = encode_bulk_command(command)
        _require_length("fields", "the command", value)
        result: Done = self._drive(self._send((BULK_KEY, value), timeout))
        return result

    def close(self) -> Done:
        """Ends the connection. Calls that still wait get up to 2 seconds, then NotAccepted."""
        result: Done = self._drive(self._close())
        return result

    def _drive(self, flow: Flow) -> Any:
        raise NotImplementedError

    def _check_new_values(self, fields: Mapping[str, Any]) -> None:
        """Refuse what no job can have, and a trigger that is never due."""
        changed = changed_job(Job(executor_class="any"), fields)
        if changed.triggers:
            changed.anchored(self._clock.now_ms()).first_ms(self._clock.now_ms())

    def _command(self, command: ControlCommand, timeout: float) -> Done:
        require_job_id("id", command.job_id)
        value = encode_control_command(command)
        _require_length("fields", f"the command for {command.job_id}", value)
        result: Done = self._drive(self._send((command.job_id, value), timeout))
        return result

    def _send(self, record: tuple[str, bytes], timeout: float) -> Flow:
        yield from self._deliver(record, _deadline(timeout))

    def _submit_one(self, job: Job, timeout: float) -> Flow:
        deadline = _deadline(timeout)
        job_id: str = yield from self._deliver(self._record(job), deadline)
        return job_id

    def _deliver(self, record: tuple[str, bytes], deadline: float) -> Flow:
        delivery = self._connected()
        yield from delivery.until_topic_known(deadline)
        batch = yield from delivery.send([record], deadline)
        yield from _settle(batch, deadline)
        if not batch.accepted:
            raise NotAccepted(record[0], _why(batch, delivery))
        return record[0]

    def _submit_many(self, jobs: Iterable[Job], timeout: float) -> Flow:
        delivery = self._connected()
        yield from delivery.until_topic_known(_deadline(timeout))
        sent: list[Batch] = []
        under_way: deque[tuple[Batch, float]] = deque()
        batches = self._batches(jobs)
        why, cause = "", None
        while not why:
            try:
                records = next(batches, None)
            except Exception as error:
                if not sent:
                    raise
                why, cause = str(error) or repr(error), error
                break
            if records is None:
                break
            deadline = _deadline(timeout)
            batch = yield from delivery.send(records, deadline)
            sent.append(batch)
            under_way.append((batch, deadline))
            yield None
            if batch.cut or len(under_way) == BATCHES_UNDER_WAY_MAX:
                oldest, deadline = under_way.popleft()
                yield from _settle(oldest, deadline)
                why = batch.trouble if batch.cut else _why(oldest, delivery)
        for batch, deadline in under_way:
            yield from _settle(batch, deadline)
            why = why or _why(batch, delivery)
        if why:
            raise _not_accepted(sent, why) from cause
        return [job_id for batch in sent for job_id in batch.ids]

    def _close(self) -> Flow:
        self._closed = True
        delivery, self._delivery = self._delivery, None
        if delivery:
            self._at_exit.detach()
            delivery.stop(CLOSE_S)
            if delivery.topic_known.done():
                yield delivery.closed, CLOSE_S + 1

    def _batches(self, jobs: Iterable[Job]) -> Iterator[list[tuple[str, bytes]]]:
        """The jobs as records, in batches bounded by number and by size; a batch is whole before any of it is sent."""
        records: list[tuple[str, bytes]] = []
        size = 0
        for number, job in enumerate(jobs, 1):
            try:
                record = self._record(job)
            except InvalidJob as error:
                error.add_note(f"It is number {number} of the jobs given.")
                raise
            records.append(record)
            size += len(record[1])
            if len(records) == BATCH_JOBS_MAX or size >= BATCH_BYTES_MAX:
                yield records
                records, size = [], 0
        if records:
            yield records

    def _record(self, job: Job) -> tuple[str, bytes]:
        """A valid job's id and its bytes."""
        now_ms = self._clock.now_ms()
        if job.triggers:
            job.anchored(now_ms).first_ms(now_ms)
        job_id = job.id or self._ids.next(now_ms)
        value = encode("JobSubmission", job_fields(job) | {"id": job_id})
        _require_length("params", f"the submission of {job_id}", value)
        return job_id, value

    def _connected(self) -> Delivery:
        with self._lock:
            if self._closed:
                raise Unavailable("this client is closed; make a new one")
            if self._delivery and not self._delivery.usable:
                self._at_exit()
                self._delivery = None
            if not self._delivery:
                self._delivery = Delivery(self._bootstrap)
                self._at_exit = weakref.finalize(self, self._delivery.stop)
            return self._delivery

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._ids = IdGenerator()
        self._delivery = None

    def _after_fork(self) -> None:
        if self._delivery:
            self._at_exit.detach()
            self._delivery.abandon()
        self._start_afresh()


class Client(_Submitting[str, list[str], None]):
    """Submits jobs, and blocks until Kafka has acknowledged them."""

    def _drive(self, flow: Flow) -> Any:
        try:
            while True:
                wait = next(flow)
                if wait is None:
                    continue
                future, seconds = wait
                if future is None:
                    sleep(seconds)
                else:
                    with suppress(TimeoutError):
                        future.exception(seconds)
        except StopIteration as end:
            return end.value

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Submitting[Awaitable[str], Awaitable[list[str]], Awaitable[None]]):
    """Submits jobs from coroutines. A call that is cancelled leaves open whether its job was stored."""

    _waker: Waker | None = None

    async def _drive(self, flow: Flow) -> Any:
        loop = asyncio.get_running_loop()
        if self._waker is None or self._waker.loop is not loop:
            self._waker = Waker(loop)
        waker = self._waker
        try:
            while True:
                wait = next(flow)
                if wait is None:
                    await asyncio.sleep(0)
                    continue
                future, seconds = wait
                if future is None:
                    await asyncio.sleep(seconds)
                else:
                    await waker.until_done(future, seconds)
        except StopIteration as end:
            return end.value

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _triggers(trigger: Trigger | datetime | None, triggers: Iterable[Trigger]) -> tuple[Trigger, ...]:
    if trigger is None:
        return tuple(triggers)
    several = tuple(triggers)
    if several:
        raise InvalidJob("trigger", "give either trigger or triggers, not both")
    return (Once(trigger) if isinstance(trigger, datetime) else trigger,)


def _require_length(field: str, what: str, value: bytes) -> None:
    if len(value) > SUBMISSION_LENGTH_MAX:
        raise InvalidJob(
            field,
            f"{what} has {len(value)} bytes, more than {SUBMISSION_LENGTH_MAX}; store the data elsewhere and pass its address",
        )


def _deadline(timeout: float) -> float:
    if not 0 < timeout <= DELIVERY_MAX_S:
        raise ValueError(f"timeout: {timeout!r} must be more than 0 and at most {DELIVERY_MAX_S:g} seconds")
    return monotonic() + timeout


def _settle(batch: Batch, deadline: float) -> Flow:
    if not (batch.cut or batch.settled.done()):
        yield batch.settled, deadline - monotonic()


def _why(batch: Batch, delivery: Delivery) -> str:
    """Why a batch is not accepted; empty if it is."""
    if batch.accepted:
        return ""
    return batch.trouble or f"Kafka at {delivery.bootstrap} did not answer in time{delivery.why()}"


def _not_accepted(sent: Iterable[Batch], why: str) -> SomeNotAccepted:
    # In one pass: acknowledgements may still arrive, and each id must stand on one side.
    marked = [pair for batch in sent for pair in zip(batch.ids, batch.acknowledged, strict=True)]
    return SomeNotAccepted(
        sent=tuple(job_id for job_id, _ in marked),
        accepted=tuple(job_id for job_id, acknowledged in marked if acknowledged),
        unacknowledged=tuple(job_id for job_id, acknowledged in marked if not acknowledged),
        why=why,
    )


_clients: "weakref.WeakSet[_Submitting[Any, Any, Any]]" = weakref.WeakSet()


def _after_fork() -> None:
    for client in _clients:
        client._after_fork()


os.register_at_fork(after_in_child=_after_fork)
