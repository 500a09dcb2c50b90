"""What a job asks for beside its due times: what follows on failures, on due times that were missed, and on runs that overlap."""

import random
from dataclasses import dataclass
from enum import StrEnum

from dueline.errors import InvalidJob

ATTEMPTS_MAX = 100
BACKOFF_MAX_S = 24 * 3600.0
KINDS_MAX = 32
#: What `Retry.give_up_on` calls an attempt that was ended at its timeout.
TIMEOUT_KIND = "timeout"


class Missed(StrEnum):
    """What becomes of a recurring job's due times while the platform was down, or the job paused.

    One counts as missed when nobody could emit its run for a minute: see `dueline.scheduling.judge`.
    """

    #: Every one is run, late, one after the other.
    ALL = "all"
    #: The latest is run, those before it are SKIPPED.
    LATEST = "latest"
    #: All are SKIPPED.
    SKIP = "skip"


class Overlap(StrEnum):
    """What becomes of a run whose turn comes while another of its job is performed. There are never two at once."""

    #: It waits, however many wait already.
    QUEUE_ALL = "queue_all"
    #: It waits if it is the only one that does, and else is SKIPPED.
    QUEUE_ONE = "queue_one"
    #: It is SKIPPED.
    SKIP = "skip"
    #: The other one is ended, CANCELLED, to make room for it.
    CANCEL_RUNNING = "cancel_running"


class IfExists(StrEnum):
    """What a submission asks for if there is a job of its id with another definition."""

    #: The job is changed to the new definition.
    REPLACE = "replace"
    #: The submission is rejected, and the job stays as it is.
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """What follows a failed attempt: up to `max_attempts` in all, each after a pause.

    Attempts that were interrupted, or whose process died by itself, don't count. The pause after failure n is
    `backoff_s * factor ** (n - 1)`: the same each time with a factor of 1, and `step_s` longer each time with that, at most
    `backoff_max_s`; or it is the nth of `pauses_s`, if there are any. A part of it, `jitter` at most, is added by chance, so
    that what failed together does not come back together.
    """

    #: The attempts that may fail, the first included: 1 means no retry.
    max_attempts: int = 1
    #: The pause before the second attempt, in seconds.
    backoff_s: float = 1.0
    #: What each pause is longer than the one before, as a factor.
    factor: float = 2.0
    #: The same in seconds; for pauses that grow steadily, `Retry(factor=1, step_s=60)`.
    step_s: float = 0.0
    #: The longest pause, in seconds.
    backoff_max_s: float = 300.0
    #: The pauses one by one, in seconds, instead of all that; the last one counts for all after it.
    pauses_s: tuple[float, ...] = ()
    #: How much longer a pause may be by chance, as a part of it.
    jitter: float = 0.2
    #: Failures after which no attempt follows: names of exception classes, such as ValueError, whose subclasses count too, or timeout.
    give_up_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in ("pauses_s", "give_up_on"):
            if isinstance(values := getattr(self, field), list):
                object.__setattr__(self, field, tuple(values))
        require_number("retry.max_attempts", self.max_attempts, 1, ATTEMPTS_MAX, whole=True)
        require_number("retry.backoff_s", self.backoff_s, 0, BACKOFF_MAX_S)
        require_number("retry.factor", self.factor, 1, 100)
        require_number("retry.step_s", self.step_s, 0, BACKOFF_MAX_S)
        require_number("retry.backoff_max_s", self.backoff_max_s, 0, BACKOFF_MAX_S)
        require_number("retry.jitter", self.jitter, 0, 1)
        if not isinstance(self.pauses_s, tuple) or len(self.pauses_s) > ATTEMPTS_MAX:
            raise InvalidJob(
                "retry.pauses_s", f"must be a list of at most {ATTEMPTS_MAX} seconds, such as [1, 60, 3600]"
            )
        for pause_s in self.pauses_s:
            require_number("retry.pauses_s", pause_s, 0, BACKOFF_MAX_S)
        if (
            not isinstance(self.give_up_on, tuple)
            or len(self.give_up_on) > KINDS_MAX
            or not all(isinstance(kind, str) and kind.isidentifier() for kind in self.give_up_on)
        ):
            raise InvalidJob(
                "retry.give_up_on",
                f'must be a list of at most {KINDS_MAX} names of exception classes or "timeout", such as ["ValueError"]',
            )

    def pause_ms(self, failures: int, chance: float | None = None) -> int | None:
        """Milliseconds between a run's failure number `failures` (from 1) and its next attempt; None after the last.

        `chance` in [0, 1) takes the place of the random number.
        """
        return None if failures >= self.max_attempts else self.backoff_ms(failures, chance)

    def backoff_ms(self, failures: int, chance: float | None = None) -> int:
        """How long that pause is, however many attempts there may be."""
        if self.pauses_s:
            pause_s = self.pauses_s[min(failures, len(self.pauses_s)) - 1]
        else:
            exponent = min(failures - 1, 64)  # beyond that every factor above 1 has reached the longest pause
            grown_s = self.backoff_s * self.factor**exponent + self.step_s * (failures - 1)
            pause_s = min(grown_s, self.backoff_max_s)
        longer = random.random() if chance is None else chance
        return int(pause_s * (1 + longer * self.jitter) * 1000)


def require_number(field: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    """Raises InvalidJob for what is no number, or none from `low` to `high`."""
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        raise InvalidJob(
            field, f"{value!r:.80} must be a {'whole ' if whole else ''}number from {low:.12g} to {high:.12g}"
        )
