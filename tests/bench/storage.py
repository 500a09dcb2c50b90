"""What the servers keep on disk, once Cassandra has written its memory out. Asked for between rounds, never in one."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from infra.local.checks import find_java, free_ports
from infra.local.jars import jars_of
from tests.bench.bed import Bed

#: A flush of a memtable takes seconds; compaction may hold the disk for longer.
FLUSH_LIMIT_S = 600.0


class Storage:
    """The disks of one platform."""

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self._java = find_java()
        self._port = 0

    def bytes_by_topic_or_table(self) -> Mapping[str, int]:
        """After a flush: `kafka.jobs.submissions`, `cassandra.schedule` and so on."""
        self._flush()
        data = self._bed.settings.data
        sizes: dict[str, int] = {}
        for folder in sorted((data / "kafka" / "data").glob("jobs.*-[0-9]*")):
            topic = f"kafka.{folder.name.rpartition('-')[0]}"
            sizes[topic] = sizes.get(topic, 0) + _bytes_in(folder, "*.log")
        for folder in sorted((data / "cassandra" / "data" / self._bed.settings.keyspace).iterdir()):
            table = f"cassandra.{folder.name.partition('-')[0]}"
            sizes[table] = sizes.get(table, 0) + _bytes_in(folder, "*")
        return sizes

    def _flush(self) -> None:
        """As nodetool does; the agent that it talks to is started in the server, where it does nothing else."""
        if not self._port:
            (self._port,) = free_ports(1)
            options = [f"jmxremote.port={self._port}", f"jmxremote.rmi.port={self._port}"]
            options += ["jmxremote.host=127.0.0.1", "jmxremote.authenticate=false", "jmxremote.ssl=false"]
            pid = self._bed.cassandra.process.pid()
            self._run(
                str(self._java.resolve().with_name("jcmd")), str(pid), "ManagementAgent.start", *options
            )
        cassandra = self._bed.cassandra
        jars = jars_of("cassandra", cassandra.source / "pom.xml", self._bed.settings.cache, lambda _: None)
        options = [
            f"@{cassandra.source / 'jvm.options'}",
            "-Xmx128m",
            f"-Duser.home={self._bed.settings.data}",
        ]
        options += ["-Dcom.sun.jndi.rmiURLParsing=legacy", "-cp", f"{jars}/*"]
        command = [
            str(self._java),
            *options,
            "org.apache.cassandra.tools.NodeTool",
            "-h",
            "127.0.0.1",
            "-p",
            str(self._port),
        ]
        self._run(*command, "flush", self._bed.settings.keyspace)

    def _run(self, *command: str) -> None:
        subprocess.run(command, check=True, timeout=FLUSH_LIMIT_S, capture_output=True)


def _bytes_in(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.rglob(pattern) if path.is_file())
