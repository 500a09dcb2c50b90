"""The executor classes: registered code that performs runs, by name.

    from dueline import Run, executor_class

    @executor_class("greet")
    def greet(run: Run) -> dict[str, str]:
        print("hello", run.params["name"])
        return {"greeted": run.params["name"]}

A function gets the run and returns a JSON value or None. What it prints is kept; an exception fails the attempt,
and its trace is kept too. A coroutine function (`async def`) is awaited, on an event loop of its own. Names are all that a message can hold: code is registered by the modules which the
executor was told to import, never imported because a message says so.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from dueline.clock import to_ms
from dueline.errors import DuelineError
from dueline.log_lines import write_line
from dueline.progress import progress_text


def nowhere(report: str | None) -> None:
    """Where the reports of a run go that no slot performs."""


@dataclass(slots=True, kw_only=True, eq=False)
class Run:
    """The attempt that a function performs. More than a value: it is the function's link to the platform."""

    #: `<job id>@<due time in ms>`, the same for every attempt.
    run_id: str
    job_id: str
    executor_class: str
    #: Which try of the run this is, from 1.
    attempt: int
    #: The due time that the run is for; it starts at that time or later. Aware, UTC.
    due: datetime
    #: What the job gives to its executor class.
    params: Mapping[str, Any]
    #: After this time the attempt is ended.
    timeout: timedelta
    #: When that is. Aware, UTC.
    deadline: datetime
    #: What people call the job.
    name: str = ""
    #: high, normal or low.
    priority: str = "normal"
    #: What an earlier attempt of the run reported last, by `progress`: to go on from. None if none has.
    last_progress: Any = None
    #: The kinds of failure after which its job wants no other attempt.
    give_up_on: frozenset[str] = frozenset()
    #: Set by executor classes that run a program: its exit status, or the negative number of the signal that ended it.
    exit_status: int | None = None
    #: Closed after the run, when all processes that it left behind are dead: for what must not be removed before.
    at_end: ExitStack = field(default_factory=ExitStack)
    #: Takes what the run reports, as JSON text, or None for a heartbeat. Set by the slot; your own tests may do so too.
    tell: Callable[[str | None], None] = field(default=nowhere, repr=False)

    def progress(self, value: Any) -> None:
        """Report how far the run is, by any JSON value of at most 64 kB. Call it as often as you like: the latest value counts.

        The views show it, and if this attempt doesn't succeed the next one has it as `last_progress`. That is the latest value
        after a failure, a timeout or a crash, and one of some seconds ago if the executor was lost; so what was done since
        may be done twice.
        """
        self.tell(progress_text(value))

    def heartbeat(self) -> None:
        """Say that the run is alive, and no further than before."""
        self.tell(None)

    def log(self, message: object, /, **fields: object) -> None:
        """Write a line to stderr: the time, the message, and the fields as key=value."""
        write_line(message, fields)


Function = Callable[[Run], Any]
_FunctionT = TypeVar("_FunctionT", bound=Function)


class Failed(Exception):
    """Raise it to fail the attempt with this message alone: a failure that was foreseen needs no trace.

    Such a failure may know better than the job's retry policy whether and when another attempt is worth while:

        raise Failed("no such customer", retry=False)
        raise Failed("the bank is closed", retry_at=datetime.now(UTC) + timedelta(hours=8))

    It still counts as a failure: beyond the last attempt that the policy allows there is none. A `retry_at` that is past means
    at once; a naive one raises ValueError.
    """

    #: As a class of one's own may leave them.
    retry: bool = True
    retry_ms: int | None = None

    def __init__(self, message: object = "", *, retry: bool = True, retry_at: datetime | None = None) -> None:
        super().__init__(message)
        self.retry = retry
        self.retry_ms = None if retry_at is None else to_ms(retry_at)


class TimedOut(BaseException):
    """Raised within a function when its time is up. It has 2 seconds to clean up; after that its process is killed.

    A coroutine function that awaits is cancelled instead, as by `asyncio.timeout`.
    """


class DuplicateExecutorClass(DuelineError):
    """Two functions want the same name."""


_functions: dict[str, Function] = {}


def executor_class(name: str) -> Callable[[_FunctionT], _FunctionT]:
    """Register the decorated function as the executor class `name`. It stays an ordinary function."""
    if not isinstance(name, str) or not name:
        raise TypeError('executor_class needs a name: @executor_class("my-class")')

    def register(function: _FunctionT) -> _FunctionT:
        present = _functions.setdefault(name, function)
        if present is not function:
            raise DuplicateExecutorClass(
                f"executor class {name!r} is both {_place(present)} and {_place(function)}; rename one of them"
            )
        return function

    return register


def registered() -> tuple[str, ...]:
    """The names of all executor classes, sorted."""
    return tuple(sorted(_functions))


def find(name: str) -> Function:
    """The function of an executor class. Raises Failed, which names the ones there are."""
    try:
        return _functions[name]
    except KeyError:
        raise Failed(
            f"this executor has no executor class {name!r}; it has {', '.join(registered())}. "
            "Start it with --import and the module that registers the class"
        ) from None


def _place(function: Function) -> str:
    return f"{function.__module__}.{function.__qualname__}"
