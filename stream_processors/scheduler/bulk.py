"""From a command for many jobs to a command for each: every shard goes through its own jobs, a page at a time.

    the command ──► a copy for each shard ──► a page of its jobs ──► commands for those that fit
                            ▲                        │
                            └── the rest, behind ────┘

The copy comes behind all that was accepted before the command, so none of that is missed. All that a page leads to is in the log
before the copy counts as satisfied; a copy that is read again after a crash asks for the same again. Between two pages
the shard does what else has come, however many jobs it has.
"""

import logging
from contextlib import suppress

from dueline.address import SUBMISSIONS
from dueline.codec import encode_control_command
from dueline.commands import BulkCommand
from dueline.ids import NAME_LENGTH_MAX
from infra.publisher import Record
from infra.store import persist
from infra.view_values import JobScan
from infra.views import FIRST_OF_ALL, Scanned, Views
from stream_processors.scheduler.received import (
    BEHIND,
    FIRST_PLACE,
    FIRST_STAMP,
    FOR_MANY,
    Received,
    rejected,
)

log = logging.getLogger(__name__)

#: Jobs looked at in one go: some 30 ms, in which the shard does nothing else.
PAGE_ROWS = 200


async def page_of(record: Received, command: BulkCommand, views: Views) -> list[Record]:
    """What a shard's copy of a command leads to: commands for the jobs of a page, and the copy for what lies behind them."""
    try:
        return await _page_of(record, command, views)
    except Exception as error:
        # A mistake of ours, but no record may stop its shard, or vanish.
        log.exception("%s given up", record.place, exc_info=error, extra={"action": "mistake"})
        return [rejected(record, f"the scheduler could not go on with it: {error!r:.500}")]


async def _page_of(record: Received, command: BulkCommand, views: Views) -> list[Record]:
    behind, page_rows = _scanned(record.header(BEHIND)), PAGE_ROWS

    async def scan() -> JobScan:
        # A page of the largest definitions may never come: what fails is asked for in smaller pieces.
        nonlocal page_rows
        limit, page_rows = page_rows, max(1, page_rows // 4)
        return await views.scan(record.partition, behind, limit)

    page = await persist("jobs", scan)
    origin = tuple(h for h in record.headers if h[0] in (FIRST_STAMP, FIRST_PLACE))
    marks = (*origin, (FOR_MANY, record.place.encode()))
    records = [
        Record(
            SUBMISSIONS,
            view.job_id.encode(),
            encode_control_command(command.for_job(view.job_id)),
            record.partition,
            marks,
        )
        for view in page.jobs
        if (view.accepted_ms or 0) <= record.asked_ms and view.fits(command.matching)
    ]
    if page.behind is not None:
        bucket, job_id = page.behind
        headers = (*origin, (BEHIND, f"{bucket} {job_id}".encode()))
        records.append(Record(SUBMISSIONS, record.key, record.value, record.partition, headers))
    return records


def _scanned(text: bytes | None) -> Scanned:
    """How far the pages before have come; the begin for what is no such place, since anybody can send any."""
    bucket, _, job_id = (text or b"").decode(errors="replace").partition(" ")
    with suppress(ValueError):
        return min(int(bucket), FIRST_OF_ALL[0]), job_id[: NAME_LENGTH_MAX + 1]
    return FIRST_OF_ALL
