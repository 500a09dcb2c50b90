"""A platform for tests: jobs and schedules in memory, without servers, on a clock that the test sets.

    from dueline.testing import TestPlatform

    platform = TestPlatform(now=datetime(2030, 1, 1, tzinfo=UTC))
    job_id = platform.client.submit("greet", {"name": "Ada"}, trigger=Cron("0 2 * * *", "Europe/Berlin"))
    platform.advance(timedelta(days=1))  # performs what becomes due meanwhile, each at its very time
    (run,) = platform.runs(job_id)

Nothing happens by itself: `advance`, `advance_to` and `perform_due` perform what is due, one run after the other in this
thread, and return when nothing due is left. What they go by is the platform's own: its client, its contracts (every
submission, ready run and retry is bytes once), triggers, states and retry policies; and tests/platform/test_contract.py
runs on both.

    client ──bytes──► Schedule ──when due──► Executor ──► what was recorded: `runs`
                         ▲                      │
                         └────bytes, retries────┘

What is different, and no test here can show:

- **One slot, this process.** The platform has many slots, each a process that it kills at a timeout. Here a function can't be
  killed, and one that ends its process ends the tests: CRASHED and INTERRUPTED don't occur. A long run is one that moves the clock
  itself (`platform.clock.advance`); what becomes due meanwhile is late. Moved beyond its timeout, it gets TimedOut where
  it stands, as on the platform, and ends TIMED_OUT.
- **Clocks.** A function that asks the machine for the time gets the machine's: give it a clock, or have it go by `run.due`.
  Submissions are accepted at the very time at which they are sent.
- **Order.** Runs that are due at one time begin by their priority, then in the order of submission. The platform promises the
  priority alone, and that for each executor.
- **Cancel** ends no run that is being performed, so the overlap policy `cancel_running` has the next run wait.
- **Output** is what a function writes to `sys.stdout` and `sys.stderr`. That of programs goes where the test's goes, and
  nothing is cut off.
- **Chance.** A retry's pause has no random part, and ids are the same each time the test runs.
"""

from dueline.testing.clock import SettableClock
from dueline.testing.platform import TestPlatform
from dueline.testing.views import AttemptView, JobView, Rejected, RunView

__all__ = ["AttemptView", "JobView", "Rejected", "RunView", "SettableClock", "TestPlatform"]
