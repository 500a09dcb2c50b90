"""Calendars that jobs name before this process knows of them."""

from collections.abc import Sequence
from typing import cast

import pytest

from dueline.calendars import Calendar
from infra.store import Store
from stream_processors.scheduler import calendars
from stream_processors.scheduler.calendars import KeptCalendars

HOLIDAYS = Calendar("holidays-de", [])


class Answering:
    """A store that answers with these, one after the other, and then with the last for ever."""

    def __init__(self, *answers: Sequence[Calendar]) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def read_calendars(self, *, persistently: bool = True) -> list[tuple[str, Calendar]]:
        self.asked += 1
        found = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [(calendar.name, calendar) for calendar in found]


def kept(store: Answering) -> KeptCalendars:
    return KeptCalendars(cast(Store, store))


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calendars, "LOOK_AGAIN_S", 0.0)


async def test_one_that_another_shard_is_about_to_keep_is_waited_for() -> None:
    known = kept(Answering([], [], [HOLIDAYS]))
    await known.require({"holidays-de"})
    assert dict(known) == {"holidays-de": HOLIDAYS}


async def test_one_that_does_not_come_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calendars, "PATIENCE_S", 0.1)
    store = Answering([])
    known = kept(store)
    await known.require({"wrong"})
    waited, store.asked = store.asked, 0
    await known.require({"wrong"})
    await known.require({"also-wrong"})
    assert (waited > 1, store.asked) == (True, 2)


async def test_what_is_known_is_not_looked_for() -> None:
    store = Answering([HOLIDAYS])
    known = kept(store)
    await known.require({"holidays-de"})
    await known.require({"holidays-de"})
    await known.require(())
    assert store.asked == 1
