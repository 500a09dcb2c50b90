"""The output store's writing side: durable outputs, many for one fsync. `dueline.outputs` has the layout.

    write ──► waiting ──► group: one write and one fdatasync ──► addresses
    write ──►    │                        ▲
    write ──►    └── while one group is being written, the next one gathers ──┘

A lone output is written at once; under load groups begin `GROUP_PACE_S` apart.

All shards of an executor share its file: an fdatasync costs about a millisecond whatever it covers, so a file for each
shard would divide the outputs a second by five, and an address names file and offset anyway. Large outputs get
files of their own, which can be deleted without rewriting what lies beside them.

After an error a file is cut back to its last good block and never written again, because the kernel reports a
failed write-back only once and forgets the pages. So whatever a file holds can be read.
"""

import asyncio
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path, PurePosixPath

from fastavro import schemaless_writer, writer

from dueline.clock import Clock, Pace, SystemClock, from_ms
from dueline.codec import long_of, output_fields
from dueline.contracts import latest
from dueline.errors import DuelineError
from dueline.outputs import EXECUTOR_ID, address_of
from dueline.runs import Output

#: Longer ones have a file of their own.
SHARED_LENGTH_MAX = 64 << 10

#: Between the begins of two groups. An fdatasync costs the processor some 100 us, whatever it covers, and the events that
#: follow leave together. The slots of the runs are free by then.
GROUP_PACE_S = 0.025


class OutputNotStored(DuelineError):
    """An output could not be made durable: nothing that depends on it may be published."""


class OutputWriter:
    """Writes one executor's outputs. As many calls of `write` as there are slots make a group at most."""

    def __init__(self, root: Path, executor_id: str, clock: Clock | None = None) -> None:
        if not EXECUTOR_ID.match(executor_id):
            raise ValueError(f"executor id {executor_id!r} must be letters, digits and any of . _ -")
        self.root = root
        self._executor_id = executor_id
        self._clock = clock or SystemClock()
        self._pace = Pace(GROUP_PACE_S)
        self._files = 0
        self._shared: _Container | None = None
        self._waiting: list[tuple[bytes, asyncio.Future[str]]] = []
        self._committer: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outputs")

    async def write(self, output: Output) -> str:
        """Store an output; its address. It is durable when this returns. Raises OutputNotStored."""
        body = BytesIO()
        schemaless_writer(body, latest("Output").schema, output_fields(output))
        stored: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append((body.getvalue(), stored))
        if self._committer is None:
            self._committer = asyncio.create_task(self._commit_groups())
        return await stored

    async def close(self) -> None:
        """Wait for what is being written, and close the files."""
        if self._committer is not None:
            await self._committer
        await asyncio.get_running_loop().run_in_executor(self._thread, self._abandon)
        self._thread.shutdown()

    async def _commit_groups(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            await asyncio.sleep(self._pace.pause_s())
            group, self._waiting = self._waiting, []
            results = await loop.run_in_executor(self._thread, self._commit, [body for body, _ in group])
            for (_, stored), result in zip(group, results, strict=True):
                if stored.done():
                    continue  # who waited was cancelled
                if isinstance(result, str):
                    stored.set_result(result)
                else:
                    stored.set_exception(_not_stored(self.root, result))
        self._committer = None

    def _commit(self, bodies: list[bytes]) -> list[str | OSError]:
        """In the thread. For each body its address, or what stood in the way."""
        results: dict[int, str | OSError] = {}
        small = [index for index, body in enumerate(bodies) if len(body) <= SHARED_LENGTH_MAX]
        try:
            if small:
                addresses = self._container().append([bodies[index] for index in small])
                results.update(zip(small, addresses, strict=True))
        except OSError as error:
            self._abandon()
            results.update(dict.fromkeys(small, error))
        for index, body in enumerate(bodies):
            if index not in results:
                results[index] = self._commit_large(body)
        return [results[index] for index in range(len(bodies))]

    def _commit_large(self, body: bytes) -> str | OSError:
        try:
            container = self._new_container()
            try:
                return container.append([body])[0]
            finally:
                container.close()
        except OSError as error:
            return error

    def _container(self) -> "_Container":
        """The shared file of this hour."""
        if self._shared is None or self._shared.path.parent != self._folder():
            self._abandon()
            self._shared = self._new_container()
        return self._shared

    def _new_container(self) -> "_Container":
        self._files += 1
        return _Container(self.root, self._folder() / f"{self._executor_id}-{self._files}.avro")

    def _folder(self) -> PurePosixPath:
        return _folder_of(self._clock.now_ms())

    def _abandon(self) -> None:
        shared, self._shared = self._shared, None
        if shared is not None:
            with suppress(OSError):  # what it holds is durable, and it is not written again
                shared.close()


class _Container:
    """One Avro container file, to which blocks are appended."""

    def __init__(self, root: Path, path: PurePosixPath) -> None:
        self.path = path
        self._marker = os.urandom(16)
        header = BytesIO()
        writer(header, latest("Output").schema, [], sync_marker=self._marker)
        _make_folder(root / path.parent)
        self._file = root / path
        self._fd = os.open(
            self._file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644
        )
        #: Where the next block goes; up to here all is durable.
        self._end = 0
        try:
            self._append(header.getvalue())
            _sync_folder(self._file.parent)
        except OSError:
            self.close()
            raise

    def append(self, bodies: list[bytes]) -> list[str]:
        """Write each body as a block, all of them durably or none; their addresses."""
        blocks, offset, addresses = [], self._end, []
        for body in bodies:
            blocks.append(b"".join((_ONE, long_of(len(body)), body, self._marker)))
            addresses.append(address_of(self.path, offset))
            offset += len(blocks[-1])
        self._append(b"".join(blocks))
        return addresses

    def close(self) -> None:
        if self._end == 0:
            self._file.unlink(missing_ok=True)
        os.close(self._fd)

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._end)
            raise
        self._end += len(data)


def delete_outputs(root: Path, before_ms: int) -> None:
    """Delete the outputs of all hours that ended before a time, whoever wrote them. Blocking."""
    kept = _folder_of(before_ms)
    for day in root.glob("????-??-??"):
        for hour in day.glob("??"):
            if PurePosixPath(day.name, hour.name) < kept:
                shutil.rmtree(hour, ignore_errors=True)  # another executor may be at it, too
        if day.name < kept.parts[0]:  # in the others somebody may be about to write
            with suppress(OSError):
                day.rmdir()  # unless there is something in it


def _folder_of(ms: int) -> PurePosixPath:
    """Where the outputs of an hour lie."""
    return PurePosixPath(f"{from_ms(ms):%Y-%m-%d/%H}")


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it such that they survive a power loss."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


#: The number of records in a block.
_ONE = long_of(1)


def _not_stored(root: Path, error: OSError) -> OutputNotStored:
    return OutputNotStored(
        f"can't write outputs to {root.absolute()}: {error}; check its free space and permissions"
    )
