"""What importing the library loads, seen in a process of its own."""

import subprocess
import sys

import dueline

STAGES = ("infra", "producers", "consumers", "stream_processors")


def loaded_after(statement: str) -> set[str]:
    """The names of the modules in a fresh interpreter after a statement."""
    code = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_alone_loads_no_client() -> None:
    loaded = loaded_after("import dueline")
    assert not loaded & {"confluent_kafka", "fastavro", "croniter", "asyncio"}


def test_the_client_loads_nothing_of_the_platform() -> None:
    loaded = loaded_after("from dueline import AsyncClient, Client")
    assert "confluent_kafka" in loaded
    assert not {name.partition(".")[0] for name in loaded} & {*STAGES, "cassandra", "faust", "aiokafka"}


def test_the_process_of_user_code_needs_neither_kafka_nor_the_platform() -> None:
    loaded = loaded_after("import dueline.slot")
    assert not {name.partition(".")[0] for name in loaded} & {
        *STAGES,
        "cassandra",
        "faust",
        "confluent_kafka",
    }


def test_every_public_name_is_there() -> None:
    for name in dueline.__all__:
        assert getattr(dueline, name) is not None
