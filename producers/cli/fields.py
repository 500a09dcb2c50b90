"""Instants, durations and parameters as people type them."""

import json
import re
from datetime import datetime, timedelta
from typing import Any

import click

from dueline.client import TIMEOUT_S
from dueline.delivery import DELIVERY_MAX_S

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+\Z")


class Instant(click.ParamType):
    """An ISO 8601 time with an offset from UTC."""

    name = "ISO time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):  # click converts defaults too
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no ISO 8601 time, such as 2030-01-31T02:00:00+01:00", param, ctx)
        if moment.tzinfo is None:
            self.fail(f"{value!r} has no offset from UTC; add one, such as Z or +01:00", param, ctx)
        return moment


class Duration(click.ParamType):
    """A length of time: numbers with units, or a plain number of seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        text = f"{value}s" if re.fullmatch(r"\d+(\.\d+)?", value) else value
        if not _DURATION.match(text):
            self.fail(f"{value!r} is no duration, such as 500ms, 10s, 5m, 1h30m or 2d", param, ctx)
        try:
            return timedelta(
                seconds=sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
            )
        except OverflowError:
            self.fail(f"{value!r} is longer than any job waits", param, ctx)


class Param(click.ParamType):
    """One parameter of a job: `name=value`, the value JSON if it can be read as such, else a text."""

    name = "name=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        name, equals, given = value.partition("=")
        if not name or not equals:
            self.fail(f"{value!r} is not of the form name=value", param, ctx)
        try:
            return name, json.loads(given)
        except (ValueError, RecursionError):
            return name, given


class JsonObject(click.ParamType):
    """A JSON object."""

    name = "JSON"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        try:
            found = json.loads(value)
        except (ValueError, RecursionError) as error:
            self.fail(f"not valid JSON: {error}", param, ctx)
        if not isinstance(found, dict):
            self.fail("""must be a JSON object, such as '{"url": "https://example.org/"}'""", param, ctx)
        return found


def _within(ctx: click.Context, param: click.Parameter, value: timedelta) -> timedelta:
    if not timedelta(0) < value <= timedelta(seconds=DELIVERY_MAX_S):
        raise click.BadParameter(f"must be more than 0 and at most {DELIVERY_MAX_S:g}s", ctx, param)
    return value


#: For commands that submit.
within_option = click.option(
    "--within",
    type=Duration(),
    default=timedelta(seconds=TIMEOUT_S),
    callback=_within,
    help=f"Time for Kafka to acknowledge.  [else {TIMEOUT_S:g}s]",
)
