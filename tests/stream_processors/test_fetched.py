"""Batches as Kafka keeps them, with headers whose names are no UTF-8."""

from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchBuilderPy
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

from stream_processors.fetched import UNREADABLE, Fetched

#: Of a batch; the records follow.
HEAD_LENGTH = 61
VALUE = bytes(300)  # or it would not be compressed


class LatinName(str):
    """A name that is written in Latin-1, as other clients may."""

    __slots__ = ()

    def encode(self, encoding: str = "", errors: str = "strict") -> bytes:
        return super().encode("latin-1")


def batch(first: int, names: list[str], compression: int = 0) -> bytes:
    """Records with such a header each."""
    builder = _DefaultRecordBatchBuilderPy(2, compression, 0, -1, -1, -1, 1 << 20)
    for number, name in enumerate(names):
        builder.append(number, 1700000000000, b"key", VALUE, [("same", b"1"), (name, None)])
    data = builder.build()
    data[0:8] = first.to_bytes(8)  # as the broker does
    return bytes(data)


def records_of(data: bytes, start: int = 0) -> Any:
    place = TopicPartition("topic", 0)
    return PartitionRecords(place, Fetched(data), [], start, None, None, True, READ_COMMITTED)


@pytest.mark.parametrize(
    "compression",
    [0, DefaultRecordBatch.CODEC_GZIP, DefaultRecordBatch.CODEC_LZ4, DefaultRecordBatch.CODEC_ZSTD],
)
def test_each_record_is_read_once_and_such_a_name_is_written_out(compression: int) -> None:
    data = b"".join(
        (
            batch(10, ["plain", "plain"], compression),
            batch(12, ["plain", LatinName("caf\xe9"), "plain", LatinName("\xff")], compression),
            batch(16, ["caf\xe9"], compression),
        )
    )
    records = records_of(data, 11)
    read = list(records)
    assert [(record.offset, record.key, record.value) for record in read] == [
        (offset, b"key", VALUE) for offset in range(11, 17)
    ]
    assert list(chain.from_iterable(record.headers for record in read))[1::2] == [
        (name, None) for name in ("plain", "plain", "caf\\xe9", "plain", "\\xff", "caf\xe9")
    ]
    assert records.next_fetch_offset == 17


@pytest.mark.parametrize(
    "damage", [lambda body: body + b"rest", lambda body: body[:-1], lambda body: b"x" + body[1:]]
)
def test_what_cannot_be_unpacked_is_told_of_in_its_place(damage: Callable[[bytes], bytes]) -> None:
    whole = batch(3, ["name"] * 3, DefaultRecordBatch.CODEC_LZ4)
    head, body = bytearray(whole[:HEAD_LENGTH]), damage(whole[HEAD_LENGTH:])
    head[8:12] = (HEAD_LENGTH + len(body) - 12).to_bytes(4)
    head[17:21] = calc_crc32c(bytes(head[21:]) + body).to_bytes(4)
    data = batch(2, ["name"]) + bytes(head) + body + batch(6, ["name"])
    read = list(records_of(data))
    assert [(record.offset, record.value) for record in read] == [
        (2, VALUE),
        *((offset, None) for offset in (3, 4, 5)),
        (6, VALUE),
    ]
    assert [name for name, _ in read[1].headers] == [UNREADABLE]
