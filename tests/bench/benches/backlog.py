"""`backlog`: what jobs that wait for other days do to those of today, and what each of them takes up."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.bench.bed import Shape
from tests.bench.drains import drain, submitter, warm_up
from tests.bench.helper import helper
from tests.bench.made_jobs import wall_ms
from tests.bench.meter import Usage
from tests.bench.options import size
from tests.bench.session import Line, Place, Session, say
from tests.bench.storage import Storage
from tests.bench.streams import Flow, stream

DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """A drain and a stream with 0, 1 and 10 million jobs waiting for other days; what a waiting job takes up."""

    few: int = size(1_000_000, 200, "Waiting jobs of the second part; the first has none.")
    many: int = size(10_000_000, 400, "Waiting jobs of the third part.")
    submitted: int = size(10_000_000, 200, "Of these so many are submitted; what is more is stored directly.")
    ordered: int = size(0, 0, "1: they are submitted in the order of their due times; 0: in none.")
    days: float = size(1.0, 1.0, "Days over which they are due, from tomorrow on.")
    jobs: int = size(60_000, 100, "Jobs of a drain.")
    rate: float = size(1157.0, 20.0, "Jobs a second of the stream.")
    seconds: float = size(210.0, 4.0, "How long the stream goes on, a round.")
    due_min: float = size(30.0, 1.0, "Seconds from a submission of the stream to its due time, at least.")
    due_max: float = size(90.0, 2.0, "Seconds from a submission of the stream to its due time, at most.")
    warm_up: int = size(60_000, 50, "Jobs of the warm-up.")

    def run(self, session: Session) -> None:
        place = session.place(Shape())
        warm_up(place, self.warm_up, session.seed)
        storage = Storage(place.bed)
        stored = submitted = 0
        for waiting in (0, self.few, self.many):
            names = {"bench": "backlog", "waiting": waiting, "seed": session.seed}
            if (count := min(waiting, self.submitted) - submitted) > 0:
                session.tell({**names, "part": "submit", **self._submit(session, place, storage, count)})
                submitted, stored = submitted + count, stored + count
            if (count := waiting - stored) > 0:
                session.tell({**names, "part": "store", **self._store(session, place, storage, count)})
                stored += count
            session.tell_rounds({**names, "part": "drain"}, self._drains(session, place, waiting))
            session.tell_rounds({**names, "part": "stream"}, self._streams(session, place, waiting))

    def _submit(self, session: Session, place: Place, storage: Storage, count: int) -> Line:
        say(f"backlog: {count:,} jobs for other days are submitted")
        seed, from_ms = session.seed + count, wall_ms() + DAY_MS
        plan = {"make": "waiting", "seed": seed, "count": count, "from_due_ms": from_ms}
        plan |= {"span_ms": round(self.days * DAY_MS), "ordered": self.ordered}
        disk = storage.bytes_by_topic_or_table()
        with submitter(place, plan) as found:
            before = place.bed.usage(found.pid)
            found.go()
            told = found.told()
            accepted_s = place.log.until_accepted()
            after = place.bed.usage(found.pid)
        return {
            "jobs": count,
            "submitted_per_s": round(count / (told["ended_s"] - told["begun_s"]), 1),
            "accepted_per_s": round(count / (accepted_s - told["begun_s"]), 1),
            **after.cpu_since(before, count),
            **sizes(disk, storage.bytes_by_topic_or_table(), before, after, count),
        }

    def _store(self, session: Session, place: Place, storage: Storage, count: int) -> Line:
        say(f"backlog: {count:,} jobs for other days are stored directly")
        disk, before = storage.bytes_by_topic_or_table(), place.bed.usage()
        span = ("--from-ms", wall_ms() + DAY_MS, "--span-ms", round(self.days * DAY_MS))
        arguments = ("waiting", "--seed", session.seed + count, "--count", count, *span)
        environment = place.bed.settings.environment()
        with helper("tests.bench.fill", *arguments, environment=environment) as found:
            found.go()
            told = found.told()
        after = place.bed.usage()
        return {
            "jobs": count,
            "stored_per_s": round(count / (told["ended_s"] - told["begun_s"]), 1),
            **sizes(disk, storage.bytes_by_topic_or_table(), before, after, count),
        }

    def _drains(self, session: Session, place: Place, waiting: int) -> Iterator[Line]:
        for number in range(session.rounds):
            say(f"backlog of {waiting:,}, drain: round {number + 1} of {session.rounds}")
            seed = session.seed * 1000 + number + waiting
            yield drain(place, {"make": "due_now", "seed": seed, "count": self.jobs})

    def _streams(self, session: Session, place: Place, waiting: int) -> Iterator[Line]:
        flow = Flow(rate=self.rate, seconds=self.seconds, due_min_s=self.due_min, due_max_s=self.due_max)
        for number in range(session.rounds):
            say(f"backlog of {waiting:,}, stream: round {number + 1} of {session.rounds}")
            with stream(place, flow, session.seed * 1000 + number + waiting) as running:
                running.window.watch()
                told = running.told()
                finished = place.log.until_recorded(running.since, told["submitted"])
            figures = running.window.figures(finished.firsts)
            yield {**figures, "ack_ms": told["ack_ms"], "refused": told["refused"]}


def sizes(
    disk: Mapping[str, int], disk_after: Mapping[str, int], before: Usage, after: Usage, jobs: int
) -> dict[str, Any]:
    """What each of the jobs takes up."""
    grown = {name: round((size - disk.get(name, 0)) / jobs, 1) for name, size in disk_after.items()}
    memory = {
        name: round((mb - before.memory_mb.get(name, 0.0)) * 1024**2 / jobs, 1)
        for name, mb in after.memory_mb.items()
        if name not in ("bench", "submitter")
    }
    return {
        "disk_bytes_per_job": sum(size for name, size in grown.items() if name.startswith("cassandra.")),
        "disk_bytes_per_job_by_place": {name: size for name, size in grown.items() if size},
        "memory_bytes_per_job": memory,
        "memory_mb": after.memory_mb,
    }
