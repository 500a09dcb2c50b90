"""Where a job lives: its shard, its bucket, its topics. All that is computed of an address is computed here.

- The shard is the job's partition on every topic that is keyed by job id. It is computed as Java's clients and the
  console tools do (murmur2 of the UTF-8 key, sign masked), so that a record typed into a console lands where the
  SDK would have put it. Source: `org.apache.kafka.common.utils.Utils.murmur2`.
- The bucket is the first half of a partition key in Cassandra: minutes since the epoch for a generated id, one of
  `NAMED_BUCKETS` negative numbers for a named one.
"""

import zlib
from functools import lru_cache

from dueline.ids import REMEMBERED, generated_at_ms, is_generated
from dueline.job import Priority

SUBMISSIONS = "jobs.submissions"
CONTROL = "jobs.control"
RUNS = "jobs.runs"
REJECTED = "jobs.rejected"
EXECUTORS = "jobs.executors"
READY = {priority: f"jobs.ready.{priority.value}" for priority in Priority}

BUCKET_MS = 60_000
#: Named jobs of one shard are spread over this many partitions: at a million of them and 16 shards, 1,000 rows each.
NAMED_BUCKETS = 64


@lru_cache(REMEMBERED)
def shard_of(job_id: str, shards: int) -> int:
    """The shard of a job among `shards`, and so its partition on every topic keyed by job id."""
    return (murmur2(job_id.encode()) & 0x7FFFFFFF) % shards


def minute_of(ms: int) -> int:
    """The minute bucket of an instant, in minutes since the epoch."""
    return ms // BUCKET_MS


@lru_cache(REMEMBERED)
def bucket_of(job_id: str) -> int:
    """The bucket under which a job's row is kept."""
    if is_generated(job_id):
        return minute_of(generated_at_ms(job_id))
    return -1 - zlib.crc32(job_id.encode()) % NAMED_BUCKETS


def murmur2(data: bytes) -> int:
    """Kafka's murmur2: 32 bits, unsigned here."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    length = len(data)
    h = (0x9747B28C ^ length) & mask
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    tail = data[whole:]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15
