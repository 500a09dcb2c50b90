"""What the log says of a shard's runs to whoever takes the shard over: which attempts have ended, and which were begun in vain.

A ready record asks for an attempt of a run. When that is interrupted the record is performed again, as the next attempt:
a, a + 1, and so on. The first of these that has ended has ended the record.

Of an attempt that was begun and has not ended, the log says one of three things:

    RUNNING, then INTERRUPTED by its own executor    given up in good order
    RUNNING                                          its executor was lost, and nobody knows why: perhaps by this very run
    RUNNING, then INTERRUPTED by a later owner       likewise; that owner has found the line above, and told the views

Each of the last two is a *lost* start. A run that was lost `LOST_BESIDE_OTHERS_MAX` times is a suspect: it is performed with nothing beside
it in its executor, so that its next loss tells of it alone, and harms nobody else. `LOST_ALONE_MAX` of these end it CRASHED.

RUNNING may come several times, with how far the attempt says that it is. Its next one goes on from the latest of that.
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace

from dueline.codec import decode_run_record
from dueline.errors import UndecodableRecord
from dueline.runs import OwnerStarted, ReadyRun, RunEvent, RunKey, Succession
from dueline.states import AttemptState

LOST_BESIDE_OTHERS_MAX, LOST_ALONE_MAX = 2, 3


@dataclass(frozen=True, slots=True)
class Begun:
    """An attempt that a former owner began and did not end."""

    event: RunEvent
    #: Whether its executor was lost.
    lost: bool
    #: Whether a later owner has said so.
    told: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt that a former owner performed to its end, as far as the next one needs it."""

    state: AttemptState
    retry_ms: int | None
    #: How far it was, if another attempt is to go on from there.
    progress: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What former owners have done for a ready record."""

    #: The attempts that were begun for nothing, from the record's own on.
    begun: tuple[Begun, ...] = ()
    #: How the one behind them ended; None if it has not.
    ended: Ended | None = None

    @property
    def lost(self) -> int:
        return sum(begun.lost for begun in self.begun)

    @property
    def suspicious(self) -> bool:
        """Whether the run has to be performed with nothing beside it."""
        return self.lost >= LOST_BESIDE_OTHERS_MAX

    @property
    def hopeless(self) -> bool:
        """Whether it is not to be performed any more."""
        return self.lost >= LOST_BESIDE_OTHERS_MAX + LOST_ALONE_MAX

    def repeat(self, run: ReadyRun) -> ReadyRun:
        """The run as it is to be performed: as the attempt behind those that were begun, from where the last of them was."""
        if not self.begun:
            return run
        reported = (begun.event.progress for begun in reversed(self.begun) if begun.event.progress)
        progress = next(reported, run.progress)
        return replace(run, attempt=run.attempt + len(self.begun), progress=progress)


NOTHING = Past()


@dataclass(slots=True)
class Findings:
    """What a partition of jobs.runs says, as far as it was read."""

    #: The offset to read on from.
    next_offset: int
    succession: Succession = field(default_factory=Succession)
    ended: dict[RunKey, Ended] = field(default_factory=dict)
    begun: defaultdict[str, dict[int, Begun]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, offset: int, value: bytes) -> None:
        """The next record."""
        self.next_offset = offset + 1
        try:
            record = decode_run_record(value)
        except UndecodableRecord:
            return  # the ledger says so
        if self.succession.admits(record) and not isinstance(record, OwnerStarted):
            self._add(record)

    def past_of(self, run: ReadyRun) -> Past:
        """What was done for the ready record of a run."""
        run_id, attempt = run.run_id, run.attempt
        begun = self.begun.get(run_id, {})
        in_vain: list[Begun] = []
        while attempt in begun:
            in_vain.append(begun[attempt])
            attempt += 1
        ended = self.ended.get((run_id, attempt))
        return Past(begun=tuple(in_vain), ended=ended) if in_vain or ended else NOTHING

    def _add(self, event: RunEvent) -> None:
        begun = self.begun.get(event.run_id, {})
        if event.state is AttemptState.RUNNING:
            self.begun[event.run_id][event.attempt] = Begun(event, lost=True)  # if nothing more is said of it
        elif event.state is AttemptState.INTERRUPTED:
            before = begun.get(event.attempt)
            if before is not None and before.told:
                return  # Kafka has it twice
            lost = before is not None and event.epoch > before.event.epoch
            self.begun[event.run_id][event.attempt] = Begun(event, lost=lost, told=True)
        else:
            progress = "" if event.retry_ms is None else event.progress
            self.ended[event.key] = Ended(event.state, event.retry_ms, progress)
            begun.pop(event.attempt, None)
