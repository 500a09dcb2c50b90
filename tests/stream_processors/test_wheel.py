"""What a wheel emits when, and what it lets be stored: one example for each of its promises.

The interplay of all of them is in test_wheel_model.py.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import pytest

from dueline.job import Priority
from dueline.runs import RunEvent, RunKey
from dueline.scheduling.judge import Judged
from dueline.scheduling.values import ScheduledRun
from infra.publisher import Placed
from stream_processors.scheduler import wheel as module
from stream_processors.scheduler.wheel import EVENTS_MAX, Wheel
from tests.stream_processors.transport import INTERVAL_MS, Transport, following, row

CURSOR_MS, BUCKET_END = 100, (1000, "", 0, 0)


@pytest.fixture
def transport() -> Transport:
    return Transport()


def wheel_on(
    transport: Transport,
    *,
    submissions: int = 1,
    unread: int = 1,
    emitted: dict[RunKey, int] | None = None,
    found_ends: dict[Priority, int] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Wheel:
    """A wheel that takes over: cursor 100, and the given number of submissions satisfied."""
    return Wheel(
        cursor_ms=CURSOR_MS,
        submissions=submissions,
        ready=dict.fromkeys(Priority, 0),
        emitted=emitted or {},
        unread=unread,
        found_ends=found_ends or {},
        publish=transport.publish,
        judge=transport.judge,
        save=transport.save,
        progress=progress,
        failed=lambda error: pytest.fail(repr(error)),
    )


async def settle() -> None:
    """Let all tasks come to where they wait."""
    for _ in range(10):
        await asyncio.sleep(0)


async def step(wheel: Wheel, now_ms: int) -> int | None:
    next_ms = wheel.step(now_ms)
    await settle()
    return next_ms


async def acknowledge_all(transport: Transport, wheel: Wheel, now_ms: int) -> None:
    """Acknowledge and save whatever there is, until nothing more comes."""
    more = True
    while more:
        more = await step(wheel, now_ms) == now_ms or bool(transport.sent or transport.saving)
        for saving in list(transport.saving):
            transport.saved(saving)
        for sending in list(transport.sent):
            transport.acknowledge(sending)
        await settle()


def sent(transport: Transport) -> list[RunKey]:
    return [key for sending in transport.sent for key in sending.keys]


async def test_a_row_is_emitted_at_its_time_and_not_before(transport: Transport) -> None:
    wheel = wheel_on(transport)
    wheel.read([row(150)], BUCKET_END)
    assert await step(wheel, 149) == 150
    assert not transport.sent
    await step(wheel, 150)
    assert sent(transport) == [row(150).key]


async def test_the_cursor_waits_for_the_acknowledgement(transport: Transport) -> None:
    wheel = wheel_on(transport)
    wheel.read([row(150)], BUCKET_END)
    await step(wheel, 160)
    assert wheel.cursor_ms <= 150
    transport.acknowledge(transport.sent[0])
    await settle()
    assert wheel.cursor_ms == 161
    assert wheel.ready[Priority.NORMAL] == 1


async def test_the_cursor_moves_without_rows_too_and_never_beyond_what_was_read(transport: Transport) -> None:
    wheel = wheel_on(transport)
    await step(wheel, 160)
    assert wheel.cursor_ms == CURSOR_MS
    wheel.read([], BUCKET_END)
    await step(wheel, 160)
    assert wheel.cursor_ms == 161
    await step(wheel, 5000)
    assert wheel.cursor_ms == BUCKET_END[0]


async def test_the_ready_offsets_pass_over_nothing_of_which_it_is_not_known_where_it_lies(
    transport: Transport,
) -> None:
    """Though what was emitted before it goes on behind it, with runs that have become late."""
    wheel = wheel_on(transport)
    high = Priority.HIGH
    wheel.read([row(110, "goes-on", more=3, priority=high), row(150, priority=high)], BUCKET_END)
    await step(wheel, 131)
    await step(wheel, 160)
    before, unknown = transport.sent
    transport.acknowledge(before)
    transport.append(unknown)
    while transport.saving or len(transport.sent) > 1:
        for saving in list(transport.saving):
            transport.saved(saving)
        for sending in transport.sent[1:]:
            transport.acknowledge(sending)
        await settle()
    assert wheel.cursor_ms == 132
    assert wheel.ready[high] <= transport.log[high].index(row(150).key)
    transport.acknowledge(unknown)
    await settle()
    assert wheel.cursor_ms == 161
    assert wheel.ready[high] == len(transport.log[high]) == 5


async def test_the_account_moves_from_its_head_only(transport: Transport) -> None:
    wheel = wheel_on(transport)
    wheel.read([row(110, "a"), row(120, "b", priority=Priority.HIGH)], BUCKET_END)
    await step(wheel, 110)
    await step(wheel, 120)
    first, second = transport.sent
    transport.acknowledge(second)
    await settle()
    assert wheel.cursor_ms <= 110
    assert wheel.ready[Priority.HIGH] == 0
    transport.acknowledge(first)
    await settle()
    assert wheel.cursor_ms == 121
    assert wheel.ready[Priority.HIGH] == 1


async def test_rows_at_the_position_itself_hold_the_cursor_there(transport: Transport) -> None:
    wheel = wheel_on(transport)
    page = [row(150, "a"), row(150, "b")]
    wheel.read(page, page[-1].position)
    await step(wheel, 200)
    await acknowledge_all(transport, wheel, 200)
    assert wheel.cursor_ms <= 150  # "c" may be there as well
    assert wheel.ready[Priority.NORMAL] == 0  # so these two must be found again
    wheel.read([row(150, "c")], BUCKET_END)
    await acknowledge_all(transport, wheel, 200)
    assert wheel.cursor_ms == 201
    assert wheel.ready[Priority.NORMAL] == 3


async def test_more_rows_of_one_instant_than_may_be_under_way(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEND_MAX", 2)
    monkeypatch.setattr(module, "UNDER_WAY_MAX", 4)
    wheel = wheel_on(transport)
    wheel.read([row(150, f"{n:02}") for n in range(20)], BUCKET_END)
    for _ in range(2):
        await step(wheel, 200)
    await step(wheel, 200)
    assert len(sent(transport)) == 4
    await acknowledge_all(transport, wheel, 200)
    assert len(transport.emitted()) == 20
    await step(wheel, 200)
    assert wheel.cursor_ms == 201


async def test_a_late_row_is_emitted_at_once_and_its_submission_waits_for_that(transport: Transport) -> None:
    wheel = wheel_on(transport)
    wheel.read([], BUCKET_END)
    await step(wheel, 200)
    wheel.admit([row(150, submission=1)], 2)
    await step(wheel, 200)
    assert sent(transport) == [row(150).key]
    assert wheel.submissions == 1
    transport.acknowledge(transport.sent[0])
    await settle()
    assert wheel.submissions == 2


async def test_a_row_to_come_satisfies_its_submission(transport: Transport) -> None:
    wheel = wheel_on(transport)
    wheel.read([], BUCKET_END)
    wheel.admit([row(500, submission=1), row(5000, "beyond", submission=1)], 2)
    assert await step(wheel, 200) == 500
    assert wheel.submissions == 2
    assert len(wheel) == 1  # the other is still to be read


@pytest.mark.parametrize("clock_ms", [90, 149])
async def test_nothing_is_early_when_the_clock_is_behind_the_cursor(
    transport: Transport, clock_ms: int
) -> None:
    wheel = wheel_on(transport)
    wheel.read([], BUCKET_END)
    await step(wheel, 200)
    # The clock is set back, or the shard has moved to a machine whose clock is.
    wheel.admit([row(150, submission=1, more=1)], 2)
    await step(wheel, clock_ms)
    assert not transport.sent
    await step(wheel, 150)
    transport.acknowledge(transport.sent[0])
    transport.saved(transport.saving[0])
    await step(wheel, 151)
    assert not transport.sent
    assert wheel.submissions == 1
    await step(wheel, 150 + INTERVAL_MS)
    assert sent(transport) == [row(150 + INTERVAL_MS).key]


async def test_what_follows_is_durable_before_the_cursor_passes(transport: Transport) -> None:
    wheel = wheel_on(transport)
    wheel.read([row(150, more=1)], BUCKET_END)
    await step(wheel, 150)
    transport.acknowledge(transport.sent[0])
    await settle()
    assert wheel.cursor_ms <= 150
    transport.saved(transport.saving[0])
    await settle()
    assert wheel.cursor_ms == 151
    assert await step(wheel, 151) == 150 + INTERVAL_MS


async def test_what_the_log_holds_is_not_emitted_again_and_is_followed_all_the_same(
    transport: Transport,
) -> None:
    wheel = wheel_on(transport, emitted={row(150).key: 150})
    wheel.read([row(150, more=1)], BUCKET_END)
    await step(wheel, 150)
    assert not transport.sent
    transport.saved(transport.saving[0])
    await step(wheel, 150 + INTERVAL_MS)
    assert sent(transport) == [row(150 + INTERVAL_MS).key]


async def test_what_the_log_holds_is_there_for_the_next_owner_too(transport: Transport) -> None:
    """Until that can't come to emit it again: neither from the submissions nor from the schedule."""
    wheel = wheel_on(transport, emitted={row(150).key: 150}, unread=2)
    wheel.read([row(120, "other")], BUCKET_END)
    await step(wheel, 140)
    await acknowledge_all(transport, wheel, 140)
    assert wheel.ready == dict.fromkeys(Priority, 0)
    wheel.admit([row(150, submission=1)], 2)
    await step(wheel, 140)
    assert wheel.submissions == 2
    assert wheel.ready == dict.fromkeys(Priority, 0), "the next owner reads its row"
    await step(wheel, 150)
    assert wheel.ready[Priority.NORMAL] == 1


async def test_what_was_found_emitted_is_done_with_though_nothing_follows(transport: Transport) -> None:
    """Else it is never trimmed, and found again by every owner, until something else is emitted there."""
    wheel = wheel_on(transport, emitted={row(150).key: 150}, unread=1, found_ends={Priority.NORMAL: 7})
    wheel.read([row(150)], BUCKET_END)
    await step(wheel, 140)
    assert wheel.ready == dict.fromkeys(Priority, 0)
    await step(wheel, 151)
    await acknowledge_all(transport, wheel, 151)
    assert transport.emitted() == []
    assert wheel.ready == {Priority.HIGH: 0, Priority.NORMAL: 7, Priority.LOW: 0}


async def test_after_an_outage_each_run_that_was_due_is_emitted_once(transport: Transport) -> None:
    wheel = wheel_on(transport)
    # The last owner emitted the first and had made the second durable.
    first = row(150, more=5)
    wheel.read([first, following(first)], BUCKET_END)
    await step(wheel, 900)
    await acknowledge_all(transport, wheel, 900)
    assert sorted(transport.emitted()) == [row(150 + n * INTERVAL_MS).key for n in range(6)]


async def test_the_wheel_calls_for_a_step_while_more_of_an_emission_is_to_come(transport: Transport) -> None:
    calls: list[int] = []
    wheel = wheel_on(transport, progress=lambda: calls.append(len(wheel)))
    behind, up_to_date = row(150, more=1), row(199, "other", more=1)
    wheel.read([behind, up_to_date], BUCKET_END)
    await step(wheel, 200)
    transport.acknowledge(transport.sent[0])
    transport.saved(transport.saving[0])
    await settle()
    assert sent(transport) == [following(behind).key], "it is late too, and not acknowledged"
    assert calls == [1], "what follows upon the other is due soon"


async def test_what_follows_behind_the_cursor_counts_for_what_may_be_stored(transport: Transport) -> None:
    """Its ready offset must not be stored with a cursor at which the next owner would read its row again."""
    wheel = wheel_on(transport)
    first = row(150, more=1)
    wheel.read([first, row(152, "other")], BUCKET_END)
    await step(wheel, 150)
    await step(wheel, 200)  # with the other row, leads the cursor beyond the run that follows
    transport.saved(transport.saving[0])
    transport.acknowledge(transport.sent[0])
    await settle()
    other, late = transport.sent
    assert late.keys == [following(first).key]
    transport.acknowledge(late)
    await settle()
    assert wheel.cursor_ms <= 150
    assert wheel.ready[Priority.NORMAL] == 0
    transport.acknowledge(other)
    await settle()
    assert wheel.cursor_ms == 201
    assert wheel.ready[Priority.NORMAL] == 3


async def test_what_follows_is_emitted_once_when_a_page_brings_it_first(transport: Transport) -> None:
    wheel = wheel_on(transport)
    parent = row(150, more=1)
    wheel.read([parent], (152, "", 0, 0))
    await step(wheel, 150)
    # It is durable, and its row is read, while the brokers are away.
    wheel.read([following(parent)], BUCKET_END)
    await step(wheel, 200)
    transport.saved(transport.saving[0])
    await acknowledge_all(transport, wheel, 200)
    assert transport.emitted() == [parent.key, following(parent).key]


async def test_a_row_waits_for_its_submission_to_be_read_again(transport: Transport) -> None:
    """The last owner made it durable, and died before the submission was satisfied."""
    wheel = wheel_on(transport, submissions=5)
    unsatisfied = row(150, submission=7)
    wheel.read([row(140, "satisfied", submission=4), unsatisfied], BUCKET_END)
    await step(wheel, 200)
    assert sent(transport) == [row(140, "satisfied").key]
    await acknowledge_all(transport, wheel, 200)
    wheel.admit([unsatisfied], 8)
    await acknowledge_all(transport, wheel, 200)
    assert transport.emitted() == [row(140, "satisfied").key, unsatisfied.key]
    assert wheel.submissions == 8


async def test_a_row_that_is_admitted_while_its_page_is_read_is_not_missed(transport: Transport) -> None:
    wheel = wheel_on(transport)
    wheel.reading_until_ms = BUCKET_END[0]
    wheel.admit([row(150, submission=1)], 2)
    await step(wheel, 200)
    assert not transport.sent  # rows before it may be in the page
    wheel.reading_until_ms = 0
    wheel.read([], BUCKET_END)
    await step(wheel, 200)
    assert sent(transport) == [row(150).key]


async def test_rows_beyond_the_page_do_not_fill_the_heap(transport: Transport) -> None:
    wheel = wheel_on(transport)
    wheel.reading_until_ms = BUCKET_END[0]
    many = [row(500, f"{n:03}", submission=1) for n in range(100)]
    wheel.admit(many, 2)
    wheel.reading_until_ms = 0
    page = [row(150, f"{n}") for n in range(3)]
    wheel.read(page, page[-1].position)
    assert len(wheel) == 3
    wheel.read(many, BUCKET_END)
    assert len(wheel) == 103


async def test_one_attempt_that_was_asked_for_twice_is_emitted_once(transport: Transport) -> None:
    wheel = wheel_on(transport)
    retry = ScheduledRun(
        emit_ms=300, run_id="a@1", attempt=2, priority=Priority.LOW, submission=1, run=b"", definition=None
    )
    again = ScheduledRun(
        emit_ms=310, run_id="a@1", attempt=2, priority=Priority.LOW, submission=2, run=b"", definition=None
    )
    wheel.read([], BUCKET_END)
    wheel.admit([retry, again], 3)
    await acknowledge_all(transport, wheel, 400)
    assert transport.emitted() == [("a@1", 2)]
    assert wheel.submissions == 3


async def test_closing_waits_for_acknowledgements(transport: Transport) -> None:
    wheel = wheel_on(transport)
    wheel.read([row(150)], BUCKET_END)
    await step(wheel, 150)
    closing = asyncio.create_task(wheel.close(60))
    await settle()
    assert not closing.done()
    transport.acknowledge(transport.sent[0])
    await closing
    assert wheel.cursor_ms == 151


@pytest.mark.parametrize("read_until_ms", [150, 300])
@pytest.mark.parametrize("saved_late", [False, True])
async def test_a_row_that_is_to_come_again_comes_again(
    transport: Transport, read_until_ms: int, saved_late: bool
) -> None:
    """Whether its later time has been read already or not, and however long it takes to make it durable."""
    later = replace(row(140), emit_ms=200)

    def judge(judged: ScheduledRun, now_ms: int) -> Judged:
        return Judged(True) if judged.emit_ms == 200 else Judged(False, following=later)

    transport.judge = judge  # type: ignore[method-assign, assignment]
    wheel = wheel_on(transport)
    wheel.read([row(140)], (read_until_ms, "", 0, 0))
    await step(wheel, 145)
    if saved_late:
        wheel.read([] if read_until_ms > 200 else [later], BUCKET_END)
        await step(wheel, 250)
    transport.saved(transport.saving[0])
    await settle()
    if not saved_late and read_until_ms < 200:
        wheel.read([later], BUCKET_END)
    await acknowledge_all(transport, wheel, 250)
    assert transport.emitted() == [later.key]
    assert wheel.cursor_ms == 251


async def test_very_many_that_are_left_out_are_told_in_pieces(transport: Transport) -> None:
    rows = [row(150, f"job-{number}") for number in range(7)]
    told: list[int] = []

    def judge(judged: ScheduledRun, now_ms: int) -> Judged:
        return Judged(False, events=(cast(RunEvent, judged.key),) * (EVENTS_MAX // 2))

    async def publish(rows: Sequence[ScheduledRun], events: Sequence[RunEvent]) -> Sequence[Placed]:
        told.append(len(events))
        return ()

    transport.judge, transport.publish = judge, publish  # type: ignore[method-assign, assignment]
    wheel = wheel_on(transport)
    wheel.read(rows, BUCKET_END)
    await step(wheel, 160)
    assert told == [EVENTS_MAX] * 3 + [EVENTS_MAX // 2]
    assert wheel.rounds == len(told)
    assert wheel.cursor_ms == 161


async def test_what_was_sent_before_is_waited_for_and_nothing_else(transport: Transport) -> None:
    wheel = wheel_on(transport)
    wheel.read([row(110, "a"), row(120, "b")], BUCKET_END)
    await step(wheel, 110)
    waiting = asyncio.create_task(wheel.acknowledged())
    await step(wheel, 120)
    first, second = transport.sent
    assert not waiting.done()
    transport.acknowledge(first)
    await settle()
    assert waiting.done()
    transport.acknowledge(second)
