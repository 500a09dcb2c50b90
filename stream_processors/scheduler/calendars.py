"""The calendars as this process knows them. All shards share them: a calendar is kept by the shard of its name, in Cassandra."""

import asyncio
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping

from dueline.calendars import Calendar
from infra.cassandra import PASSING
from infra.store import Store

log = logging.getLogger(__name__)

#: A calendar that another process has changed is heeded after so long.
REFRESH_INTERVAL_S = 10.0


class KnownCalendars(Mapping[str, Calendar]):
    """The calendars there are, by name."""

    async def require(self, names: Collection[str]) -> None:
        """Look for those of them that are not known yet."""
        raise NotImplementedError


class KeptCalendars(KnownCalendars):
    """By name; brought up to date from the store every few seconds, and when a name is unknown."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Calendar] = {}

    def __getitem__(self, name: str) -> Calendar:
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    async def require(self, names: Collection[str]) -> None:
        if any(name not in self._known for name in names):
            await self.refresh()

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
