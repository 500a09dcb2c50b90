"""python -m producers.demo: exit status 0 when every job of the demo ended as expected."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from dueline.address import SUBMISSIONS
from dueline.client import Client
from dueline.errors import DuelineError, Unavailable
from infra.cassandra import ensure_tables
from infra.kafka import ensure_topics
from infra.local.background import alone
from infra.local.checks import find_java, free_ports
from infra.local.jars import jars_of
from infra.local.platform import start_platform, stop_platform
from infra.local.servers import KafkaServer, start_servers, stop_servers
from infra.rejects import latest_rejected
from infra.settings import Settings, load_settings
from infra.views import open_views
from producers.cli.tables import console, rejected_table
from producers.demo.scenario import TYPED, Scene, scenes
from producers.demo.watch import Seen, problems, results_table, watch

FAST_START = "-XX:TieredStopAtLevel=1"
"""Servers that live for a minute never earn back what the optimising compiler costs them: this halves their start."""

CONSOLE_LIMIT_S = 30.0
"""Kafka's console producer is a JVM that starts, sends a line or two and ends: two seconds on an idle machine."""

_BEGUN = time.monotonic()


def say(text: str) -> None:
    """Progress, with the seconds since the beginning."""
    click.echo(f"{time.monotonic() - _BEGUN:6.1f} s  {text}")


def main() -> int:
    settings = demo_settings()
    with running(settings):
        seen = asyncio.run(perform(settings))
        report(settings, seen)
    found = [f"{one.scene.title}: {problem}" for one in seen for problem in problems(one, _outputs(settings))]
    for problem in found:
        click.echo(f"NOT AS EXPECTED  {problem}", err=True)
    if not found:
        say(f"all {len(seen)} jobs ended as expected")
    tell_more(settings)
    return 1 if found else 0


def demo_settings() -> Settings:
    """A data folder and ports of the demo's own. Anything else, such as heap sizes, is as set."""
    kafka, controller, cassandra, storage = free_ports(4)
    return load_settings(
        data=load_settings().data / "demo",
        kafka="",
        cassandra="",
        kafka_port=kafka,
        kafka_controller_port=controller,
        cassandra_port=cassandra,
        cassandra_storage_port=storage,
    )


@contextmanager
def running(settings: Settings) -> Iterator[None]:
    """Servers, topics, tables and the platform; whatever was started is stopped in the end, however that comes."""
    with alone(settings.data, "another demo runs", "wait for its end, or set DUELINE_DATA to another folder"):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        try:
            _stop(settings)  # what a demo that was killed has left
            os.environ["JDK_JAVA_OPTIONS"] = FAST_START
            say("starting Kafka and Cassandra")
            start_servers(settings, say)
            say("making topics and tables")
            ensure_topics(settings)
            ensure_tables(settings)
            start_platform(settings, say)
            yield
        finally:
            # A second Ctrl-C must not leave servers behind.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            say("stopping everything")
            _stop(settings)


async def perform(settings: Settings) -> list[Seen]:
    """Submit every scene, and look until all have ended."""
    async with open_views(settings) as views:
        say("submitting")
        submitted = await asyncio.to_thread(submit, settings)
        say(f"{len(submitted)} jobs are submitted; the last of them is due at the next full minute")
        return await watch(views, submitted, say)


def submit(settings: Settings) -> Mapping[str, Scene]:
    """Submit every scene; the scenes by the ids of their jobs, when Kafka has acknowledged all."""
    _type_into_console(settings, [scene.line for scene in TYPED])
    with Client(settings.kafka) as client:
        ids = {client.submit_job(scene.job): scene for scene in scenes(datetime.now(UTC)) if scene.job}
    return ids | {scene.line_id: scene for scene in TYPED}


def _type_into_console(settings: Settings, lines: Sequence[str]) -> None:
    """Send lines by the program that comes with Kafka: no key, no schema, nothing of ours."""
    kafka = KafkaServer(settings)
    jars = jars_of(kafka.name, kafka.source / "pom.xml", settings.cache, say)
    program = [str(find_java()), "-cp", f"{jars}/*", "org.apache.kafka.tools.ConsoleProducer"]
    command = [*program, "--bootstrap-server", settings.kafka, "--topic", SUBMISSIONS]
    typed = "".join(f"{line}\n" for line in lines)
    done = subprocess.run(command, input=typed, capture_output=True, text=True, timeout=CONSOLE_LIMIT_S)
    if done.returncode != 0:
        raise Unavailable(f"Kafka's console producer did not take the lines: {done.stderr.strip()[-500:]}")


def report(settings: Settings, seen: Sequence[Seen]) -> None:
    """Everything that came of it."""
    click.echo()
    console().print(results_table(seen, _outputs(settings)))
    click.echo("\nrejected (topic jobs.rejected):")
    console().print(rejected_table(latest_rejected(settings, limit=10)))
    click.echo()


def tell_more(settings: Settings) -> None:
    """Where things lie, and what to do next."""
    files = sorted(_outputs(settings).rglob("*.avro"), key=lambda file: file.stat().st_mtime)
    folder = Path(os.path.relpath(Path(sys.executable).parent))
    click.echo(f"""
The outputs are Avro container files below {_outputs(settings)}. To read one:
  {folder / "python"} -m fastavro {files[-1] if files else "FILE"}
The logs of all processes are in {settings.data / "logs"}.

What to try next, with the platform for daily work:
  make up
  {folder / "dueline"} submit --in 10s -- /bin/echo hello     prints the job's id
  {folder / "dueline"} job ID
  {folder / "dueline"} output ID
  make down""")


def _outputs(settings: Settings) -> Path:
    return settings.data / "outputs"


def _stop(settings: Settings) -> None:
    """Stop all, and remove what only they could read."""
    stop_platform(settings, say)
    stop_servers(settings, say)
    for name in ("kafka", "cassandra", "run", "scheduler", "ledger"):
        shutil.rmtree(settings.data / name, ignore_errors=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DuelineError as error:
        sys.exit(f"dueline: {error}")
    except KeyboardInterrupt:
        sys.exit("dueline: the demo was interrupted")
