"""`recurring`: very many recurring jobs, a part of which is due all the time: spread evenly, and at each full minute."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.bench.bed import Shape
from tests.bench.drains import submitter, warm_up
from tests.bench.made_jobs import wall_ms
from tests.bench.meter import now_s
from tests.bench.options import size
from tests.bench.session import Line, Place, Session, say
from tests.bench.windows import Window

#: What is not started so long after its window has no part in the figures but in `unfinished`.
GRACE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurring:
    """Named recurring jobs, a part of them due each second (interval) or each minute (cron)."""

    jobs: int = size(1_000_000, 100, "Recurring jobs stored.")
    interval: int = size(
        864, 2, "Seconds after which each of them is due again: a million in 864 are 1,157 a second."
    )
    cron_minutes: int = size(15, 1, "The same for cron, in minutes: a divisor of 60.")
    lead: float = size(600.0, 3.0, "Seconds from the first submission to the first due time.")
    seconds: float = size(180.0, 4.0, "Length of a round; for cron at least a minute.")
    warm_up: int = size(30_000, 50, "Jobs of the warm-up.")

    def run(self, session: Session) -> None:
        plans: dict[str, dict[str, Any]] = {
            "interval": {"make": "every", "of": self.jobs, "interval_s": self.interval},
            "cron": {"make": "cron", "interval_min": self.cron_minutes},
        }
        for trigger, plan in plans.items():
            place = session.place(Shape())
            warm_up(place, self.warm_up, session.seed)
            names = {"bench": "recurring", "trigger": trigger, "stored": self.jobs, "seed": session.seed}
            start_ms = wall_ms() + round(self.lead * 1000)
            plan |= {"seed": session.seed, "first": 0, "count": self.jobs, "start_ms": start_ms}
            session.tell({**names, **self._load(place, plan)})
            time.sleep(max(0.0, (start_ms - wall_ms()) / 1000))
            per_s = self.jobs / (self.interval if trigger == "interval" else self.cron_minutes * 60)
            seconds = self.seconds if trigger == "interval" else max(60.0, self.seconds // 60 * 60)
            session.tell_rounds(names, self._rounds(session, place, seconds, per_s))
            session.close()  # they would be due for ever

    def _load(self, place: Place, plan: Mapping[str, Any]) -> Line:
        say(f"recurring: storing {self.jobs:,} jobs")
        with submitter(place, plan) as found:
            before = place.bed.usage(found.pid)
            found.go()
            told = found.told()
            accepted_s = place.log.until_accepted()
            used = place.bed.usage(found.pid).cpu_since(before, self.jobs)
        return {"stored_per_s": round(self.jobs / (accepted_s - told["begun_s"]), 1), **used}

    def _rounds(self, session: Session, place: Place, seconds: float, per_s: float) -> Iterator[Line]:
        for number in range(session.rounds):
            say(f"recurring: round {number + 1} of {session.rounds}, {seconds:.0f} s")
            since, begin_s = place.log.ends(), now_s()
            window = Window(place=place, submitter=None, begin_s=begin_s, end_s=begin_s + seconds)
            window.watch()
            time.sleep(min(GRACE_S, seconds))
            attempts = place.log.attempts(since)
            firsts = [attempt for attempt in attempts if attempt.number == 1]
            figures = window.figures(firsts)
            yield {
                **figures,
                "due": round(per_s * seconds),
                "unfinished": round(per_s * seconds) - figures["jobs"],
            }
