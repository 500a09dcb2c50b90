"""`dueline submit`: one job from options, or many from lines of JSON."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import IO, Any

import click

from dueline.client import Client
from dueline.clock import SystemClock
from dueline.codec import SUBMISSION_LENGTH_MAX, encode_job
from dueline.errors import DuelineError, InvalidJob, SomeNotAccepted
from dueline.job import Job
from dueline.json_form import job_from_json
from dueline.policies import IfExists
from infra.settings import Settings
from producers.cli.fields import within_option
from producers.cli.job_options import job_from_options, job_options

#: Lines that are read before their jobs are sent together: a fraction of a second's work, and ids appear steadily.
LINES_MAX = 1000


@click.command()
@job_options
@click.option("--id", help="A name for the job that nobody else has; submitting it twice is one job.")
@click.option(
    "--if-exists",
    type=click.Choice([i.value for i in IfExists]),
    help="What to do with a job of this id and another definition.  [else replace]",
)
@click.option("--file", type=click.File("rb"), help="Jobs as lines of JSON; - is stdin. No other option.")
@within_option
@click.pass_context
def submit(context: click.Context, /, file: IO[bytes] | None, within: timedelta, **options: Any) -> None:
    """Submit a job, or many, and print the ids.

    An id is printed when Kafka has acknowledged its job. Without a time the job is due at once. A program and its arguments may follow the options, for the executor class
    `command`:

    \b
      dueline submit -- /bin/date -u
      dueline submit --cron "0 2 * * *" --time-zone Europe/Berlin --id nightly-report -- /opt/report
      dueline submit --class http --param url=https://example.org/ --retries 2 --timeout 20s
      dueline submit --file jobs.jsonl

    A line of a file is an object such as {"executor_class": "command", "params": {"argv": ["/bin/date"]},
    "trigger": {"every_s": 30}}. Lines that are wrong are reported with their numbers, all others are submitted.
    """
    settings: Settings = context.obj
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    if file is None:
        job = job_from_options(given)
        with Client(settings.kafka) as client:
            click.echo(client.submit_job(job, timeout=within.total_seconds()))
        return
    if given:
        raise click.UsageError("--file stands alone: the lines say all about their jobs")
    with Client(settings.kafka) as client:
        if not submit_lines(client, file, within.total_seconds()):
            context.exit(1)


# -- lines of JSON -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Lines:
    """Jobs read from lines; each wrong line is reported when it is read."""

    source: Iterable[bytes]
    where: str
    wrong: int = 0
    #: The line of each job of the batch read last.
    numbers: list[int] = field(default_factory=list)

    def batches(self) -> Iterator[list[Job]]:
        lines = enumerate(self.source, 1)
        while batch := list(islice(lines, LINES_MAX)):
            read = [(number, job) for number, line in batch if (job := self._read(number, line)) is not None]
            self.numbers = [number for number, _ in read]
            yield [job for _, job in read]

    def _read(self, number: int, line: bytes) -> Job | None:
        if not line.strip():
            return None
        try:
            return _job_from_line(line)
        except DuelineError as error:
            self.report(number, str(error))
            return None

    def report(self, number: int, problem: str) -> None:
        self.wrong += 1
        click.echo(f"{self.where}:{number}: {problem}", err=True)


def submit_lines(client: Client, file: IO[bytes], timeout_s: float) -> bool:
    """Submit the job of each line and print the ids, in order; whether every line was right and accepted."""
    name = getattr(file, "name", "<stdin>")
    lines = _Lines(file, "stdin" if name == "<stdin>" else name)
    for jobs in lines.batches():
        try:
            echo_all(client.submit_many(jobs, timeout=timeout_s))
        except SomeNotAccepted as error:
            echo_all(error.accepted)
            _report_missing(lines, error)
            raise
    return lines.wrong == 0


def _report_missing(lines: _Lines, error: SomeNotAccepted) -> None:
    accepted = set(error.accepted)
    for number, job_id in zip(lines.numbers, error.sent, strict=False):
        if job_id not in accepted:
            lines.report(number, f"job {job_id} was not acknowledged; submit it again with this id")
    if unsent := lines.numbers[len(error.sent) :]:
        lines.report(unsent[0], "this line and all below it were not submitted")


def _job_from_line(line: bytes) -> Job:
    try:
        source = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidJob("submission", f"not valid JSON: {error}") from error
    job = job_from_json(source)
    require_acceptable(job)
    return job


def require_acceptable(job: Job) -> None:
    """Raises InvalidJob for all that the client would refuse of a job, so that it can't stop those around it."""
    now_ms = SystemClock().now_ms()
    if job.triggers:
        job.anchored(now_ms).first_ms(now_ms)
    id_length = 0 if job.id else 36  # one will be added
    if (length := len(encode_job(job)) + id_length) > SUBMISSION_LENGTH_MAX:
        raise InvalidJob("params", f"the submission has {length} bytes, more than {SUBMISSION_LENGTH_MAX}")


def echo_all(ids: Sequence[str]) -> None:
    if ids:
        click.echo("\n".join(ids))
