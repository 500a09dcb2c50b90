"""A steady stream of jobs that wait for their time, beside which a benchmark does what it does."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dueline.errors import DuelineError
from tests.bench.helper import Helper, helper
from tests.bench.meter import now_s
from tests.bench.runs_log import Ends
from tests.bench.session import Place
from tests.bench.windows import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """How much comes, and for how long."""

    rate: float
    seconds: float
    due_min_s: float
    due_max_s: float
    #: What each job does: it waits for so long.
    nap_s: float = 0.0

    def __post_init__(self) -> None:
        if self.seconds <= self.due_max_s:
            raise DuelineError(
                f"a stream of {self.seconds:g} s ends before jobs that wait up to {self.due_max_s:g} s fall due at the full "
                "rate; give it more --seconds, or a smaller --due-max"
            )

    @property
    def settle_s(self) -> float:
        """From here on, and until the stream ends, jobs fall due at the full rate."""
        return self.due_max_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A stream that goes on."""

    submitter: Helper
    #: Where the log ended before it.
    since: Ends
    begun_s: float
    #: The time in which its jobs fall due at the full rate, while it goes on.
    window: Window

    def told(self) -> dict[str, Any]:
        """What its submitter saw; waits for the end of it."""
        return self.submitter.told()


@contextmanager
def stream(place: Place, flow: Flow, seed: int) -> Iterator[Stream]:
    """Jobs are submitted and fall due, from the begin of the block on."""
    since = place.log.ends()
    arguments = {
        "--kafka": place.bed.settings.kafka,
        "--seed": seed,
        "--rate": flow.rate,
        "--seconds": flow.seconds,
        "--settle": flow.settle_s,
        "--due-min": flow.due_min_s,
        "--due-max": flow.due_max_s,
        "--nap": flow.nap_s,
    }
    with helper("tests.bench.stream", *(word for pair in arguments.items() for word in pair)) as submitter:
        submitter.go()
        begun_s = now_s()
        begin_s, end_s = begun_s + flow.settle_s, begun_s + flow.seconds
        window = Window(place=place, submitter=submitter.pid, begin_s=begin_s, end_s=end_s)
        yield Stream(submitter=submitter, since=since, begun_s=begun_s, window=window)
