"""What records of the submissions topic ask for: one test for each way a record can go, and for how batches are cut."""

import asyncio
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from itertools import pairwise, permutations
from typing import Any

import pytest
from fastavro import schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from dueline.address import REJECTED, SUBMISSIONS, shard_of
from dueline.calendars import Calendar
from dueline.clock import from_ms, to_ms
from dueline.codec import (
    SUBMISSION_LENGTH_MAX,
    decode_ready_run,
    decode_submission,
    encode_job,
    encode_ready_run,
    encode_retry_command,
    job_fields,
    long_of,
)
from dueline.commands import RetryCommand
from dueline.contracts import latest
from dueline.ids import IdGenerator, generated_at_ms, is_generated
from dueline.job import HORIZON_MS, Job, Priority
from dueline.policies import Retry
from dueline.runs import ReadyRun
from dueline.scheduling.judge import Judge
from dueline.scheduling.rows import definition_of
from dueline.scheduling.values import JobRow, ScheduledRun
from dueline.states import JobState, RunState
from dueline.triggers import Every, Once
from infra.kafka import RECORD_LENGTH_MAX
from infra.rejects import CUT, PLACE, REASON
from stream_processors.scheduler.acceptance import REMEMBERED_MS, Acceptance, Asked
from stream_processors.scheduler.calendars import CalendarsAtHand
from stream_processors.scheduler.received import (
    ENVELOPE_LENGTH_MAX,
    FIRST_PLACE,
    FIRST_STAMP,
    FOR_MANY,
    PASSED_ON_WITHIN_MS,
    Received,
)

SHARDS = 4
NOW_MS = 1_800_000_000_000
NAMES = [name for n in range(40) if shard_of(name := f"job-{n}", SHARDS) == 0]
NAME = NAMES[0]
ELSEWHERE = next(name for n in range(40) if shard_of(name := f"job-{n}", SHARDS) == 1)


def generated(made_ms: int = NOW_MS, shard: int = 0) -> str:
    while shard_of(job_id := IdGenerator().next(made_ms), SHARDS) != shard:
        pass
    return job_id


class Memory:
    """What was stored before: a `Known` without a database."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobRow] = {}
        self.attempts: dict[str, tuple[int, RunState]] = {}
        self.asked_for: list[str] = []

    async def find_jobs(self, shard: int, job_ids: Collection[str]) -> Mapping[str, JobRow]:
        self.asked_for += job_ids
        return {job_id: self.jobs[job_id] for job_id in job_ids if job_id in self.jobs}

    async def latest_attempt(self, run_id: str, job_id: str, due_ms: int) -> tuple[int, RunState] | None:
        return self.attempts.get(run_id)

    def store(self, rows: Iterable[JobRow]) -> None:
        """As by write timestamps: of two versions the higher one stays, and of one version the first part written."""
        for row in rows:
            if row.job_id not in self.jobs or self.jobs[row.job_id].version <= row.version:
                self.jobs[row.job_id] = row


def received(value: bytes | None, offset: int = 7, **fields: Any) -> Received:
    return Received(**{"partition": 0, "stamp_ms": NOW_MS, "key": None} | fields, offset=offset, value=value)


def submission(job_id: str | None = NAME, **fields: Any) -> bytes:
    return json.dumps({"id": job_id, "executor_class": "command"} | fields).encode()


def asked(*records: Received, known: Memory | None = None) -> Asked:
    return asyncio.run(asked_by([records], known))


async def asked_by(
    batches: Iterable[Sequence[Received]], known: Memory | None = None, *, forgetting: bool = False
) -> Asked:
    """What all batches ask for, each read when what the one before asked for is stored, and satisfied where it has to be."""
    total, known = Asked(), known or Memory()
    acceptance = Acceptance(0, SHARDS, known, CalendarsAtHand({}))
    for batch in batches:
        left, satisfied = list(batch), 0
        while left:
            found = await acceptance.read(left, satisfied)
            known.store(found.jobs)
            if forgetting:
                acceptance.forget(found.end)
            for name in ("rows", "jobs", "changes", "cancelled", "events", "calendars", "history", "records"):
                getattr(total, name).extend(getattr(found, name))
            left = [record for record in left if record.offset >= found.end]
            satisfied = left[0].offset if left else 0
    return total


def following_row(row: ScheduledRun) -> ScheduledRun | None:
    """The row that follows upon one of a recurring job, emitted in time."""
    verdict = Judge().judge(row, row.emit_ms)
    assert verdict.ready
    return verdict.following


def once(found: Asked) -> ReadyRun:
    """The run of the one job that was accepted."""
    assert len(found.rows) == len(found.jobs) == 1
    assert not found.records
    run = decode_ready_run(found.rows[0].run)
    assert found.rows[0].key == run.key
    assert found.rows[0].emit_ms == run.emit_ms
    return run


def refusal(found: Asked) -> tuple[str, dict[str, bytes | None]]:
    """The reason of the one record that was refused, and its headers."""
    assert not found.rows
    (record,) = found.records
    assert record.topic == REJECTED
    headers = dict(record.headers)
    return (headers[REASON] or b"").decode(), headers


# -- accepted ------------------------------------------------------------------------------------------------------


def test_a_named_job_without_a_due_time_is_due_at_its_acceptance() -> None:
    run = once(asked(received(submission())))
    assert (run.job_id, run.due_ms, run.emit_ms, run.attempt, run.version) == (NAME, NOW_MS, NOW_MS, 1, 7)


def test_json_and_avro_ask_for_the_same() -> None:
    job = Job(id=NAME, executor_class="command", priority=Priority.HIGH, timeout_s=9, params={"a": [1]})
    text = submission(priority="high", timeout_s=9, params={"a": [1]})
    assert asked(received(encode_job(job))) == asked(received(text))


def test_what_leaves_nothing_open_is_stored_as_it_came() -> None:
    job = Job(id=NAME, executor_class="command", triggers=(Once(from_ms(NOW_MS)),))
    without = encode_job(replace(job, triggers=()))
    for written in (encode_job(job), in_another_way(job), without):
        (row,) = asked(received(written)).jobs
        assert row.definition == written
        assert definition_of(row) == job


def test_an_interval_is_stored_with_its_begin() -> None:
    open_job = Job(id=NAME, executor_class="command", triggers=(Every(timedelta(minutes=1)),))
    (row,) = asked(received(encode_job(open_job))).jobs
    job = decode_submission(row.definition or b"")
    assert isinstance(job, Job)
    assert job == definition_of(row)
    assert job.next_ms(NOW_MS) == NOW_MS + 60_000
    (row,) = asked(received(in_another_way(job))).jobs
    assert row.definition == in_another_way(job), "it had one, and is stored as it came"


def test_a_job_without_a_due_time_that_comes_again_is_the_same_job() -> None:
    for job_id in (NAME, generated(NOW_MS - 500)):
        known = Memory()
        job = Job(id=job_id, executor_class="command")
        known.store(asked(received(encode_job(job))).jobs)
        assert asked(received(encode_job(job), 8, stamp_ms=NOW_MS + 70_000), known=known) == Asked()


def test_the_same_job_encoded_in_another_way_is_the_same_job() -> None:
    job = Job(id=NAME, executor_class="command", triggers=(Once(from_ms(NOW_MS)),))
    for first, second in permutations([encode_job(job), in_another_way(job)]):
        known = Memory()
        known.store(asked(received(first)).jobs)
        assert asked(received(second, 8), known=known) == Asked()


def in_another_way(job: Job) -> bytes:
    """The job with its triggers encoded as some writers of Avro encode arrays: their length in bytes goes before them."""
    encoded = BytesIO()
    (schema,) = (
        field["type"] for field in latest("JobSubmission").schema["fields"] if field["name"] == "triggers"
    )
    schemaless_writer(encoded, schema, job_fields(job)["triggers"])
    usual = encoded.getvalue()
    minus_one = b"\x01"  # a negative number of items says that the length follows
    other = encode_job(job).replace(usual, minus_one + long_of(len(usual) - 2) + usual[1:])
    assert other != encode_job(job)
    assert decode_submission(other) == job
    return other


def test_a_generated_id_says_when_its_job_is_due() -> None:
    run = once(asked(received(submission(generated(NOW_MS - 500)))))
    assert (run.due_ms, run.emit_ms) == (NOW_MS - 500, NOW_MS)


def test_a_record_without_an_id_gets_the_same_id_at_each_reading() -> None:
    records = [received(submission(None), offset) for offset in range(100)]
    found = asked(*records)
    ids = [row.job_id for row in found.jobs] + [(r.key or b"").decode() for r in found.records]
    assert len(set(ids)) == 100
    assert all(is_generated(job_id) and generated_at_ms(job_id) == NOW_MS for job_id in ids)
    assert asked(*records) == found
    assert all(shard_of(row.job_id, SHARDS) == 0 for row in found.jobs)
    assert all(r.topic == SUBMISSIONS and shard_of((r.key or b"").decode(), SHARDS) for r in found.records)


def test_a_due_time_to_come_is_the_emit_time() -> None:
    at = datetime.fromtimestamp(NOW_MS / 1000 + 3600, UTC)
    run = once(asked(received(submission(trigger={"at": at.isoformat()}))))
    assert run.due_ms == run.emit_ms == NOW_MS + 3_600_000


def test_a_recurring_job_brings_its_definition_and_is_followed() -> None:
    found = asked(received(submission(trigger={"every_s": 60})))
    (row,) = found.rows
    assert row.definition == found.jobs[0].definition
    after = following_row(row)
    assert after is not None
    assert decode_ready_run(after.run).due_ms == decode_ready_run(row.run).due_ms + 60_000
    assert (after.submission, after.attempt) == (row.submission, 1)


def test_nothing_follows_the_last_run() -> None:
    end = datetime.fromtimestamp(NOW_MS / 1000 + 1, UTC)
    job = Job(id=NAME, executor_class="x", triggers=(Every(timedelta(minutes=1), end=end),))
    (row,) = asked(received(encode_job(job))).rows
    assert following_row(row) is None


def test_a_jitter_puts_off_the_emission_and_keeps_the_due_time() -> None:
    trigger = {"cron": "0 * * * *", "jitter_s": 600}
    (row,) = asked(received(submission(trigger=trigger))).rows
    (plain,) = asked(received(submission(trigger={"cron": "0 * * * *"}))).rows
    assert row.run_id == plain.run_id
    assert 0 < row.emit_ms - plain.emit_ms < 600_000
    after = following_row(row)
    assert after is not None
    assert after.emit_ms - row.emit_ms == 3_600_000
    assert decode_ready_run(after.run).emit_ms == after.emit_ms


def test_a_replay_after_a_crash_asks_for_the_same() -> None:
    jittery = {"every_s": 5, "jitter_s": 3}
    for text in (submission(), submission(generated()), submission(trigger=jittery)):
        known = Memory()
        first = asked(received(text), known=known)
        known.store(first.jobs)
        assert asked(received(text, stamp_ms=NOW_MS), known=known) == first


# -- known already -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("job_id", [NAME, generated(NOW_MS - 1000)])
def test_the_same_submission_twice_is_one_run(job_id: str, remembered: bool) -> None:
    known, later = Memory(), received(submission(job_id), 8, stamp_ms=NOW_MS + 1000)
    if remembered:
        found = asked(received(submission(job_id)), later)
        assert len(found.rows) == len(found.jobs) == 1
    else:
        known.store(asked(received(submission(job_id))).jobs)
        assert asked(later, known=known) == Asked()


def test_another_definition_is_refused_if_the_caller_asks_for_that() -> None:
    found = asked(received(submission()), received(submission(timeout_s=1, if_exists="refuse"), 8))
    assert len(found.rows) == len(found.jobs) == 1
    assert "exists with another definition" in refusal(replace(found, rows=[]))[0]


def test_a_job_that_excludes_a_calendar_that_there_is_not_is_refused() -> None:
    """Rather than run on its dates."""
    found = asked(received(submission(trigger={"cron": "@daily", "excluding": ["holidays-de"]})))
    assert "there is no calendar 'holidays-de'" in refusal(found)[0]


def test_a_calendar_is_kept_by_the_shard_of_its_name() -> None:
    here = asked(received(b'{"calendar": "%s", "dates": ["2030-12-25"]}' % NAME.encode()))
    assert here.calendars == [(7, Calendar(NAME, [date(2030, 12, 25)]))]
    assert not here.records
    there = asked(received(b'{"calendar": "%s", "dates": []}' % ELSEWHERE.encode()))
    assert [(r.topic, r.key) for r in there.records] == [(SUBMISSIONS, ELSEWHERE.encode())]
    assert not there.calendars


def test_a_calendar_is_kept_before_what_comes_behind_it() -> None:
    calendar = received(b'{"calendar": "%s", "dates": []}' % NAME.encode(), 7)
    job = received(submission(trigger={"cron": "@daily", "excluding": [NAME]}), 8)
    acceptance = Acceptance(0, SHARDS, Memory(), CalendarsAtHand({}))
    found = asyncio.run(acceptance.read([received(submission(NAMES[1]), 6), calendar, job]))
    assert (len(found.jobs), len(found.calendars), found.end) == (1, 1, 8)


def test_the_calendars_that_a_batch_names_are_looked_for_once() -> None:
    calendars = CalendarsAtHand({})
    named: list[set[str]] = []

    async def require(names: Collection[str]) -> None:
        named.append(set(names))
        calendars["holidays-de"] = Calendar("holidays-de", [])

    calendars.require = require  # type: ignore[method-assign]
    trigger = {"cron": "@daily", "excluding": ["holidays-de"]}
    records = [received(submission(trigger=trigger), 7), received(submission(NAMES[1]), 8)]
    change = {"action": "change", "id": NAMES[2], "fields": {"trigger": {"every_s": 1, "excluding": ["b"]}}}
    records.append(received(json.dumps(change).encode(), 9))
    found = asyncio.run(Acceptance(0, SHARDS, Memory(), calendars).read(records))
    assert named == [{"holidays-de", "b"}]
    assert len(found.rows) == 2


def test_a_job_is_recognised_however_long_ago_it_came() -> None:
    """Also when what came between has just made room for it in the memory."""

    async def work() -> list[Asked]:
        known = Memory()
        acceptance = Acceptance(0, SHARDS, known, CalendarsAtHand({}))
        first = await acceptance.read([received(submission(), 1)])
        known.store(first.jobs)
        late_ms = NOW_MS + REMEMBERED_MS + 1
        between = received(submission(NAMES[1]), 2, stamp_ms=late_ms)
        return [first, await acceptance.read([between, received(submission(), 3, stamp_ms=late_ms)])]

    first, second = asyncio.run(work())
    assert [row.job_id for row in first.jobs + second.jobs] == NAMES[:2]


@pytest.mark.parametrize("ahead_ms", [0, 10_000, 10 * REMEMBERED_MS])
def test_a_generated_id_that_comes_again_is_looked_up_when_its_job_is_forgotten(ahead_ms: int) -> None:
    """However far the clock is ahead by which it was made."""
    job_id = generated(NOW_MS + ahead_ms)
    first = received(submission(job_id), 1)
    for later_ms in (0, REMEMBERED_MS, ahead_ms, ahead_ms + REMEMBERED_MS):
        again = received(submission(job_id), 2, stamp_ms=NOW_MS + later_ms)
        assert len(asyncio.run(asked_by([[first], [again]], forgetting=True)).jobs) == 1


def test_ids_of_now_are_not_looked_up_and_older_ones_are() -> None:
    async def work() -> list[str]:
        known = Memory()
        acceptance = Acceptance(0, SHARDS, known, CalendarsAtHand({}))
        await acceptance.read([received(submission(NAMES[1]), 1)])
        known.asked_for.clear()
        now_ms = NOW_MS + 10 * REMEMBERED_MS
        await acceptance.read([received(submission(new := generated(now_ms)), 2, stamp_ms=now_ms)])
        assert known.asked_for == []
        old = generated(now_ms - 2 * REMEMBERED_MS)
        await acceptance.read([received(submission(old), 3, stamp_ms=now_ms)])
        assert known.asked_for == [old]
        assert new != old
        return known.asked_for

    asyncio.run(work())


# -- passed on -----------------------------------------------------------------------------------------------------


def test_a_job_of_another_shard_is_passed_on_and_accepted_there_as_of_its_first_coming() -> None:
    headers = (("trace", b"1"), ("trace", b"2"), ("empty", None))
    (passed,) = asked(received(submission(ELSEWHERE), headers=headers)).records
    assert (passed.topic, passed.key, passed.partition) == (SUBMISSIONS, ELSEWHERE.encode(), -1)
    assert passed.headers[:3] == headers
    assert dict(passed.headers)[FIRST_PLACE] == b"jobs.submissions/0/7"
    there = received(
        passed.value, 99, key=passed.key, partition=1, stamp_ms=NOW_MS + 5000, headers=passed.headers
    )
    run = once(asyncio.run(Acceptance(1, SHARDS, Memory(), CalendarsAtHand({})).read([there])))
    assert (run.job_id, run.due_ms, run.emit_ms, run.version) == (ELSEWHERE, NOW_MS, NOW_MS + 5000, 99)


def test_passing_on_twice_keeps_the_first_stamp() -> None:
    first = str(NOW_MS - 1000).encode()
    headers = ((FIRST_STAMP, first), (FIRST_PLACE, b"jobs.submissions/3/1"))
    (passed,) = asked(received(submission(ELSEWHERE), headers=headers)).records
    assert [name for name, _ in passed.headers] == [FIRST_STAMP, FIRST_PLACE]
    assert dict(passed.headers)[FIRST_STAMP] == first


def test_a_first_stamp_brings_no_due_times_of_long_ago() -> None:
    assert (
        received(submission(), headers=((FIRST_STAMP, b"1"),)).first_stamp_ms == NOW_MS - PASSED_ON_WITHIN_MS
    )


@pytest.mark.parametrize("stamp", [b"", None, b"soon", b"-1", b"9" * 5000, b"9" * 15, "٣".encode()])
def test_no_first_stamp_can_do_harm(stamp: bytes | None) -> None:
    headers = ((FIRST_STAMP, stamp),)
    assert once(asked(received(submission(), headers=headers))).due_ms == NOW_MS
    assert len(asked(received(submission(ELSEWHERE), headers=headers)).records) == 1
    assert len(asked(received(b"}", key=ELSEWHERE.encode(), headers=headers)).records) == 1


# -- refused -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [b"", None, b"hello", b"{", b'{"id": 3}', b"\x00\x00\x00\x00\x01x", b"\xc3\x01short"]
)
def test_what_cannot_be_decoded_is_kept_whole(value: bytes | None) -> None:
    headers = (("trace", b"1"), ("trace", None))
    found = asked(received(value, key=b"\xff", headers=headers))
    reason, marks = refusal(found)
    assert reason
    assert marks[PLACE] == b"jobs.submissions/0/7"
    (record,) = found.records
    assert (record.key, record.value, record.headers[:2]) == (b"\xff", value, headers)
    assert not found.jobs


def test_a_refused_job_whose_id_can_be_read_is_shown() -> None:
    found = asked(received(submission(timeout_s=-1)))
    assert "timeout_s" in refusal(found)[0]
    (row,) = found.jobs
    assert (row.job_id, row.state, row.version, row.definition) == (NAME, JobState.REJECTED, 7, None)
    assert row.reason == refusal(found)[0]


@pytest.mark.parametrize("value", [b"}", encode_ready_run(once(asked(received(submission()))))])
def test_the_key_names_a_job_whose_value_does_not(value: bytes) -> None:
    (row,) = asked(received(value, key=NAME.encode())).jobs
    assert (row.job_id, row.state) == (NAME, JobState.REJECTED)


@pytest.mark.parametrize("passed_on", [False, True])
def test_a_bad_record_of_another_shard_is_refused_there(passed_on: bool) -> None:
    headers = ((FIRST_STAMP, b"1"), (FIRST_PLACE, b"jobs.submissions/2/1")) if passed_on else ()
    found = asked(received(submission(ELSEWHERE, timeout_s=-1), headers=headers))
    assert not found.jobs
    assert found.records[0].topic == (REJECTED if passed_on else SUBMISSIONS)


def test_a_rejected_job_can_be_corrected_under_its_id() -> None:
    known = Memory()
    known.store(asked(received(submission(timeout_s=-1), 1)).jobs)
    found = asked(received(submission(timeout_s=1), 2), known=known)
    assert once(found).version == 2
    both = asked(received(submission(timeout_s=-1), 1), received(submission(timeout_s=1), 2))
    assert [row.state for row in both.jobs] == [JobState.REJECTED, JobState.ACTIVE]


def test_a_bad_change_leaves_its_job_as_it_is() -> None:
    found = asked(received(submission(), 1), received(submission(timeout_s=-1), 2))
    assert [row.state for row in found.jobs] == [JobState.ACTIVE]
    known = Memory()
    known.store(found.jobs)
    assert asked(received(submission(timeout_s=-1), 2), known=known).jobs == []


def test_one_that_is_too_long_is_refused_and_kept_whole() -> None:
    value = submission(params={"x": "y" * SUBMISSION_LENGTH_MAX})
    found = asked(received(value))
    assert "bytes" in refusal(found)[0]
    assert found.records[0].value == value
    assert found.jobs[0].state is JobState.REJECTED


def test_one_that_no_topic_takes_is_cut_and_says_so() -> None:
    found = asked(received(b"x" * RECORD_LENGTH_MAX))
    _, marks = refusal(found)
    assert (marks[CUT] or b"").startswith(b"%d bytes, sha256 " % RECORD_LENGTH_MAX)
    assert len(found.records[0].value or b"") == SUBMISSION_LENGTH_MAX


@pytest.mark.parametrize(
    ("record", "whole"),
    [
        (received(submission(ELSEWHERE, x="y" * RECORD_LENGTH_MAX)), False),
        (received(submission(), key=b"k" * RECORD_LENGTH_MAX), False),
        (received(submission(ELSEWHERE), key=b"k" * RECORD_LENGTH_MAX), False),
        (received(submission(), headers=(("h", b"v" * RECORD_LENGTH_MAX),)), False),
        (received(submission(ELSEWHERE), headers=(("h" * RECORD_LENGTH_MAX, None),)), False),
        (received(submission(), headers=(("h", b"v" * (ENVELOPE_LENGTH_MAX + 1)),)), False),
        (received(submission(ELSEWHERE, timeout_s=-1), headers=(("h", b"v" * 60_000),)), True),
    ],
    ids=["value", "key", "key elsewhere", "header", "header's name", "a bit too long", "short enough"],
)
def test_what_asks_for_a_record_that_no_topic_takes_is_refused_where_it_lies(
    record: Received, whole: bool
) -> None:
    found = asked(record)
    (sent,) = found.records
    assert sent.topic == (SUBMISSIONS if whole else REJECTED)
    assert (CUT in dict(sent.headers)) is not whole
    sizes = [len(name) + len(value or b"") for name, value in sent.headers]
    assert len(sent.key or b"") + len(sent.value or b"") + sum(sizes) < RECORD_LENGTH_MAX


def test_a_reason_that_quotes_half_a_surrogate_pair_can_be_written() -> None:
    value = b'{"id": "%s", "executor_class": "x", "\\ud800": 1}' % NAME.encode()
    found = asked(received(value))
    assert r"\ud800" in refusal(found)[0]
    found.jobs[0].reason.encode()


def test_a_reason_is_no_longer_than_a_header_should_be() -> None:
    found = asked(received(submission().replace(b"executor_class", b"x" * 200_000)))
    assert len(refusal(found)[0]) == len(found.jobs[0].reason) <= 2000


@pytest.mark.parametrize("due_ms", [NOW_MS + HORIZON_MS + 1000, 221_000_000_000_000])
def test_due_times_beyond_ten_years_are_refused(due_ms: int) -> None:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=due_ms)
    assert "10 years" in refusal(asked(received(submission(trigger={"at": at.isoformat()}))))[0]


def test_a_job_that_is_never_due_is_refused() -> None:
    end = datetime.fromtimestamp(NOW_MS / 1000 - 86_400, UTC)
    trigger = {"cron": "* * * * *", "end": end.isoformat()}
    assert "never due" in refusal(asked(received(submission(trigger=trigger))))[0]


@pytest.mark.parametrize("action", ["cancel", "run", "resume"])
def test_a_command_for_a_job_that_there_is_not_is_refused_and_makes_none(action: str) -> None:
    value = json.dumps({"action": action, "id": NAME}).encode()
    found = asked(received(value, key=NAME.encode()))
    assert f"there is no job {NAME} to {action}" in refusal(found)[0]
    assert not found.jobs


# -- retries -------------------------------------------------------------------------------------------------------


def retry(
    job_id: str = NAME, attempt: int = 2, emit_ms: int = NOW_MS + 500, due_ms: int = NOW_MS - 9
) -> bytes:
    run = ReadyRun(
        job_id=job_id,
        due_ms=due_ms,
        emit_ms=emit_ms,
        attempt=attempt,
        version=3,
        executor_class="command",
        priority=Priority.LOW,
        params={},
        timeout_ms=1000,
        retry=Retry(max_attempts=5),
    )
    return encode_retry_command(RetryCommand(follows=attempt - 1, run=run))


@pytest.mark.parametrize(("emit_ms", "emitted_ms"), [(NOW_MS + 500, NOW_MS + 500), (NOW_MS - 500, NOW_MS)])
def test_a_retry_is_a_row(emit_ms: int, emitted_ms: int) -> None:
    found = asked(received(retry(emit_ms=emit_ms)))
    (row,) = found.rows
    run = decode_ready_run(row.run)
    assert (row.emit_ms, run.emit_ms, row.attempt, run.version) == (emitted_ms, emitted_ms, 2, 3)
    assert (row.submission, row.definition, found.jobs, found.records) == (7, None, [], [])


@pytest.mark.parametrize(
    ("latest", "dropped"),
    [
        ((1, RunState.SCHEDULED), False),
        ((1, RunState.RUNNING), False),  # its end is still on its way to the ledger
        ((1, RunState.SUCCEEDED), True),
        ((1, RunState.CANCELLED), True),
        ((2, RunState.RUNNING), True),
        ((3, RunState.SCHEDULED), True),
        (None, False),
    ],
)
def test_a_retry_of_what_has_ended_or_gone_on_is_dropped(
    latest: tuple[int, RunState] | None, dropped: bool
) -> None:
    known = Memory()
    if latest:
        known.attempts[f"{NAME}@{NOW_MS - 9}"] = latest
    found = asked(received(retry()), known=known)
    assert len(found.rows) == (0 if dropped else 1)
    assert not found.records


def test_a_retry_for_another_shard_is_passed_on_unchanged() -> None:
    value = retry(ELSEWHERE)
    (passed,) = asked(received(value)).records
    assert (passed.topic, passed.key, passed.value) == (SUBMISSIONS, ELSEWHERE.encode(), value)
    assert isinstance(decode_submission(passed.value or b""), RetryCommand)


# -- batches -------------------------------------------------------------------------------------------------------

IDS = [
    *NAMES[:2],
    generated(NOW_MS),
    generated(NOW_MS + 30_000),
    generated(NOW_MS - 500_000),
    ELSEWHERE,
    None,
]
values = st.one_of(
    st.builds(submission, st.sampled_from(IDS), timeout_s=st.sampled_from([1, 1, 2, -1])),
    st.builds(submission, st.sampled_from(NAMES[:2]), trigger=st.just({"every_s": 60})),
    st.builds(retry, st.sampled_from(NAMES[:1]), attempt=st.integers(2, 3)),
    st.sampled_from([b"{", b"", None]),
)
pauses_ms = st.one_of(st.integers(0, 2000), st.integers(REMEMBERED_MS - 2, REMEMBERED_MS * 2))
keys = st.sampled_from([None, NAMES[0].encode(), ELSEWHERE.encode()])


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(values, pauses_ms, keys), max_size=12), st.data())
def test_what_is_asked_for_does_not_depend_on_how_batches_are_cut(
    sent: list[tuple[bytes | None, int, bytes | None]], data: st.DataObject
) -> None:
    records, stamp_ms = [], NOW_MS
    for offset, (value, pause_ms, key) in enumerate(sent):
        stamp_ms += pause_ms
        records.append(received(value, offset, stamp_ms=stamp_ms, key=key))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(records))), label="cuts") | {0, len(records)})
    pieces = [records[a:b] for a, b in pairwise(cuts)]
    forgetting = data.draw(st.booleans(), label="forgetting")
    assert asyncio.run(asked_by(pieces, forgetting=forgetting)) == asyncio.run(asked_by([records]))


@settings(deadline=None, max_examples=150)
@given(
    value=st.binary(max_size=60),
    key=st.none() | st.binary(max_size=20),
    header=st.none() | st.binary(max_size=20),
)
def test_no_record_disappears_or_stops_the_shard(
    value: bytes, key: bytes | None, header: bytes | None
) -> None:
    found = asked(received(value, key=key, headers=((FIRST_STAMP, header),)))
    assert len(found.records) + len(found.rows) == 1


def test_a_trigger_far_behind_another_is_followed_up() -> None:
    """Only the first due time has a horizon; the row of the last one still needs a home."""
    far = datetime(8990, 1, 1, tzinfo=UTC)
    now = datetime.fromtimestamp(NOW_MS / 1000, UTC)
    job = Job(id=NAME, executor_class="x", triggers=(Once(now), Once(far)))
    (row,) = asked(received(encode_job(job))).rows
    after = following_row(row)
    assert after is not None
    assert after.emit_ms > 221_000_000_000_000


def test_the_longest_submission_is_accepted_and_can_be_judged() -> None:
    frame = b'{"executor_class":"x","trigger":{"every_s":60},"params":{"a":"%s"}}'
    text = frame % (b"a" * (SUBMISSION_LENGTH_MAX - len(frame) + 2))
    # The one whose id, made from its place, belongs to this shard.
    (row,) = next(rows for offset in range(100) if (rows := asked(received(text, offset)).rows))
    assert len(row.definition or b"") > SUBMISSION_LENGTH_MAX, "the fields that it left out came in"
    assert following_row(row) is not None


def test_what_would_be_too_long_to_be_read_again_is_refused() -> None:
    """A number may be longer in the form in which it is stored."""
    params = b'{"n": [%s]}' % b",".join([b"1e15"] * 50_000)
    found = asked(received(b'{"executor_class": "x", "params": %s}' % params))
    assert "as it would be stored" in refusal(found)[0]
    change = b'{"action": "change", "id": "%s", "fields": {"params": %s}}' % (NAME.encode(), params)
    found = asked(received(submission(trigger={"every_s": 60}), 1), received(change, 2))
    assert "as it would be stored" in refusal(replace(found, rows=[]))[0]


# -- commands ------------------------------------------------------------------------------------------------------


def commanded(action: str, **fields: Any) -> bytes:
    return json.dumps({"action": action, "id": NAME} | fields).encode()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (commanded("change", fields={"triggers": 5}), "must be a list of triggers"),
        (commanded("change", fields={"priorty": "low"}), "did you mean priority?"),
        (commanded("change", fields={}), "fields are for the action change"),
        (commanded("pause", note="\ud800"), "half a surrogate pair"),
        (commanded("backfill", start="2030-01-01T00:00Z"), "for the action backfill, which needs both"),
        (json.dumps({"action": "retry", "run": f"{NAME}@{'9' * 30}"}).encode(), "outside the years"),
        (json.dumps({"action": "retry", "run": NAME}).encode(), "is not a run id"),
        (json.dumps({"action": "retry", "run": f"{NAME}@5"}).encode(), "nothing is recorded of it"),
        (commanded("stop"), "'stop' is not one of cancel"),
        (commanded("pause", id="no id"), "is no job's id"),
        (commanded("pause", id=5), "5 is no job's id"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused_and_the_job_stays(value: bytes, reason: str) -> None:
    found = asked(received(submission(), 1), received(value, 2, key=NAME.encode()))
    assert reason in refusal(replace(found, rows=[]))[0]
    assert [row.version for row in found.jobs] == [1]


def test_the_run_of_a_job_that_gets_more_is_listed_among_them() -> None:
    due = {"at": "2026-12-01T00:00Z"}
    found = asked(received(submission(trigger=due), 1), received(commanded("run"), 2))
    assert found.history == [(NAME, to_ms(datetime(2026, 12, 1, tzinfo=UTC)))]
    later = {"at": "2030-12-01T00:00Z"}
    assert not asked(received(submission(trigger=later), 1), received(commanded("run"), 2)).history
    assert not asked(received(submission(trigger={"every_s": 9}), 1), received(commanded("run"), 2)).history


def for_many(
    action: str, offset: int, *more: tuple[str, bytes], passed_on: bool = True, fields: str = "{}"
) -> Received:
    value = b'{"action": "%s", "matching": {"prefix": ""}, "fields": %s}' % (action.encode(), fields.encode())
    origin = ((FIRST_STAMP, str(NOW_MS).encode()), (FIRST_PLACE, b"jobs.submissions/1/5"))
    return received(value, offset, headers=(*(origin if passed_on else ()), *more))


def test_a_command_for_many_is_copied_to_each_shard_with_its_time() -> None:
    record = for_many("pause", 7, passed_on=False)
    found = asked(record)
    assert [copy.partition for copy in found.records] == list(range(SHARDS))
    for copy in found.records:
        assert (copy.topic, copy.value) == (SUBMISSIONS, record.value)
        assert dict(copy.headers) == {FIRST_STAMP: str(NOW_MS).encode(), FIRST_PLACE: record.place.encode()}


@pytest.mark.parametrize("fields", ['{"name": "\\ud800"}', '{"timeout_s": NaN}'])
@pytest.mark.parametrize("passed_on", [True, False])
def test_a_command_for_many_that_no_shard_could_go_on_with_is_refused(fields: str, passed_on: bool) -> None:
    record = for_many("change", 7, passed_on=passed_on, fields=fields)
    found = asked(record)
    assert found.bulk is None
    assert "must hold JSON values only" in refusal(found)[0]


@pytest.mark.parametrize("value", [b"garbage", b'{"executor_class": ""}'])
def test_only_commands_go_without_a_refusal(value: bytes) -> None:
    """Whatever headers somebody gives to something else."""
    assert asked(received(value, headers=((FOR_MANY, b"any"),))).records


def test_a_copy_of_a_command_for_many_is_read_alone_and_not_copied_again() -> None:
    records = [received(submission(), 1), for_many("pause", 2), received(submission(), 3)]
    acceptance = Acceptance(0, SHARDS, Memory(), CalendarsAtHand({}))
    first = asyncio.run(acceptance.read(records))
    assert (first.end, first.bulk) == (2, None)
    second = asyncio.run(acceptance.read(records[1:]))
    assert (second.end, second.records, second.plain) == (3, [], False)
    assert second.bulk is not None
    assert second.bulk[0] is records[1]


def asked_of_one(action: str, offset: int, first_ms: int = NOW_MS) -> Received:
    marks = ((FIRST_STAMP, str(first_ms).encode()), (FIRST_PLACE, b"any"), (FOR_MANY, b"any"))
    return received(commanded(action), offset, headers=marks)


def test_a_job_that_came_after_a_command_for_many_is_left_alone() -> None:
    job = received(submission(), 1)
    assert asked(job, asked_of_one("pause", 2, NOW_MS - 1)).jobs[-1].state is JobState.ACTIVE
    assert asked(job, asked_of_one("pause", 2, NOW_MS)).jobs[-1].state is JobState.PAUSED


def test_what_can_not_be_asked_of_one_of_many_is_not_refused() -> None:
    found = asked(received(submission(), 1), received(commanded("cancel"), 2), asked_of_one("pause", 3))
    assert not found.records
    assert found.jobs[-1].state is JobState.CANCELLED


def test_a_run_that_is_asked_of_many_is_the_same_when_it_is_asked_for_again() -> None:
    found = asked(received(submission(), 1), *(asked_of_one("run", n) for n in (2, 3)))
    assert {row.run_id for row in found.rows[1:]} == {f"{NAME}@{NOW_MS}"}


def test_a_backfill_is_read_alone() -> None:
    """Each is a thousand look-ups at most, and nothing else waits for them in one go."""
    value = commanded("backfill", start="2026-12-01T00:00Z", end="2026-12-02T00:00Z")
    hourly = {"every_s": 3600, "start": "2026-12-01T00:00Z"}
    records = [received(submission(trigger=hourly), 1), *(received(value, n) for n in (2, 3))]
    acceptance = Acceptance(0, SHARDS, Memory(), CalendarsAtHand({}))
    ends, rows = [], []
    while records:
        found = asyncio.run(acceptance.read(records))
        ends.append(found.end)
        rows.append(len(found.rows))
        records = [record for record in records if record.offset >= found.end]
    assert ends == [2, 3, 4]
    assert rows == [1, 25, 25], "the first is in the schedule, and the wheel tells those of the second apart"


def test_runs_that_are_asked_for_in_one_moment_have_times_of_their_own() -> None:
    found = asked(received(submission(), 1), *(received(commanded("run"), n) for n in (2, 3, 4)))
    assert [row.run_id for row in found.rows[1:]] == [f"{NAME}@{NOW_MS + n}" for n in range(3)]


def test_what_a_paused_job_missed_is_not_for_a_backfill() -> None:
    """It is run, or left out, when the job is resumed."""
    known, began_ms = Memory(), NOW_MS - 10 * 3_600_000
    known.attempts[f"{NAME}@{began_ms}"] = (1, RunState.SUCCEEDED)
    records = [
        received(submission(trigger={"every_s": 3600}), 1, stamp_ms=began_ms),
        received(commanded("pause"), 2, stamp_ms=began_ms + 1),
        received(commanded("backfill", start="2027-01-01T00:00Z", end="2027-02-01T00:00Z"), 3),
    ]
    assert len(asked(*records, known=known).rows) == 1


@pytest.mark.parametrize(
    "command",
    [
        commanded("pause"),
        commanded("retry", run=f"{NAME}@1893459600000"),
        commanded("backfill", start="2026-12-01T00:00Z", end="2026-12-02T00:00Z"),
    ],
)
def test_a_command_for_a_job_that_cant_be_read_here_is_refused(command: bytes) -> None:
    known = Memory()
    trigger = {"cron": "0 8 * * *", "time_zone": "Europe/Berlin"}
    (job,) = asked(received(submission(trigger=trigger), 1)).jobs
    assert job.definition is not None
    # As a scheduler with a newer database of time zones has stored it.
    known.store([replace(job, definition=job.definition.replace(b"Europe/Berlin", b"Europe/Dublon"))])
    found = asked(received(command, 2), known=known)
    assert "'Europe/Dublon' is not an IANA time zone" in refusal(found)[0]


def test_a_command_finds_a_job_whose_id_was_made_by_a_clock_ahead() -> None:
    job_id, known = generated(NOW_MS + 60_000), Memory()
    known.store(asked(received(submission(job_id), 1)).jobs)
    value = json.dumps({"action": "pause", "id": job_id}).encode()
    (row,) = asked(received(value, 2), known=known).jobs
    assert row.state is JobState.PAUSED


def test_a_job_whose_calendars_leave_no_date_is_refused_soon() -> None:
    days = [date(2027, 1, 1) + timedelta(days=n) for n in range(3000)]
    calendars = CalendarsAtHand({"all": Calendar("all", days)})
    trigger = {"cron": "0 8 * * *", "excluding": ["all"]}
    value = submission(trigger=trigger)
    found = asyncio.run(Acceptance(0, SHARDS, Memory(), calendars).read([received(value)]))
    assert "leave out each of the first 400 dates" in refusal(found)[0]
