"""Batches as Kafka keeps them, with headers whose names are no UTF-8."""

from itertools import chain

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchBuilderPy
from aiokafka.structs import TopicPartition

from stream_processors.fetched import Fetched


class LatinName(str):
    """A name that is written in Latin-1, as other clients may."""

    __slots__ = ()

    def encode(self, encoding: str = "", errors: str = "strict") -> bytes:
        return super().encode("latin-1")


def batch(first: int, names: list[str], compression: int = 0) -> bytes:
    """Records with such a header each."""
    builder = _DefaultRecordBatchBuilderPy(2, compression, 0, -1, -1, -1, 1 << 20)
    for number, name in enumerate(names):
        builder.append(number, 1700000000000, b"key", b"value", [("same", b"1"), (name, None)])
    data = builder.build()
    data[0:8] = first.to_bytes(8)  # as the broker does
    return bytes(data)


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
    records = PartitionRecords(
        TopicPartition("topic", 0), Fetched(data), [], 11, None, None, True, READ_COMMITTED
    )
    read = list(records)
    assert [(record.offset, record.key, record.value) for record in read] == [
        (offset, b"key", b"value") for offset in range(11, 17)
    ]
    assert list(chain.from_iterable(record.headers for record in read))[1::2] == [
        (name, None) for name in ("plain", "plain", "caf\\xe9", "plain", "\\xff", "caf\xe9")
    ]
    assert records.next_fetch_offset == 17
