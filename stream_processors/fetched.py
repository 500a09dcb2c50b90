"""Records as aiokafka fetches them, whatever Kafka took.

Kafka takes any bytes for the name of a header, and some batches that can't be unpacked. aiokafka fails at them, and would at each attempt
to read on: one such record would keep its partition, and all others of its reader, from ever being read again. So a batch that its
quick reader fails at is read anew by its slow one, with names in which bytes that are no UTF-8 are written out: `caf\\xe9`. What can't be read
that way either is a record without key and value, which says so in a header, and is rejected as any that is wrong.
"""

import logging
import struct
from collections.abc import Callable, Iterator
from typing import Any, Self

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.memory_records import MemoryRecords

log = logging.getLogger(__name__)

#: The header that says why a record could not be read.
UNREADABLE = "dueline-unreadable"
#: How a batch begins: its first offset, and the length of what follows.
_HEAD = struct.Struct(">qi")


def read_whatever_was_taken() -> None:
    """Have all consumers of this process read like this."""
    fetcher.MemoryRecords = Fetched


class Fetched:
    """The batches that one request brought of a partition; as aiokafka's own, of which it makes use."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._batches: Any = MemoryRecords(data)
        self.has_next = self._batches.has_next
        self.size_in_bytes = self._batches.size_in_bytes

    def next_batch(self) -> "_Batch":
        return _Batch(self._batches.next_batch(), self._data)


class _Batch:
    def __init__(self, batch: Any, data: bytes) -> None:
        self._batch = batch
        self._data = data
        self._records = self._read()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return next(self._records)

    def _read(self) -> Iterator[Any]:
        offset = self._batch.base_offset
        why = ""
        readers: tuple[Callable[[], Any], ...] = (lambda: self._batch, self._slow_reader)
        for reader in readers:
            try:
                for record in reader():
                    if record.offset >= offset:
                        offset = record.offset + 1
                        yield record
            except MemoryError:
                raise
            except Exception as error:
                why = repr(error)
            else:
                return
        log.error(
            "offsets %d to %d: %s", offset, self.next_offset - 1, why, extra={"action": "unreadable_batch"}
        )
        headers = [(UNREADABLE, why.encode())]
        for lost in range(offset, self.next_offset):
            yield _DefaultRecordPy(lost, self.max_timestamp, self.timestamp_type, None, None, headers)

    def _slow_reader(self) -> Any:
        reader = iter(_DefaultRecordBatchPy(self._bytes()))
        reader._buffer = _Lenient(reader._buffer)  # where it finds its records, unpacked
        return reader

    def _bytes(self) -> bytearray:
        """This batch as it was fetched."""
        begin = 0
        while True:
            base_offset, length = _HEAD.unpack_from(self._data, begin)
            end = begin + _HEAD.size + length
            if base_offset == self._batch.base_offset:
                return bytearray(self._data[begin:end])
            begin = end


class _Lenient(bytearray):
    """Bytes of which a part can always be read as text."""

    def __getitem__(self, which: Any) -> Any:
        part = super().__getitem__(which)
        return part if isinstance(part, int) else _Lenient(part)

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)
