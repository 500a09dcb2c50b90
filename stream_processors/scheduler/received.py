"""Records of the submissions topic as they come, and as they leave for other topics when they are not for this shard, or for none."""

import hashlib
import json
import re
from dataclasses import dataclass

from confluent_kafka import Message

from dueline.address import REJECTED, SUBMISSIONS
from dueline.codec import SUBMISSION_LENGTH_MAX, decode, decode_submission
from dueline.commands import ControlCommand
from dueline.contracts import SINGLE_OBJECT_MARK, latest
from dueline.errors import UndecodableRecord
from dueline.ids import NAME_LENGTH_MAX, is_generated, is_name
from dueline.job import Job
from infra.kafka import RECORD_LENGTH_MAX
from infra.log_reader import headers_of
from infra.publisher import Record
from infra.rejects import CUT, PLACE, REASON

#: How long a record may have been passed on for its first time to count; an outage of the platform in between.
PASSED_ON_WITHIN_MS = 24 * 3600 * 1000
#: A record that was passed on says with these headers when it first came, and from where.
FIRST_STAMP, FIRST_PLACE = "dueline-first-timestamp", "dueline-first-place"
#: A command that one for many jobs has led to says with this header where that lies; its first time is that of the other.
FOR_MANY = "dueline-for-many"
#: Behind which of its shard's jobs, in the order of the store, the reader of a command for many goes on.
BEHIND = "dueline-behind"
#: How a command begins, and what a generated id looks like until the year 2527: millions of records are told apart by it.
_CONTROL_COMMAND = latest("ControlCommand").header
_GENERATED_KEY = re.compile(rb"0[0-9a-f]{7}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
#: Bytes that the key and the headers of a record may have together, and those that are added when it is passed on.
ENVELOPE_LENGTH_MAX, ADDED_LENGTH_MAX = 64_000, 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A record of the submissions topic."""

    partition: int
    offset: int
    #: When the broker appended it.
    stamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()

    @property
    def place(self) -> str:
        return f"{SUBMISSIONS}/{self.partition}/{self.offset}"

    @property
    def first_stamp_ms(self) -> int:
        """When it was appended for the first time, if it was passed on; never later than now, nor long before."""
        return max(self.asked_ms, self.stamp_ms - PASSED_ON_WITHIN_MS)

    @property
    def asked_ms(self) -> int:
        """The same, however long before."""
        value = self.header(FIRST_STAMP)
        if value and value.isdigit() and len(value) < 16:  # anybody can send any
            return min(int(value), self.stamp_ms)
        return self.stamp_ms

    @property
    def passed_on(self) -> bool:
        return self.header(FIRST_PLACE) is not None

    @property
    def for_many(self) -> bool:
        """Whether it is what a command for many jobs asks of one of them."""
        return self.header(FOR_MANY) is not None

    @property
    def envelope_problem(self) -> str:
        """Why a record with such a key and headers is not accepted; empty if they are short enough."""
        length = len(self.key or b"") + sum(_length(header) for header in self.headers)
        if length <= ENVELOPE_LENGTH_MAX + (ADDED_LENGTH_MAX if self.passed_on else 0):
            return ""
        return (
            f"its key and headers have {length} bytes, more than {ENVELOPE_LENGTH_MAX}; "
            "put what the job needs into its params"
        )

    @property
    def is_movable(self) -> bool:
        """Whether the topics take it whole once more, with the headers that are added. Compressed by its sender, it may be far longer."""
        return (
            not self.envelope_problem
            and len(self.value or b"") <= RECORD_LENGTH_MAX - 2 * ENVELOPE_LENGTH_MAX
        )

    def header(self, name: str) -> bytes | None:
        """The first header of a name that has a value."""
        return next((value for found, value in self.headers if found == name and value is not None), None)


def received_from_log(message: Message) -> Received:
    """A record as confluent-kafka reads it."""
    return Received(
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        stamp_ms=message.timestamp()[1],
        key=message.key(),
        value=message.value(),
        headers=tuple(headers_of(message)),
    )


def readable_id(record: Received) -> str | None:
    """The id that a record which is refused was meant to have, if it can be made out."""
    value = record.value or b""
    candidate: object = None
    try:
        if value.startswith(SINGLE_OBJECT_MARK):
            candidate = decode(value)[1].get("id")
        else:
            candidate = json.loads(value)["id"]
    except (UndecodableRecord, ValueError, TypeError, KeyError, RecursionError):
        candidate = None
    if candidate is None and record.key:
        candidate = record.key.decode("utf-8", "replace")
    return (
        candidate if isinstance(candidate, str) and (is_generated(candidate) or is_name(candidate)) else None
    )


def changed_id(key: bytes | None, value: bytes) -> str | None:
    """The id of the job that a record may change, as far as it is quickly told: of a command, or of a submission with a name."""
    is_avro = value.startswith(SINGLE_OBJECT_MARK)
    if is_avro and not value.startswith(_CONTROL_COMMAND):
        # Nearly all have the id as their key, and it is generated.
        if key is not None and _GENERATED_KEY.match(key):
            return None
        text = (key or b"").decode("utf-8", "replace")
        return text if is_name(text) and not is_generated(text) else None
    try:
        submission = decode_submission(value)
    except Exception:  # it is told of when the record is read
        return None
    if isinstance(submission, ControlCommand):
        return submission.job_id
    return submission.id if isinstance(submission, Job) and not is_generated(submission.id or "") else None


def passed_on(record: Received, job_id: str, value: bytes | None) -> Record:
    """The record for the shard that its job belongs to, with the time at which it first came."""
    return Record(SUBMISSIONS, job_id.encode(), value, headers=_with_origin(record))


def spread(record: Received, shards: int) -> list[Record]:
    """A command for many jobs, for each shard: with the time at which it first came, as if passed on."""
    headers = _with_origin(record)
    return [Record(SUBMISSIONS, record.key, record.value, shard, headers) for shard in range(shards)]


def _with_origin(record: Received) -> tuple[tuple[str, bytes | None], ...]:
    own = tuple(header for header in record.headers if header[0] not in (FIRST_STAMP, FIRST_PLACE))
    marks = ((FIRST_STAMP, str(record.first_stamp_ms).encode()), (FIRST_PLACE, record.place.encode()))
    return own + marks


def rejected(record: Received, reason: str) -> Record:
    """The record for `jobs.rejected`: bytes unchanged, the reason and the source in headers."""
    key, value, headers = record.key, record.value, record.headers
    marks: list[tuple[str, bytes | None]] = [(REASON, reason.encode()), (PLACE, record.place.encode())]
    if not record.is_movable:
        # It cannot be passed on whole: its hash tells what is missing, and as long as that is kept its source.
        whole = value or b""
        marks.append((CUT, f"{len(whole)} bytes, sha256 {hashlib.sha256(whole).hexdigest()}".encode()))
        value = None if value is None else value[:SUBMISSION_LENGTH_MAX]
        if record.envelope_problem:
            key, headers = None if key is None else key[:NAME_LENGTH_MAX], ()
    return Record(REJECTED, key, value, headers=headers + tuple(marks))


def _length(header: tuple[str, bytes | None]) -> int:
    name, value = header
    return len(name.encode("utf-8", "surrogatepass")) + len(value or b"")
