"""A session with Cassandra for asyncio: prepared statements, batches, a limit on what is under way.

The driver reports each answer on its own thread and swallows what a callback raises. Answers are gathered in a deque
and the event loop is woken once a burst.
"""

import asyncio
from collections import deque, namedtuple
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from cassandra import (
    ConsistencyLevel,
    DriverException,
    OperationTimedOut,
    ReadFailure,
    ReadTimeout,
    WriteFailure,
    WriteTimeout,
)
from cassandra import Unavailable as NotEnoughReplicas
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
from cassandra.policies import ConstantReconnectionPolicy, DCAwareRoundRobinPolicy, TokenAwarePolicy
from cassandra.query import BatchStatement, BatchType, PreparedStatement

from dueline.errors import Unavailable
from infra.settings import Settings
from infra.statements import Statement

#: What passes by itself: the statement may be sent again, since all are idempotent.
PASSING = (
    NoHostAvailable,
    NotEnoughReplicas,
    OperationTimedOut,
    ReadFailure,
    ReadTimeout,
    Unavailable,
    WriteFailure,
    WriteTimeout,
)
#: More requests under way bring no more throughput and only queue inside Cassandra.
UNDER_WAY_MAX = 192
#: Rows in one batch to one partition: beyond about this many a batch gains nothing more. And bytes of values in one:
#: Cassandra refuses a mutation of half a commit log segment, 16 MiB, and a row of ours stays below 1 MB.
BATCH_ROWS_MAX, BATCH_BYTES_MAX = 64, 1_000_000
#: Partitions that share a batch where each gets few rows, and bytes of values in it: Cassandra warns of more than ten, and of more
#: than 5 KiB with what it adds. A request of its own for each would cost the two of us more than the rows.
SHARING_MAX, SHARED_BYTES_MAX = 10, 3_000

Call = tuple[Statement, Sequence[Any]]
_WITH_LENGTH = (bytes, str)


class Session:
    """Runs the platform's statements. Made by `connect`, inside a running event loop, after any fork."""

    def __init__(self, cluster: Cluster, session: Any, prepared: dict[Statement, PreparedStatement]) -> None:
        self._cluster = cluster
        self._session = session
        self._prepared = prepared
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(UNDER_WAY_MAX)
        self._answers: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._waking = False

    async def run(self, statement: Statement, *values: Any) -> list[Any]:
        """The rows that one statement answers with."""
        return await self._send(self._prepared[statement].bind(values))

    async def write(self, homes: Iterable[Sequence[Call]]) -> None:
        """Write rows, given for each of their partitions, in unlogged batches."""
        await _together(self._send(self._batch(calls)) for calls in batches_of(homes))

    async def close(self) -> None:
        await asyncio.to_thread(self._cluster.shutdown)

    def _batch(self, calls: Sequence[Call]) -> Any:
        if len(calls) == 1:
            statement, values = calls[0]
            return self._prepared[statement].bind(values)
        batch = BatchStatement(batch_type=BatchType.UNLOGGED)
        for statement, values in calls:
            batch.add(self._prepared[statement].bind(values))
        batch.is_idempotent = True
        return batch

    async def _send(self, bound: Any) -> list[Any]:
        async with self._slots:
            waiter: asyncio.Future[Any] = self._loop.create_future()
            answer = self._session.execute_async(bound)
            answer.add_callbacks(
                callback=lambda rows: self._answered(waiter, rows, None),
                errback=lambda error: self._answered(waiter, None, error),
            )
            return await waiter or []

    def _answered(self, waiter: "asyncio.Future[Any]", rows: Any, error: BaseException | None) -> None:
        self._answers.append((waiter, rows, error))
        if not self._waking:
            self._waking = True
            self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._waking = False
        while self._answers:
            waiter, rows, error = self._answers.popleft()
            if waiter.done():  # cancelled while it waited
                continue
            if error is None:
                waiter.set_result(rows)
            else:
                waiter.set_exception(error)


async def connect(settings: Settings, statements: Iterable[Statement] = Statement) -> Session:
    """A session with statements prepared. Raises Unavailable when Cassandra does not answer."""

    def work() -> tuple[Cluster, Any, dict[Statement, PreparedStatement]]:
        cluster = _cluster(settings)
        with _said_plainly(cluster, settings):
            session = cluster.connect(settings.keyspace)
            session.default_fetch_size = None  # answers come whole: every statement bounds its own
            return cluster, session, {s: _prepare(session, s) for s in statements}

    return Session(*await asyncio.to_thread(work))


def ensure_tables(settings: Settings) -> None:
    """Create the keyspace and the tables that are missing. Raises Unavailable when Cassandra does not answer."""
    script = (Path(__file__).parent / "tables.cql").read_text("utf-8")
    script = script.format(keyspace=settings.keyspace, replication=settings.replication)
    script = "\n".join(line for line in script.splitlines() if not line.lstrip().startswith("--"))
    cluster = _cluster(settings)
    with _said_plainly(cluster, settings):
        session = cluster.connect()
        for statement in filter(str.strip, script.split(";")):
            session.execute(statement, timeout=60)
    cluster.shutdown()


def batches_of(homes: Iterable[Sequence[Call]]) -> Iterator[Sequence[Call]]:
    """The calls for each partition in batches of its own, but where they are few: those share one."""
    sharing: list[Call] = []
    count = size = 0
    for home in homes:
        for calls, length in _pieces_of(home):
            if len(calls) > SHARING_MAX or length > SHARED_BYTES_MAX:
                yield calls
                continue
            if count == SHARING_MAX or size + length > SHARED_BYTES_MAX:
                yield sharing
                sharing, count, size = [], 0, 0
            sharing += calls
            count, size = count + 1, size + length
    if sharing:
        yield sharing


def _pieces_of(calls: Sequence[Call]) -> Iterator[tuple[Sequence[Call], int]]:
    """The calls for one partition in order, in pieces that fit one batch each, with the bytes of their values."""
    begin, size = 0, 0
    for end, (_, values) in enumerate(calls):
        length = sum([len(value) for value in values if isinstance(value, _WITH_LENGTH)])
        if end > begin and (end - begin >= BATCH_ROWS_MAX or size + length > BATCH_BYTES_MAX):
            yield calls[begin:end], size
            begin, size = end, 0
        size += length
    if begin < len(calls):
        yield calls[begin:], size


async def _together(writes: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Await all; when one fails, still wait for the others before raising, so that nothing is left under way."""
    results = await asyncio.gather(*writes, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def _cluster(settings: Settings) -> Cluster:
    profile = ExecutionProfile(
        load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy()),
        consistency_level=ConsistencyLevel.LOCAL_QUORUM,
        serial_consistency_level=ConsistencyLevel.LOCAL_SERIAL,
        row_factory=_rows,
        request_timeout=10,
    )
    hosts = [host.rpartition(":") for host in settings.cassandra.split(",")]
    return Cluster(
        [host for host, _, _ in hosts],
        port=int(hosts[0][2]),
        protocol_version=5,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        # A server that comes back is to be used at once; the driver's default backs off to ten minutes.
        reconnection_policy=ConstantReconnectionPolicy(1.0, max_attempts=None),
        connect_timeout=5,
    )


def _rows(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[Any]:
    """Rows as named tuples. The driver's own factory makes a new class for each answer, which costs more than the rows."""
    row_class = _row_class(tuple(columns))
    return [row_class(*row) for row in rows]


@lru_cache(maxsize=256)  # one for each statement
def _row_class(columns: tuple[str, ...]) -> Callable[..., Any]:
    # Conditional writes answer with a column "[applied]".
    return namedtuple("Row", [column.strip("[]") for column in columns])


def _prepare(session: Any, statement: Statement) -> PreparedStatement:
    prepared: PreparedStatement = session.prepare(statement.value)
    prepared.is_idempotent = True
    return prepared


@contextmanager
def _said_plainly(cluster: Cluster, settings: Settings) -> Iterator[None]:
    try:
        yield
    except (DriverException, NoHostAvailable) as error:
        cluster.shutdown()
        raise Unavailable(
            f"Cassandra does not answer at {settings.cassandra}, or its keyspace {settings.keyspace} is not made: "
            f"{error}; is it up? (make up)"
        ) from error
