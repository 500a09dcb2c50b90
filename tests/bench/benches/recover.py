"""`recover`: how soon the platform goes on after a kill -9 of each of its processes, and after a long outage."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from infra.local.platform import PlatformProcess
from infra.local.servers import at_once
from tests.bench.bed import Bed, Shape
from tests.bench.drains import warm_up
from tests.bench.made_jobs import wall_ms
from tests.bench.meter import now_s
from tests.bench.options import size
from tests.bench.runs_log import Attempt
from tests.bench.session import Line, Place, Session, say
from tests.bench.streams import Flow, stream

TARGETS = ("executor", "scheduler", "ledger", "kafka", "cassandra")
#: A job that starts later than this is late because of the outage.
LATE_MS = 1_000
#: For a server to come back, however busy the machine is: the figures tell how long it took.
RESTART_LIMIT_S = 600.0
#: How far behind its plan the log may be when the platform has caught up: chance, and what is in hand.
BEHIND_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recover:
    """From kill -9 of each process to the first repeated attempt; and how long it takes to catch up an outage."""

    nap_rate: float = size(20.0, 10.0, "Jobs a second while processes are killed, each of half a second.")
    before: float = size(15.0, 4.0, "Seconds of this stream before a kill.")
    after: float = size(45.0, 15.0, "Seconds of this stream behind a kill.")
    rate: float = size(1157.0, 20.0, "Jobs a second of the stream that meets the outage.")
    due_min: float = size(30.0, 1.0, "Seconds from a submission of that stream to its due time, at least.")
    due_max: float = size(90.0, 2.0, "Seconds from a submission of that stream to its due time, at most.")
    outage: float = size(600.0, 4.0, "Seconds for which scheduler, ledger and executor are away.")
    catch_up_max: float = size(3600.0, 60.0, "Seconds after which the stream ends, caught up or not.")
    warm_up: int = size(30_000, 50, "Jobs of the warm-up.")

    def run(self, session: Session) -> None:
        place = session.place(Shape(schedulers=2, ledgers=2, executors=2, slots=16))
        warm_up(place, self.warm_up, session.seed)
        for target in TARGETS:
            names = {"bench": "recover", "killed": target, "seed": session.seed}
            session.tell_rounds(names, self._kills(session, place, target))
        place = session.place(Shape())
        warm_up(place, self.warm_up, session.seed)
        names = {"bench": "recover", "outage_s": self.outage, "seed": session.seed}
        session.tell_rounds(names, self._outages(session, place))

    def _kills(self, session: Session, place: Place, target: str) -> Iterator[Line]:
        seconds = self.before + self.after
        flow = Flow(rate=self.nap_rate, seconds=seconds, due_min_s=1.0, due_max_s=2.0, nap_s=0.5)
        for number in range(session.rounds):
            say(f"recover, {target} killed: round {number + 1} of {session.rounds}")
            with stream(place, flow, session.seed * 1000 + number) as running:
                time.sleep(max(0.0, running.begun_s + self.before - now_s()))
                killed_s, killed_ms = now_s(), wall_ms()
                kill(place.bed, target)
                line: Line = {}
                if target in ("ledger", "cassandra"):
                    time.sleep(1.0)  # so that there is something to record
                    recorded_s = place.log.until_up_to_date(running.since)
                    line["recorded_again_after_s"] = round(recorded_s - killed_s, 2)
                told = running.told()
                finished = place.log.until_recorded(running.since, told["submitted"])
            for process in place.bed.processes.values():
                process.wait_until_up()
            yield line | after_kill(finished.attempts, killed_ms) | {"refused": told["refused"]}

    def _outages(self, session: Session, place: Place) -> Iterator[Line]:
        seconds = 2 * self.due_max + self.outage + self.catch_up_max
        flow = Flow(rate=self.rate, seconds=seconds, due_min_s=self.due_min, due_max_s=self.due_max)
        processes = tuple(place.bed.processes.values())
        for number in range(session.rounds):
            say(f"recover from an outage of {self.outage:.0f} s: round {number + 1} of {session.rounds}")
            with stream(place, flow, session.seed * 1000 + number) as running:
                time.sleep(1.5 * self.due_max)
                at_once(PlatformProcess.stop, processes)
                say("the outage begins")
                time.sleep(self.outage)
                before, back_ms = place.bed.usage(running.submitter.pid), wall_ms()
                at_once(PlatformProcess.start, processes)
                say("the outage is over")
                caught_up = self._until_caught_up(place, running.since, running.begun_s)
                after = place.bed.usage(running.submitter.pid)
                running.submitter.stop()
                told = running.told()
                finished = place.log.until_recorded(running.since, told["submitted"])
            late = [a for a in finished.firsts if a.lateness_ms >= LATE_MS and a.started_ms >= back_ms]
            took_s = (max((a.started_ms for a in late), default=back_ms) - back_ms) / 1000
            yield {
                "caught_up": caught_up,
                "caught_up_after_s": took_s,
                "late_jobs": len(late),
                "late_jobs_per_s": round(len(late) / max(took_s, 0.001), 1),
                "refused": told["refused"],
                "repeated": len(finished.attempts) - len(finished.firsts),
                **after.cpu_since(before, max(len(late), 1)),
                "memory_mb": after.memory_mb,
            }

    def _until_caught_up(self, place: Place, since: Any, begun_s: float) -> bool:
        """Whether as many runs have ended as were due; the plan is random, so it is a guess that is checked later."""
        give_up_s = now_s() + self.catch_up_max
        delay_s = (self.due_min + self.due_max) / 2 + BEHIND_S
        while now_s() < give_up_s:
            ended = sum(place.log.ends().values()) - sum(since.values())
            if ended >= self.rate * (now_s() - begun_s - delay_s):
                return True
            time.sleep(1.0)
        return False


def kill(bed: Bed, target: str) -> None:
    """SIGKILL one process. A server is started again at once, as supervisors do with the platform's processes."""
    if target in ("kafka", "cassandra"):
        server = bed.kafka if target == "kafka" else bed.cassandra
        server.kill()
        server.start()
        server.wait_until_up(RESTART_LIMIT_S)
    else:
        bed.processes[f"{target}-1"].kill()


def after_kill(attempts: Sequence[Attempt], killed_ms: int) -> dict[str, Any]:
    """When the first attempt was repeated, and how late the last job was that the kill kept waiting."""
    repeats = [
        attempt.started_ms for attempt in attempts if attempt.number > 1 and attempt.started_ms > killed_ms
    ]
    firsts = [a.lateness_ms for a in attempts if a.number == 1 and a.due_ms > killed_ms - LATE_MS]
    return {
        "repeated": len(repeats),
        "first_repeat_after_s": (min(repeats) - killed_ms) / 1000 if repeats else None,
        "last_repeat_after_s": (max(repeats) - killed_ms) / 1000 if repeats else None,
        "lateness_s_max": max(firsts, default=0) / 1000,
    }
