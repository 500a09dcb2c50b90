"""The output store: what `write` returned can be read, whatever failed before or after it."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import fastavro
import pytest

from consumers.output_store import SHARED_LENGTH_MAX, OutputNotStored, OutputWriter, delete_outputs
from dueline.clock import ManualClock
from dueline.errors import NotFound, UndecodableRecord
from dueline.outputs import read_output
from dueline.runs import Output
from dueline.states import AttemptState

HOUR_MS = 3_600_000


def output(number: int, stdout: bytes = b"hello\n") -> Output:
    return Output(
        run_id=f"job-{number}@{number}",
        attempt=1,
        state=AttemptState.SUCCEEDED,
        started_ms=number,
        ended_ms=number + 1,
        exit_status=0,
        result='{"n": 1}',
        stdout=stdout,
        stderr=b"\xff\x00",
        bytes_dropped=3,
    )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_700_000_000_000)


@pytest.fixture
async def writer(tmp_path: Path, clock: ManualClock) -> AsyncIterator[OutputWriter]:
    writer = OutputWriter(tmp_path, "host-1", clock)
    yield writer
    await writer.close()


async def test_an_output_is_read_back_whole(writer: OutputWriter, tmp_path: Path) -> None:
    address = await writer.write(output(1))
    assert address.startswith("2023-11-14/22/host-1-1.avro@")
    assert read_output(tmp_path, address) == output(1)


async def test_outputs_written_at_once_share_few_syncs(
    writer: OutputWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await writer.write(output(0))
    syncs: list[int] = []
    sync = os.fdatasync

    def count(fd: int) -> None:
        syncs.append(fd)
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", count)
    addresses = await asyncio.gather(*(writer.write(output(n)) for n in range(100)))
    assert [read_output(tmp_path, address) for address in addresses] == [output(n) for n in range(100)]
    assert len(syncs) == 1


async def test_any_avro_tool_reads_the_files(writer: OutputWriter, tmp_path: Path) -> None:
    await asyncio.gather(*(writer.write(output(n)) for n in range(5)))
    (file,) = tmp_path.rglob("*.avro")
    with file.open("rb") as source:
        assert [record["run_id"] for record in fastavro.reader(source)] == [f"job-{n}@{n}" for n in range(5)]  # type: ignore[call-overload, index]


async def test_a_large_output_has_a_file_of_its_own(writer: OutputWriter, tmp_path: Path) -> None:
    large = output(2, os.urandom(SHARED_LENGTH_MAX))
    addresses = await asyncio.gather(*map(writer.write, (output(1), large, output(3))))
    files = [address.partition("@")[0] for address in addresses]
    assert files[0] == files[2] != files[1]
    assert read_output(tmp_path, addresses[1]) == large


async def test_each_hour_has_its_file(writer: OutputWriter, tmp_path: Path, clock: ManualClock) -> None:
    first = await writer.write(output(1))
    clock.advance(HOUR_MS)
    second = await writer.write(output(2))
    assert second.startswith("2023-11-14/23/")
    assert [read_output(tmp_path, address) for address in (first, second)] == [output(1), output(2)]


@pytest.mark.parametrize("failing", ["write", "fdatasync"])
async def test_a_full_disk_fails_the_group_and_harms_no_other(
    writer: OutputWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    before = await writer.write(output(0))
    write = os.write

    def write_a_part(fd: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data[: len(data) // 2])

    def fail_to_sync(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, {"write": write_a_part, "fdatasync": fail_to_sync}[failing])
        results = await asyncio.gather(*(writer.write(output(n)) for n in (1, 2)), return_exceptions=True)
    assert all(isinstance(result, OutputNotStored) for result in results)
    assert "free space" in str(results[0])

    after = await writer.write(output(3))
    assert [read_output(tmp_path, address) for address in (before, after)] == [output(0), output(3)]
    for file in tmp_path.rglob("*.avro"):
        with file.open("rb") as source:
            assert len(list(fastavro.reader(source))) == 1


async def test_a_file_that_can_not_even_be_closed_harms_no_other(
    writer: OutputWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await writer.write(output(0))
    close, fdatasync = os.close, os.fdatasync

    def fail_behind(call: Callable[[int], None]) -> Callable[[int], None]:
        def fail(fd: int) -> None:
            call(fd)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        return fail

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail_behind(fdatasync))
        patch.setattr(os, "close", fail_behind(close))
        with pytest.raises(OutputNotStored):
            await writer.write(output(1))
    assert read_output(tmp_path, await writer.write(output(2))) == output(2)


async def test_an_executor_id_that_is_taken_overwrites_nothing(
    writer: OutputWriter, tmp_path: Path, clock: ManualClock
) -> None:
    address = await writer.write(output(1))
    second = OutputWriter(tmp_path, "host-1", clock)
    with pytest.raises(OutputNotStored):
        await second.write(output(2))
    await second.close()
    assert read_output(tmp_path, address) == output(1)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "../secret.avro@0",
        "/etc/passwd@0",
        "2023-11-14/22/../../../secret.avro@0",
        "2023-11-14/22/.hidden.avro@0",
        "2023-11-14/22/a/b.avro@0",
        "2023-11-14/22/host-1-1.avro",
        "2023-11-14/22/host-1-1.avro@-1",
        "2023-11-14/22/host-1-1.avro@1\n",
        "2023-11-14/22/missing.avro@1",
    ],
)
def test_an_address_that_leads_nowhere_or_outside_is_not_found(tmp_path: Path, address: str) -> None:
    with pytest.raises(NotFound):
        read_output(tmp_path, address)


async def test_an_offset_at_which_no_block_begins_is_refused(writer: OutputWriter, tmp_path: Path) -> None:
    path, _, offset = (await writer.write(output(1))).partition("@")
    for wrong in (int(offset) + 1, int(offset) - 1, 10**9):
        with pytest.raises(UndecodableRecord):
            read_output(tmp_path, f"{path}@{wrong}")


async def test_a_byte_before_a_block_is_not_taken_for_its_count(writer: OutputWriter, tmp_path: Path) -> None:
    await writer.write(output(1))
    path, _, offset = (await writer.write(output(2))).partition("@")
    data = bytearray((tmp_path / path).read_bytes())
    data[int(offset) - 1] = (
        0x82  # with the count behind it, the number 129; sizes and marks are as they should be
    )
    (tmp_path / path).write_bytes(data)
    with pytest.raises(UndecodableRecord):
        read_output(tmp_path, f"{path}@{int(offset) - 1}")
    assert read_output(tmp_path, f"{path}@{offset}") == output(2)


def test_an_executor_id_that_is_no_file_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="executor id"):
        OutputWriter(tmp_path, "../evil")


async def test_outputs_of_hours_that_are_over_are_deleted(
    writer: OutputWriter, tmp_path: Path, clock: ManualClock
) -> None:
    (tmp_path / "2023-11-14" / "notes").mkdir(parents=True)
    addresses = []
    for hour in range(3):  # 22:13, 23:13, and the next day
        addresses.append(await writer.write(output(hour)))
        clock.advance(HOUR_MS)
    hour_begins_ms = clock.now_ms() // HOUR_MS * HOUR_MS
    delete_outputs(tmp_path, hour_begins_ms - 2 * HOUR_MS)
    assert read_output(tmp_path, addresses[1]) == output(1)
    with pytest.raises(NotFound):
        read_output(tmp_path, addresses[0])
    delete_outputs(tmp_path, hour_begins_ms)
    left = sorted(each.name for each in tmp_path.rglob("*"))
    assert left == ["2023-11-14", "2023-11-15", "notes"], "an hour may begin in the present day"
    delete_outputs(tmp_path, hour_begins_ms + 24 * HOUR_MS)
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["2023-11-14", "notes"]
