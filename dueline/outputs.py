"""Where the output of an attempt lies, and how to read it.

The output store is a folder of Avro container files, written by the executors (`consumers.output_store`):

    <outputs>/<yyyy-mm-dd>/<HH>/<executor>-<number>.avro       day and hour in UTC

Each record has a block of its own, so an address, `<path below outputs>@<offset of the block>`, leads straight to it.
"""

import re
from pathlib import Path, PurePosixPath

from fastavro import block_reader

from dueline.codec import output_from_fields
from dueline.contracts import latest
from dueline.errors import NotFound, UndecodableRecord
from dueline.runs import Output

#: An executor's id is part of file names.
EXECUTOR_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")
_ADDRESS = re.compile(r"(\d{4}-\d\d-\d\d/\d\d/[A-Za-z0-9][A-Za-z0-9._-]{0,219}\.avro)@(\d{1,18})\Z", re.ASCII)


def address_of(path: PurePosixPath, offset: int) -> str:
    """The address of a block in the file at `path`, which is relative to the store's root."""
    return f"{path}@{offset}"


def read_output(root: Path, address: str) -> Output:
    """The output at an address. Raises NotFound, or UndecodableRecord if the file is damaged there."""
    match = _ADDRESS.match(address)
    if match is None:  # it may come from a forged record, and must not lead out of the store
        raise NotFound(
            f"{address!r:.300} is no address of an output; one looks like 2030-01-31/02/<executor>-1.avro@3456"
        )
    path, offset = root / match[1], int(match[2])
    try:
        with path.open("rb") as file:
            blocks = block_reader(file, latest("Output").schema)
            file.seek(offset)
            # One record a block: a count that says more was read where no block begins.
            (fields,) = next(blocks)
    except FileNotFoundError:
        raise NotFound(
            f"the output {address} is not in {root.absolute()}; it lies on the machine whose executor wrote it, "
            "unless it was deleted there for its age (DUELINE_KEEP_OUTPUTS_DAYS)"
        ) from None
    except OSError:
        raise
    except Exception as error:  # damaged bytes meet fastavro with whatever they lead to
        raise UndecodableRecord(f"there is no whole output at {address} in {root}: {error!r}") from error
    return output_from_fields(fields)  # type: ignore[arg-type]
