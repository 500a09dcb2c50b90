"""The calendars as this process knows them. All shards share them: a calendar is kept by the shard of its name, in Cassandra."""

import asyncio
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from time import monotonic

from dueline.calendars import Calendar
from infra.cassandra import PASSING
from infra.store import Store

log = logging.getLogger(__name__)

#: A calendar that another process has changed is heeded after so long.
REFRESH_INTERVAL_S = 10.0
#: A calendar was submitted before a job that names it, but to another shard, which may be behind: so long is it waited for, with
#: all that comes behind the job; and if in vain, none is for a while, as wrong names would hold up their shards all the time.
PATIENCE_S, PATIENT_AGAIN_S = 5.0, 30.0
LOOK_AGAIN_S = 0.1


class KnownCalendars(Mapping[str, Calendar]):
    """The calendars there are, by name."""

    async def require(self, names: Collection[str]) -> None:
        """Look for those of them that are not known yet."""
        raise NotImplementedError


class CalendarsAtHand(dict[str, Calendar], KnownCalendars):
    """Those that there were at a moment: others are not looked for."""

    async def require(self, names: Collection[str]) -> None:
        pass


class KeptCalendars(KnownCalendars):
    """By name; brought up to date from the store every few seconds, and when a name is unknown."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Calendar] = {}
        #: After one was waited for in vain, none is until then.
        self._patient_again_s = 0.0

    def __getitem__(self, name: str) -> Calendar:
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    async def require(self, names: Collection[str]) -> None:
        begun_s = monotonic()
        while unknown := {name for name in names if name not in self._known}:
            await self.refresh()
            if begun_s < self._patient_again_s or not unknown - self._known.keys():
                return
            if monotonic() - begun_s >= PATIENCE_S:
                self._patient_again_s = monotonic() + PATIENT_AGAIN_S
                return
            await asyncio.sleep(LOOK_AGAIN_S)

    async def keep(self, calendars: Iterable[tuple[int, Calendar]]) -> None:
        """Make calendars durable, each with the offset of its record, and heed them."""
        for offset, calendar in calendars:
            await self._store.save_calendar(offset, calendar)
            self._known[calendar.name] = calendar

    async def refresh(self) -> None:
        self._known = dict(await self._store.read_calendars())

    async def keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_INTERVAL_S)
            try:
                self._known = dict(await self._store.read_calendars(persistently=False))
            except PASSING as error:
                log.warning("the calendars can't be read: %s", error, extra={"action": "refresh_failed"})
