"""Lines of log on a run's stderr: from `Run.log`, and from the standard library's `logging`.

2030-01-31T02:00:00.123Z fetched pages=7 from="the archive"
"""

import json
import re
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime

#: What can stand as a value without quotes.
_PLAIN = re.compile(r'[^\s"=\\]+')


def write_line(message: object, fields: Mapping[str, object]) -> None:
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
    line = " ".join([f"{now}Z {message}", *(f"{name}={_value(value)}" for name, value in fields.items())])
    print(f"{line}\n", end="", file=sys.stderr)  # in one piece: threads write too


def _value(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def show_logging() -> None:
    """Have records of level INFO and above written, too, unless the user's modules have set up `logging` themselves."""
    import logging  # takes 3 ms: for slots alone that have modules of users, most of which load it anyway

    class ToStderr(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                print(f"{self.format(record)}\n", end="", file=sys.stderr)  # as it is during the run
            except Exception:
                self.handleError(record)

    if logging.root.handlers:
        return
    formatter = logging.Formatter("%(asctime)s %(message)s level=%(levelname)s logger=%(name)s")
    formatter.converter = time.gmtime
    formatter.default_time_format, formatter.default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"
    handler = ToStderr()
    handler.setFormatter(formatter)
    logging.root.addHandler(handler)
    if logging.root.level == logging.WARNING:  # as it is when nobody has chosen one
        logging.root.setLevel(logging.INFO)
