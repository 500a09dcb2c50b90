"""From a command for many jobs to commands for each."""

from typing import Any, cast

import pytest
import stamina

from dueline.address import REJECTED
from dueline.codec import decode_submission, encode_bulk_command
from dueline.commands import Action, BulkCommand, ControlCommand, JobFilter
from dueline.errors import Unavailable
from dueline.job import Job
from dueline.states import JobState
from infra.rejects import REASON
from infra.view_values import JobScan, JobView
from infra.views import FIRST_OF_ALL, Scanned, Views
from stream_processors.scheduler.bulk import PAGE_ROWS, page_of
from stream_processors.scheduler.received import BEHIND, FIRST_PLACE, FIRST_STAMP, FOR_MANY, Received

ASKED_MS = 1_000
COMMAND = BulkCommand(matching=JobFilter(executor_class="http"), action=Action.PAUSE, note="why")


class Shard:
    """The jobs of one shard, of which a part at a time is shown."""

    def __init__(self, *jobs: JobView) -> None:
        self.jobs = jobs
        self.asked: list[Scanned] = []
        self.rest: Scanned | None = None

    async def scan(self, shard: int, behind: Scanned, limit: int) -> JobScan:
        self.asked.append(behind)
        return JobScan(jobs=self.jobs, behind=self.rest)


def job(job_id: str, executor_class: str = "http", accepted_ms: int = 0, **more: Any) -> JobView:
    definition = Job(id=job_id, executor_class=executor_class)
    return JobView(job_id=job_id, state=JobState.ACTIVE, job=definition, accepted_ms=accepted_ms, **more)


def copy(*more: tuple[str, bytes]) -> Received:
    return Received(
        partition=3,
        offset=7,
        stamp_ms=ASKED_MS + 50,
        key=b"*",
        value=encode_bulk_command(COMMAND),
        headers=((FIRST_STAMP, str(ASKED_MS).encode()), (FIRST_PLACE, b"jobs.submissions/0/1"), *more),
    )


async def test_each_job_that_fits_and_came_before_gets_a_command() -> None:
    shard = Shard(
        job("a"), job("b", "command"), job("c", accepted_ms=ASKED_MS), job("d", accepted_ms=ASKED_MS + 1)
    )
    records = await page_of(copy(), COMMAND, cast(Views, shard))
    assert [record.key for record in records] == [b"a", b"c"]
    for record, job_id in zip(records, ("a", "c"), strict=True):
        command = ControlCommand(job_id=job_id, action=Action.PAUSE, note="why")
        assert decode_submission(record.value or b"") == command
        assert record.partition == 3
        assert dict(record.headers) | {FOR_MANY: b"jobs.submissions/3/7"} == dict(record.headers)
        assert dict(record.headers)[FIRST_STAMP] == str(ASKED_MS).encode()


async def test_the_rest_follows_behind_the_commands() -> None:
    shard = Shard(job("a"))
    shard.rest = (-3, "name with : anything")
    *_, rest = await page_of(copy(), COMMAND, cast(Views, shard))
    assert (rest.key, rest.partition) == (b"*", 3)
    assert decode_submission(rest.value or b"") == COMMAND
    again = copy(*((name, value or b"") for name, value in rest.headers if name == BEHIND))
    shard.rest = None
    assert len(await page_of(again, COMMAND, cast(Views, shard))) == 1
    assert shard.asked == [FIRST_OF_ALL, (-3, "name with : anything")]


async def test_a_page_that_does_not_come_is_asked_for_in_smaller_pieces() -> None:
    limits: list[int] = []

    class Slow(Shard):
        async def scan(self, shard: int, behind: Scanned, limit: int) -> JobScan:
            limits.append(limit)
            if limit > 10:
                raise Unavailable("too slow")
            return await super().scan(shard, behind, limit)

    with stamina.set_testing(True, attempts=1000):
        assert len(await page_of(copy(), COMMAND, cast(Views, Slow(job("a"))))) == 1
    assert limits == [PAGE_ROWS, PAGE_ROWS // 4, PAGE_ROWS // 16, PAGE_ROWS // 64][: len(limits)]


async def test_a_copy_that_can_not_be_gone_on_with_is_refused_and_does_not_stop_its_shard() -> None:
    class Broken(Shard):
        async def scan(self, shard: int, behind: Scanned, limit: int) -> JobScan:
            raise ZeroDivisionError("a mistake")

    (record,) = await page_of(copy(), COMMAND, cast(Views, Broken()))
    assert (record.topic, record.value) == (REJECTED, copy().value)
    assert "a mistake" in (dict(record.headers)[REASON] or b"").decode()


async def test_no_place_is_longer_than_an_id() -> None:
    shard = Shard()
    await page_of(copy((BEHIND, b"5 " + b"a" * 100_000)), COMMAND, cast(Views, shard))
    assert len(shard.asked[0][1]) < 1000


@pytest.mark.parametrize("text", [b"", b"x", b"\xff 5", b"1e3 a"])
async def test_what_is_no_place_is_the_begin(text: bytes) -> None:
    shard = Shard()
    await page_of(copy((BEHIND, text)), COMMAND, cast(Views, shard))
    assert shard.asked == [FIRST_OF_ALL]


async def test_no_place_lies_before_the_begin() -> None:
    shard = Shard()
    await page_of(copy((BEHIND, b"9" * 30 + b" a")), COMMAND, cast(Views, shard))
    assert shard.asked[0][0] == FIRST_OF_ALL[0]
