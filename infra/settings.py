"""Where the servers are, and where this machine keeps its files: the same settings for every process.

Each setting is an environment variable with the prefix `DUELINE_` (`DUELINE_KAFKA_PORT=19092`). A variable with that
prefix which is no setting is refused, since a misspelt port would otherwise quietly mean the default.
"""

import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from dueline.errors import DuelineError

PREFIX = "DUELINE_"

NOT_SETTINGS = frozenset({f"{PREFIX}{name}" for name in ("READY_FILE", "RUN_ID", "JOB_ID", "ATTEMPT", "DUE")})
"""Variables of our own that say something else: see infra/local/platform.py, and dueline/builtin.py for a job's."""

Port = Annotated[int, Field(ge=1, le=65_535)]
Heap = Annotated[str, Field(pattern=r"^\d+[mg]$")]


class SettingsError(DuelineError):
    """A setting is wrong, or two of them don't go together; the message names them."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", validate_default=True)

    keyspace: str = Field("dueline", pattern=r"^[a-z][a-z0-9_]{0,47}$", description="Keyspace of all tables.")
    partitions: int = Field(8, ge=1, le=1_024, description="Shards, fixed when the topics are made.")
    replication: int = Field(1, ge=1, le=9, description="Copies of every record and row; 3 on a cluster.")
    keep_days: float = Field(
        1.0,
        ge=0,
        le=3_650,
        description="Days for which submissions and ready runs that are done with stay in their topics.",
    )
    keep_runs_days: float = Field(
        7.0, ge=0, le=3_650, description="Days for which what became of runs stays in jobs.runs."
    )
    keep_outputs_days: float | None = Field(
        None, ge=0, le=3_650, description="Days for which outputs are kept; for ever when it is not set."
    )
    slots: int = Field(4, ge=1, le=1_024, description="Runs at once in the executor that `make up` starts.")

    data: Path = Field(
        Path(".dueline"), description="Outputs, server data, logs and pid files of this machine."
    )
    cache: Path = Field(Path("~/.cache/dueline"), description="The servers' jars; may be shared and deleted.")

    kafka_port: Port = Field(9092, description="Where the local Kafka serves clients.")
    kafka_controller_port: Port = Field(9093, description="Where the local Kafka's controller listens.")
    cassandra_port: Port = Field(9042, description="Where the local Cassandra serves CQL.")
    cassandra_storage_port: Port = Field(
        7000, description="Where the local Cassandra would meet other nodes."
    )
    kafka_heap: Heap = Field("512m", description="Heap of the local Kafka: a number with m or g.")
    cassandra_heap: Heap = Field("1g", description="Heap of the local Cassandra: a number with m or g.")

    # After the ports, which complete them.
    kafka: str = Field("", description="Bootstrap servers, host:port,...; the local Kafka when empty.")
    cassandra: str = Field("", description="Contact points, host:port,...; the local Cassandra when empty.")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_variables(cls, values: dict[str, object]) -> dict[str, object]:
        given = {
            name.removeprefix(PREFIX) for name in os.environ.keys() - NOT_SETTINGS if name.startswith(PREFIX)
        }
        known = {name.upper() for name in cls.model_fields}
        for name in sorted(given - known):
            guess = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {PREFIX}{guess[0]}?" if guess else f"there are {', '.join(sorted(known))}"
            raise ValueError(f"{PREFIX}{name} is set, and there is no such setting: {hint}")
        return values

    @field_validator("kafka", "cassandra")
    @classmethod
    def _complete_address(cls, value: str, info: ValidationInfo) -> str:
        for address in value.split(",") if value else ():
            if not re.fullmatch(r"[\w.\-]+:\d{1,5}", address):
                raise ValueError(f"{address!r} is no address: write host:port, several with commas between")
        return value or _local(info.data.get(f"{info.field_name}_port"))

    @field_validator("data", "cache")
    @classmethod
    def _make_absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @model_validator(mode="after")
    def _relate(self) -> Self:
        ports: dict[int, str] = {}
        for name in ("kafka_port", "kafka_controller_port", "cassandra_port", "cassandra_storage_port"):
            other = ports.setdefault(getattr(self, name), name)
            if other != name:
                raise ValueError(f"{other} and {name} are both {getattr(self, name)}: give each its own")
        if self.data == self.cache:
            raise ValueError(f"data and cache are both {self.data}: give each its own folder")
        return self

    @property
    def local_kafka(self) -> str:
        """Where `make up` puts Kafka; `kafka` is another address when the servers run elsewhere."""
        return _local(self.kafka_port)

    @property
    def local_cassandra(self) -> str:
        """Where `make up` puts Cassandra."""
        return _local(self.cassandra_port)

    def environment(self) -> dict[str, str]:
        """These settings as variables, for the processes that this one starts."""
        return {f"{PREFIX}{name.upper()}": str(value) for name, value in self if value is not None}


def load_settings(**given: object) -> Settings:
    """The settings of this process, or one sentence that says which of them is wrong. Those given here go first."""
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError(
            "; ".join(_sentence(problem["loc"], problem["msg"]) for problem in error.errors())
        ) from None


def _local(port: int | None) -> str:
    return f"127.0.0.1:{port}"


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    return f"{PREFIX}{str(location[0]).upper()}: {message}" if location else message
