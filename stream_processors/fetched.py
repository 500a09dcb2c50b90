"""Records as aiokafka fetches them, whatever their headers are called.

Kafka takes any bytes for the name of a header. aiokafka fails at one that is no UTF-8, and would at each attempt to read on: one such
record would keep its partition, and all others of its reader, from ever being read again. So a batch that its quick reader fails
at is read anew by its slow one, with names in which such bytes are written out: `caf\\xe9`.
"""

import struct
from collections.abc import Iterator
from typing import Any, Self

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

#: How a batch begins: its first offset, and the length of what follows.
_HEAD = struct.Struct(">qi")


def read_any_header() -> None:
    """Have all consumers of this process do so."""
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
        done = 0
        try:
            for record in self._batch:
                yield record
                done += 1
        except UnicodeDecodeError:
            slow = iter(_DefaultRecordBatchPy(self._bytes()))
            slow._buffer = _Lenient(slow._buffer)  # where it finds its records, unpacked
            for number, record in enumerate(slow):
                if number >= done:
                    yield record

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
