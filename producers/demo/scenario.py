"""What the demo submits, and what has to become of it: one value for each job, nothing else to keep in mind."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from dueline.job import Job, Priority
from dueline.policies import Retry
from dueline.states import JobState, RunState
from dueline.triggers import Cron, Every, Once, Trigger


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One job of the demo."""

    #: What it shows.
    title: str
    #: Submitted by `dueline.Client`; None for a line that is typed into Kafka's console producer.
    job: Job | None = None
    #: That line, and the id in it.
    line: str = ""
    line_id: str = ""
    #: What is expected: how the job ends,
    job_state: JobState = JobState.COMPLETED
    #: the due times of its runs; None where there has to be one run, whenever it is due,
    dues: tuple[datetime, ...] | None = None
    #: how each of its runs ends, after how many attempts,
    run_state: RunState = RunState.SUCCEEDED
    attempts: int = 1
    #: what the last attempt of each run wrote to its standard output,
    stdout: str = ""
    #: and a part of the reason why it failed or was rejected.
    reason: str = ""

    @property
    def runs(self) -> int:
        """How many runs it has to have."""
        if self.job_state is JobState.REJECTED:
            return 0
        return 1 if self.dues is None else len(self.dues)


TYPED = (
    Scene(
        title="JSON typed into Kafka's console producer",
        line='{"id": "typed", "executor_class": "command", "params": {"argv": ["echo", "typed by hand"]}}',
        line_id="typed",
        stdout="typed by hand\n",
    ),
    Scene(
        title="an invalid cron expression, also typed",
        line='{"id": "invalid", "executor_class": "command", "trigger": {"cron": "61 * * * *"}}',
        line_id="invalid",
        job_state=JobState.REJECTED,
        reason="trigger.cron",
    ),
)


def scenes(now: datetime) -> Iterator[Scene]:
    """What the client submits. What is not due at once is due some seconds after `now`, by when all is submitted."""
    for priority in Priority:
        text = f"due at once, priority {priority}"
        yield Scene(title=text, job=_command("echo", text, priority=priority), stdout=f"{text}\n")
    soon = now + timedelta(seconds=6)
    for priority in Priority:
        text = f"due in seconds, priority {priority}"
        job = _command("echo", text, priority=priority, trigger=Once(soon))
        yield Scene(title=text, job=job, dues=(soon,), stdout=f"{text}\n")
    yield Scene(
        title="fails twice, then succeeds",
        job=_shell(
            'echo "attempt $DUELINE_ATTEMPT"; test $DUELINE_ATTEMPT = 3',
            retry=Retry(max_attempts=3, backoff_s=1.0),
        ),
        attempts=3,
        stdout="attempt 3\n",
    )
    yield Scene(
        title="fails for good",
        job=_shell("echo trying; exit 7", retry=Retry(max_attempts=2, backoff_s=1.0)),
        run_state=RunState.FAILED,
        attempts=2,
        stdout="trying\n",
        reason="exit status 7",
    )
    yield Scene(
        title="overruns its timeout",
        job=_shell("echo started; sleep 60; echo never", timeout_s=2.0),
        run_state=RunState.TIMED_OUT,
        stdout="started\n",
    )
    interval = timedelta(seconds=3)
    dues = tuple(soon + n * interval for n in range(4))
    yield Scene(
        title="every 3 seconds, 4 times",
        job=_command("echo", "once more", trigger=Every(interval, start=soon, end=dues[-1])),
        dues=dues,
        stdout="once more\n",
    )
    minute = soon.replace(second=0, microsecond=0) + timedelta(minutes=1)
    yield Scene(
        title="by cron, at the next full minute",
        job=_command("echo", "a full minute", trigger=Cron("* * * * *", start=soon, end=minute)),
        dues=(minute,),
        stdout="a full minute\n",
    )


def _command(
    *argv: str,
    priority: Priority = Priority.NORMAL,
    trigger: Trigger | None = None,
    retry: Retry | None = None,
    timeout_s: float = 10.0,
) -> Job:
    return Job(
        executor_class="command",
        params={"argv": list(argv)},
        priority=priority,
        triggers=() if trigger is None else (trigger,),
        retry=retry or Retry(),
        timeout_s=timeout_s,
    )


def _shell(script: str, *, retry: Retry | None = None, timeout_s: float = 10.0) -> Job:
    return _command("sh", "-c", script, retry=retry, timeout_s=timeout_s)
