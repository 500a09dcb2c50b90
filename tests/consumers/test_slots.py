"""The slots: whatever a run does, it ends in the right outcome, nothing of it lives on, and the next run is not harmed."""

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from consumers.slots import Outcome, SlotPool
from dueline.errors import Unavailable
from dueline.frames import OUTPUT_LENGTH_MAX
from dueline.runs import ReadyRun
from dueline.states import AttemptState
from tests.consumers.helpers import CLASSES, PROTECTIONS, new_marker, perform, pids_with, ready

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(
    loop_scope="module",
    scope="module",
    params=PROTECTIONS,
    ids=lambda protection: protection.name.lower(),
)
async def pool(request: pytest.FixtureRequest) -> AsyncIterator[SlotPool]:
    pool = SlotPool(2, [CLASSES], protection=request.param)
    assert {"command", "http", "noop"} < set(await pool.start())
    assert await pool.protection is request.param
    yield pool
    await pool.close()


async def test_a_function_gets_its_run_and_gives_its_result_and_output(pool: SlotPool) -> None:
    outcome = await perform(pool, ready("tell", city="Zürich"))
    assert (outcome.state, outcome.error) == (AttemptState.SUCCEEDED, "")
    assert json.loads(outcome.result) == {
        "run_id": "job@1700000000000",
        "job_id": "job",
        "attempt": 2,
        "due": "2023-11-14T22:13:20+00:00",
        "params": {"city": "Zürich"},
        "timeout_s": 60,
        "time_left": True,
        "name": "a name",
        "priority": "high",
        "folder": str(Path.cwd()),
        "children": True,
    }
    assert (outcome.stdout, outcome.stderr) == (b"to stdout, buffered", b"from a child\n")
    assert outcome.exit_status is None
    assert 0 < outcome.started_ms <= outcome.ended_ms


async def test_an_exception_fails_the_attempt_and_its_trace_is_kept(pool: SlotPool) -> None:
    outcome = await perform(pool, ready("raise"))
    assert outcome.state is AttemptState.FAILED
    assert outcome.reason == "KeyError: 'no such thing'"
    assert "in raise_\n" in outcome.error
    assert "/dueline/slot.py" not in outcome.error
    assert "/dueline/attempt.py" not in outcome.error
    assert outcome.stdout == b"before\n"


async def test_a_foreseen_failure_needs_no_trace(pool: SlotPool) -> None:
    outcome = await perform(pool, ready("foreseen"))
    assert (outcome.state, outcome.error) == (AttemptState.FAILED, "the shop is closed")


@pytest.mark.parametrize(
    ("params", "final", "retry_ms"),
    [({}, True, None), ({"retry_at_ms": 5_000}, False, 5_000), ({"retry_at_ms": -5_000}, False, 0)],
)
async def test_a_failure_may_say_what_is_to_follow(
    pool: SlotPool, params: dict[str, Any], final: bool, retry_ms: int | None
) -> None:
    outcome = await perform(pool, ready("wish", **params))
    assert (outcome.state, outcome.final, outcome.retry_ms) == (AttemptState.FAILED, final, retry_ms)


async def test_an_error_that_is_no_text_is_told_with_escapes(pool: SlotPool) -> None:
    outcome = await perform(pool, ready("no-text"))
    assert (outcome.state, outcome.reason) == (
        AttemptState.FAILED,
        "FileNotFoundError: no file caf\\udce9",
    )


async def test_sys_exit_is_a_failure_and_ends_no_slot(pool: SlotPool) -> None:
    outcome = await perform(pool, ready("sys-exit"))
    assert (outcome.state, outcome.reason) == (AttemptState.FAILED, "SystemExit: 0")


async def test_a_coroutine_function_is_awaited_and_what_it_leaves_is_cancelled(pool: SlotPool) -> None:
    for _ in range(3):
        outcome = await perform(pool, ready("async"))
        assert outcome.state is AttemptState.SUCCEEDED, outcome.error
        assert json.loads(outcome.result)["left"] is False
        assert (outcome.stdout, outcome.stderr) == (b"cancelled\n", b"")


@pytest.mark.parametrize(
    ("what", "reason", "final"),
    [
        ("raise", "KeyError: 'no such thing'", False),
        ("fail", "the shop is closed", True),
        ("exit", "SystemExit: 0", False),
        ("cancel", "asyncio.exceptions.CancelledError", False),
    ],
)
async def test_a_coroutine_function_fails_as_any_other(
    pool: SlotPool, what: str, reason: str, final: bool
) -> None:
    outcome = await perform(pool, ready("async", what=what))
    assert (outcome.state, outcome.reason, outcome.final) == (AttemptState.FAILED, reason, final)
    assert (outcome.stdout, outcome.stderr) == (b"cancelled\n", b"")
    if what != "fail":
        assert outcome.error.splitlines()[1].endswith(", in async_")


@pytest.mark.parametrize("what", ["await", "await a thread", "compute", "compute beside", "swallow"])
async def test_at_its_timeout_a_coroutine_function_is_cancelled_or_interrupted(
    pool: SlotPool, what: str
) -> None:
    outcome = await perform(pool, ready("async", timeout_s=0.2, what=what))
    assert (outcome.state, outcome.reason) == (AttemptState.TIMED_OUT, "timed out after 0.2 s")
    assert outcome.stdout == b"cancelled\n"
    if what != "swallow":
        assert "in async_\n" in outcome.error  # where it stood


async def test_an_unknown_class_is_answered_with_those_there_are(pool: SlotPool) -> None:
    outcome = await perform(pool, ready("backup"))
    assert outcome.state is AttemptState.FAILED
    assert "no executor class 'backup'; it has async, babble, close-stdout, command" in outcome.error


@pytest.mark.parametrize("what", ["nan", "object", "surrogate", "endless"])
async def test_what_is_no_json_value_fails_with_a_clear_error(pool: SlotPool, what: str) -> None:
    outcome = await perform(pool, ready("return", what=what))
    assert outcome.state is AttemptState.FAILED
    assert "that is no JSON value" in outcome.reason


async def test_a_result_that_is_too_long_says_where_to_put_it(pool: SlotPool) -> None:
    outcome = await perform(pool, ready("return", what="long"))
    assert outcome.state is AttemptState.FAILED
    assert "store the data elsewhere" in outcome.reason


async def test_at_its_timeout_a_function_is_interrupted_and_its_output_kept(pool: SlotPool) -> None:
    outcome = await perform(pool, ready("sleep", timeout_s=0.2))
    assert (outcome.state, outcome.reason) == (AttemptState.TIMED_OUT, "timed out after 0.2 s")
    assert outcome.stdout == b"sleeping\n"
    assert "in sleep\n" in outcome.error  # where it stood


async def test_to_swallow_the_interruption_does_not_make_it_a_success(pool: SlotPool) -> None:
    outcome = await perform(pool, ready("swallow", timeout_s=0.2))
    assert outcome.state is AttemptState.TIMED_OUT


async def test_a_function_that_never_stops_is_killed_two_seconds_later(pool: SlotPool) -> None:
    began = time.monotonic()
    outcome = await perform(pool, ready("deaf", timeout_s=0.2))
    assert outcome.state is AttemptState.TIMED_OUT
    assert "killed" in outcome.reason
    assert 2.2 <= time.monotonic() - began < 10


async def test_at_its_timeout_a_program_dies_with_all_its_family(pool: SlotPool) -> None:
    marker = new_marker()
    script = f"echo part; (trap '' TERM; setsid sleep {marker} & sleep {marker}) & trap '' TERM; sleep {marker}; sleep {marker}"
    outcome = await perform(pool, ready("command", timeout_s=0.5, argv=["/bin/sh", "-c", script]))
    assert (outcome.state, outcome.stdout) == (AttemptState.TIMED_OUT, b"part\n")
    assert pids_with(marker) == []


@pytest.mark.parametrize(
    ("how", "reason", "exit_status"),
    [
        ("abort", "ended by SIGABRT", -6),
        ("exit", "exit status 3", 3),
        ("kill", "ended by SIGKILL", -9),
        ("term", "sent SIGTERM by somebody else", None),
        ("segfault", "ended by SIGSEGV", -11),
        ("close everything", "ended by itself with exit status", None),
    ],
)
async def test_a_process_that_dies_by_itself_is_a_crash(
    pool: SlotPool, how: str, reason: str, exit_status: int | None
) -> None:
    outcome = await perform(pool, ready("die", how=how))
    assert outcome.state is AttemptState.CRASHED
    assert reason in outcome.reason
    assert exit_status in (None, outcome.exit_status)
    assert (await perform(pool, ready("noop"))).state is AttemptState.SUCCEEDED


async def test_a_crash_takes_what_the_run_started_with_it(pool: SlotPool) -> None:
    marker = new_marker()
    outcome = await perform(pool, ready("leave-behind", marker=marker, then="die"))
    assert outcome.state is AttemptState.CRASHED
    assert pids_with(marker) == []


@pytest.mark.parametrize("what", ["", "progress", "progress without pause"])
async def test_a_run_that_forges_a_report_crashes(pool: SlotPool, what: str) -> None:
    outcome = await perform(pool, ready("babble", what=what))
    assert outcome.state is AttemptState.CRASHED
    assert "broke the protocol" in outcome.reason


async def test_of_many_reports_the_latest_is_heard_and_ends_up_in_the_outcome(
    pool: SlotPool, tmp_path: Path
) -> None:
    run = ready("report", values=[{"done": n} for n in range(1000)], wait_for=str(tmp_path / "word"))
    outcome, heard = await perform_heard(pool, run, '{"done":999}')
    assert (outcome.state, outcome.progress) == (AttemptState.SUCCEEDED, '{"done":999}')
    assert len(heard) <= 2


@pytest.mark.parametrize(("then", "state"), [("die", AttemptState.CRASHED), ("fail", AttemptState.FAILED)])
async def test_what_was_reported_outlives_the_attempt(
    pool: SlotPool, tmp_path: Path, then: str, state: AttemptState
) -> None:
    run = ready("report", values=["half"], wait_for=str(tmp_path / "word"), then=then)
    outcome, _ = await perform_heard(pool, run, '"half"')
    assert (outcome.state, outcome.progress) == (state, '"half"')
    outcome = await perform(pool, ready("noop"))
    assert outcome.progress == ""


async def test_a_heartbeat_is_heard_and_is_no_progress(pool: SlotPool, tmp_path: Path) -> None:
    outcome, heard = await perform_heard(pool, ready("report", wait_for=str(tmp_path / "word")), "")
    assert (outcome.state, outcome.progress, heard) == (AttemptState.SUCCEEDED, "", [""])


async def test_a_run_goes_on_from_what_an_earlier_attempt_reported(pool: SlotPool) -> None:
    outcome = await perform(pool, replace(ready("report"), progress='{"page": 7}'))
    assert (json.loads(outcome.result), outcome.progress) == ({"page": 7}, "")


async def test_a_progress_that_is_no_json_fails_where_it_is_reported(pool: SlotPool) -> None:
    outcome = await perform(pool, ready("report", values=[1], then="report nonsense"))
    assert (outcome.state, outcome.progress) == (AttemptState.FAILED, "1")
    assert "in report\n" in outcome.error
    assert "not JSON serializable" in outcome.reason


async def test_a_fork_does_not_report_for_its_run(pool: SlotPool) -> None:
    outcome = await perform(pool, ready("report-from-a-fork"))
    assert (outcome.result, outcome.progress) == ("7", "")


async def test_log_lines_and_records_of_logging_go_to_stderr(pool: SlotPool) -> None:
    for _ in range(2):
        outcome = await perform(pool, ready("log"))
        lines = outcome.stderr.decode().splitlines()
        times = [re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (.*)", line) for line in lines]
        begun = datetime.fromtimestamp(outcome.started_ms // 1000, UTC)
        assert times[0] is not None
        assert abs(datetime.fromisoformat(times[0][1]) - begun) < timedelta(seconds=10)
        assert [line[2] for line in times if line] == [
            'fetched pages=7 of="the archive" note="\\""',
            "it has 7 pages level=INFO logger=library",
            "no page level=ERROR logger=root",
        ]
        assert lines[-1] == "KeyError: 'gone'"


async def test_a_module_that_sets_up_logging_has_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.joinpath("logs.py").write_text(
        "import dueline, logging\nlogging.basicConfig(level='DEBUG', format='%(message)s!')\n"
        "@dueline.executor_class('logs')\ndef logs(run):\n    logging.debug('mine')\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    pool = SlotPool(1, ["logs"])
    await pool.start()
    assert (await perform(pool, ready("logs"))).stderr == b"mine!\n"
    await pool.close()


async def perform_heard(pool: SlotPool, run: ReadyRun, awaited: str) -> tuple[Outcome, list[str]]:
    """Perform a run that waits for a word, which it gets when a progress was heard; with all that was heard."""
    word = Path(run.params["wait_for"])
    os.mkfifo(word)
    heard: list[str] = []
    is_heard = asyncio.Event()

    def hear(progress: str) -> None:
        heard.append(progress)
        if progress == awaited:
            is_heard.set()

    task = asyncio.ensure_future(perform(pool, run, hear))
    await is_heard.wait()
    await asyncio.to_thread(word.write_bytes, b"go on")
    return await task, heard


async def test_output_is_bounded_however_much_is_written(pool: SlotPool) -> None:
    outcome = await perform(pool, ready("flood", mib=1000))
    assert outcome.state is AttemptState.SUCCEEDED
    kept = len(outcome.stdout) + len(outcome.stderr)
    assert kept == OUTPUT_LENGTH_MAX
    assert kept + outcome.bytes_dropped == (1000 << 20) + len("and stderr")


async def test_output_in_single_bytes_is_kept_whole(pool: SlotPool) -> None:
    outcome = await perform(pool, ready("trickle"))
    assert outcome.stdout == b"." * 300_000


async def test_what_a_run_closes_or_replaces_is_set_right_for_the_next(pool: SlotPool) -> None:
    both = [perform(pool, ready("close-stdout", job_id=f"{n}")) for n in range(2)]
    assert [outcome.state for outcome in await asyncio.gather(*both)] == [AttemptState.SUCCEEDED] * 2
    both = [perform(pool, ready("tell", job_id=f"{n}")) for n in range(2)]
    for outcome in await asyncio.gather(*both):
        assert (outcome.stdout, outcome.stderr) == (b"to stdout, buffered", b"from a child\n")
        assert json.loads(outcome.result)["folder"] == str(Path.cwd())
    outcome = await perform(pool, ready("sleep", timeout_s=0.2))
    assert outcome.stdout == b"sleeping\n"


async def test_what_a_run_does_to_its_process_does_not_end_it(pool: SlotPool) -> None:
    for name in ["left-child"] * 10 + ["detach"]:
        assert (await perform(pool, ready(name))).state is AttemptState.SUCCEEDED
    outcome = await perform(pool, ready("fail-at-end"))
    assert (outcome.state, "FileNotFoundError" in outcome.reason) == (AttemptState.FAILED, True)


@pytest.mark.parametrize("before", ["odd-signals", "remove-temporary"])
async def test_a_run_is_performed_as_if_none_had_been_before(pool: SlotPool, before: str) -> None:
    for name in (before,) * 4:  # in both slots
        assert (await perform(pool, ready(name))).state is AttemptState.SUCCEEDED
    late = [perform(pool, ready("command", argv=["sleep", "0.5"])) for _ in range(2)]
    false = [perform(pool, ready("command", argv=["false"])) for _ in range(2)]
    outcomes = await asyncio.gather(*late, *false)
    assert [(outcome.state, outcome.exit_status) for outcome in outcomes] == [
        *((AttemptState.SUCCEEDED, 0),) * 2,
        *((AttemptState.FAILED, 1),) * 2,
    ]


async def test_processes_of_a_run_may_be_forked_from_a_server_again_and_again(pool: SlotPool) -> None:
    for _ in range(4):
        outcome = await perform(pool, ready("fork-server"))
        assert (outcome.state, outcome.result) == (AttemptState.SUCCEEDED, "0"), outcome.error


async def test_what_a_run_leaves_behind_is_dead_when_it_ends(pool: SlotPool) -> None:
    marker = new_marker()
    outcome = await perform(pool, ready("leave-behind", marker=marker))
    assert (outcome.state, outcome.stdout) == (AttemptState.SUCCEEDED, b"left\n")
    assert pids_with(marker) == []


async def test_a_fork_that_comes_back_is_no_second_slot(pool: SlotPool) -> None:
    for _ in range(5):
        assert (await perform(pool, ready("fork-and-return"))).result == '"parent"'


async def cancel_when_it_prints(pool: SlotPool, run: ReadyRun, marker: str) -> Outcome:
    task = asyncio.ensure_future(perform(pool, run))
    while not pids_with(marker):
        await asyncio.sleep(0.01)
    assert pool.cancel(run.key, "nobody wants it")
    outcome = await task
    assert not pool.cancel(run.key, "again")
    assert pids_with(marker) == []
    return outcome


async def test_a_cancelled_run_is_ended_with_all_its_family_and_its_output_kept(pool: SlotPool) -> None:
    marker = new_marker()
    argv = ["/bin/sh", "-c", f"echo part; sleep {marker}"]
    outcome = await cancel_when_it_prints(pool, ready("command", argv=argv), marker)
    assert (outcome.state, outcome.reason) == (AttemptState.CANCELLED, "nobody wants it")
    assert outcome.stdout == b"part\n"


async def test_a_cancelled_run_that_does_not_end_is_killed(pool: SlotPool) -> None:
    marker = new_marker()
    script = f"trap '' TERM; echo part; sleep {marker}; sleep {marker}"
    outcome = await cancel_when_it_prints(pool, ready("command", argv=["/bin/sh", "-c", script]), marker)
    assert (outcome.state, outcome.reason) == (AttemptState.CANCELLED, "nobody wants it")


async def test_an_interrupted_run_is_dead_and_others_go_on(pool: SlotPool) -> None:
    marker = new_marker()
    other = asyncio.ensure_future(perform(pool, ready("sleep", job_id="other", s=0.5)))
    run = ready("leave-behind", marker=marker, s=100)
    task = asyncio.ensure_future(perform(pool, run))
    while not pids_with(marker):
        await asyncio.sleep(0.01)
    assert pool.interrupt(run.key)
    assert (await task).state is AttemptState.INTERRUPTED
    assert pids_with(marker) == []
    assert not pool.interrupt(run.key)
    assert (await other).state is AttemptState.SUCCEEDED


async def test_more_runs_than_slots_wait_their_turn(pool: SlotPool) -> None:
    outcomes = await asyncio.gather(*(perform(pool, ready("noop", job_id=f"{n}")) for n in range(200)))
    assert {outcome.state for outcome in outcomes} == {AttemptState.SUCCEEDED}


async def test_a_module_that_is_not_there_refuses_the_start() -> None:
    pool = SlotPool(2, ["no_such_module"])
    with pytest.raises(
        Unavailable, match="--import no_such_module: there is no such module; it is looked for in /"
    ):
        await pool.start()


async def test_a_module_that_fails_refuses_the_start_with_its_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.joinpath("broken_classes.py").write_text("import absent_dependency\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    with pytest.raises(Unavailable, match=r"(?s)broken_classes: it fails:.*absent_dependency"):
        await SlotPool(1, ["broken_classes"]).start()


async def test_packages_of_the_user_with_our_names_do_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("consumers", "infra", "producers", "schemas", "stream_processors"):
        tmp_path.joinpath(name).mkdir()
        tmp_path.joinpath(name, "__init__.py").write_text("raise SystemExit('the wrong package')\n")
    tmp_path.joinpath("mine.py").write_text(
        "import dueline\n@dueline.executor_class('mine')\ndef mine(run):\n    return 'mine'\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    monkeypatch.chdir(tmp_path)
    pool = SlotPool(1, ["mine"])
    assert "mine" in await pool.start()
    assert (await perform(pool, ready("mine"))).result == '"mine"'
    await pool.close()


async def test_close_drains_and_then_interrupts() -> None:
    pool = SlotPool(2, [CLASSES])
    await pool.start()
    short = asyncio.ensure_future(perform(pool, ready("sleep", job_id="short", s=0.3)))
    long = asyncio.ensure_future(perform(pool, ready("sleep", job_id="long")))
    while pool.free:
        await asyncio.sleep(0)
    await pool.close(drain_s=1)
    assert [(await short).state, (await long).state] == [AttemptState.SUCCEEDED, AttemptState.INTERRUPTED]
