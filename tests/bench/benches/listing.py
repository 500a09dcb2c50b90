"""`list`: how long people wait for the views when very many jobs are stored."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from infra.views import Views, open_views
from tests.bench.bed import Shape
from tests.bench.figures import percentiles
from tests.bench.fill import made_over
from tests.bench.helper import helper
from tests.bench.made_jobs import wall_ms
from tests.bench.options import size
from tests.bench.session import Line, Place, Session, say

DAY_MS = 24 * 3600 * 1000
#: Ids that are looked up: every so many of the stored ones is a candidate.
CANDIDATES = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The views with 10 million jobs stored: a job by its id, the first page of all, the first page of the failed runs."""

    jobs: int = size(10_000_000, 500, "Jobs stored, written directly.")
    days: float = size(10.0, 0.01, "Days over which they came.")
    failed: float = size(0.001, 0.1, "The share of those that failed.")
    looks: int = size(200, 5, "Jobs looked up by id, a round.")
    pages: int = size(20, 2, "Times that each page is asked for, a round.")
    page: int = size(20, 5, "Jobs of a page.")

    def run(self, session: Session) -> None:
        place = session.place(Shape())
        from_ms = wall_ms() - round(self.days * DAY_MS)
        session.tell({"bench": "list", "stored": self.jobs, **self._store(session, place, from_ms)})
        rounds = asyncio.run(self._ask(session, place, self._ids(session, from_ms)))
        for view, lines in rounds.items():
            names = {"bench": "list", "stored": self.jobs, "view": view, "seed": session.seed}
            session.tell_rounds(names, iter(lines))

    def _store(self, session: Session, place: Place, from_ms: int) -> Line:
        say(f"list: {self.jobs:,} jobs are stored")
        span = ("--from-ms", from_ms, "--span-ms", round(self.days * DAY_MS))
        arguments = ("ended", "--seed", session.seed, "--count", self.jobs, *span, "--failed", self.failed)
        environment = place.bed.settings.environment()
        with helper("tests.bench.fill", *arguments, environment=environment) as found:
            found.go()
            told = found.told()
        return {"stored_per_s": round(self.jobs / (told["ended_s"] - told["begun_s"]), 1)}

    def _ids(self, session: Session, from_ms: int) -> list[str]:
        made = made_over(session.seed, self.jobs, from_ms, round(self.days * DAY_MS))
        every = max(1, self.jobs // CANDIDATES)
        return [job.id or "" for number, job in enumerate(made) if number % every == 0]

    async def _ask(self, session: Session, place: Place, ids: list[str]) -> dict[str, list[Line]]:
        choose = random.Random(session.seed)
        async with open_views(place.bed.settings) as views:
            asked: dict[str, tuple[int, Callable[[], Awaitable[Any]]]] = {
                "a job by id": (self.looks, lambda: views.job(choose.choice(ids))),
                "first page of all": (self.pages, lambda: self._page(views)),
                "first page of the failed runs": (self.pages, lambda: self._failed(views)),
            }
            return {
                view: [await _timed(*each) for _ in range(session.rounds)] for view, each in asked.items()
            }

    async def _page(self, views: Views) -> int:
        return len((await views.jobs(self.page)).jobs)

    async def _failed(self, views: Views) -> int:
        return len((await views.failed(self.page)).runs)


async def _timed(count: int, ask: Callable[[], Awaitable[Any]]) -> Line:
    took_ms, found = [], None
    for _ in range(count):
        begun_s = time.perf_counter()
        found = await ask()
        took_ms.append((time.perf_counter() - begun_s) * 1000)
    return {"view_ms": percentiles(took_ms, 2), **({"found": found} if isinstance(found, int) else {})}
