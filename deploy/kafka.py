"""Apache Kafka from its Maven artefacts, one node or several, for the tests and benchmarks that prove something.

Needs `java` (17 or later) and, the first time, `mvn`: one run copies 92 jars (55 MB) into the user's cache folder.

    with KafkaServer() as kafka:
        kafka.create_topic("marquee.events.v1", partitions=4, retention_ms=60_000)
        kafka.kill(), kafka.start()     # same port, same data
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self
from xml.etree import ElementTree

from deploy.embedded import KafkaNode, Started
from deploy.processes import Child, StartFailed, free_port

_FILES = Path(__file__).parent / "kafka"
_JVM = ["-Xmx256m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]


class KafkaServer(KafkaNode):
    """One KRaft node, broker and controller in one JVM of 256 MB heap, on loopback ports and a folder of its own."""

    name = "kafka"
    start_timeout_s = 90.0

    def __init__(
        self, *, port: int | None = None, folder: Path | None = None, node: int = 1, controller_port: int | None = None
    ) -> None:
        """Choose ports and folder; `node` is its id among the nodes of a `KafkaCluster`."""
        super().__init__(port=port, folder=folder)
        self.node, self.controller_port = node, controller_port or free_port()
        self.quorum: Sequence[KafkaServer] = (self,)
        self.cluster_id = new_cluster_id()
        self._formatting: Child | None = None

    @property
    def nodes(self) -> int:
        """How many voters there are."""
        return len(self.quorum)

    @property
    def properties(self) -> dict[str, object]:
        """What differs from node to node. Internal topics are on up to three nodes and accept one being away."""
        replicas = min(self.nodes, 3)
        internal = {"offsets.topic": "replication.factor", "share.coordinator.state.topic": "replication.factor"}
        in_sync = max(replicas - 1, 1)
        return {
            "node.id": self.node,
            "controller.quorum.voters": ",".join(f"{s.node}@127.0.0.1:{s.controller_port}" for s in self.quorum),
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "log.dirs": self.folder / "data",
            "default.replication.factor": replicas,
            "min.insync.replicas": in_sync,
            **{f"{topic}.{key}": replicas for topic, key in internal.items()},
            "share.coordinator.state.topic.min.isr": in_sync,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": in_sync,
        }

    def command(self) -> list[str]:
        """The JVM with everything in the cache folder on its class path."""
        return java("kafka.Kafka", str(self._settings))

    def format(self) -> None:
        """Begin to write the node's identity into its empty data folder; does nothing where there is one."""
        if self._formatting is not None or (self.folder / "data" / "meta.properties").exists():
            return
        lines = "".join(f"{key}={value}\n" for key, value in self.properties.items())
        self._settings.write_text((_FILES / "server.properties").read_text() + "\n" + lines)
        tool = java("kafka.tools.StorageTool", "format", "-t", self.cluster_id, "-c", str(self._settings))
        self._formatting = Child(tool, self.log)

    def launch(self) -> None:
        """Start the JVM without waiting for it, after its folder was formatted.

        Raises:
            StartFailed: the folder could not be formatted.
        """
        self.format()
        if self._formatting is not None and self._formatting.wait(60.0) != 0:
            raise StartFailed(f"formatting {self.folder} failed\n{self._formatting.tail()}")
        super().launch()

    @property
    def _settings(self) -> Path:
        return self.folder / "server.properties"


class KafkaCluster(Started):
    """Several nodes as one cluster: replication 3, two in-sync replicas wanted, so that one node may die."""

    def __init__(self, nodes: int = 3) -> None:
        """Choose all ports first: every node knows every voter."""
        self.servers = [KafkaServer(node=number + 1) for number in range(nodes)]
        for server in self.servers:
            server.quorum, server.cluster_id = self.servers, self.servers[0].cluster_id

    @property
    def bootstrap(self) -> str:
        """Where clients connect: every node."""
        return ",".join(server.bootstrap for server in self.servers)

    def create_topic(self, name: str, partitions: int, **config: object) -> None:
        """As on one node; asks the first that runs."""
        running = next(s for s in self.servers if s.child is not None and s.child.returncode is None)
        running.create_topic(name, partitions, replication=None, **config)

    def start(self) -> Self:
        """Start all nodes at once and wait until each sees all.

        Raises:
            StartFailed: one did not come up.
        """
        for step in (KafkaServer.format, KafkaServer.launch):
            for server in self.servers:
                step(server)
        for server in self.servers:
            assert server.child is not None
            server.child.wait_until(server.answers, server.start_timeout_s)
        return self

    def close(self) -> None:
        """End all nodes and remove their data."""
        for server in self.servers:
            server.close()


def new_cluster_id() -> str:
    """A random cluster id as Kafka writes them: 22 characters of URL-safe base64, not starting with a dash."""
    identity = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return identity if not identity.startswith("-") else new_cluster_id()


def java(main: str, *arguments: str) -> list[str]:
    """The command line of one of Kafka's classes, such as `org.apache.kafka.tools.ConsoleProducer`.

    Raises:
        StartFailed: there is no `java`, or the jars could not be fetched.
    """
    if shutil.which("java") is None:
        raise StartFailed("Apache Kafka needs Java: apt-get install default-jre-headless")
    log4j = f"-Dlog4j2.configurationFile={_FILES / 'log4j2.yaml'}"
    return ["java", *_JVM, log4j, "-cp", f"{jars()}/*", main, *arguments]


def jars() -> Path:
    """The folder with Kafka's jars in the user's cache, filled by Maven at first use; safe to call from many processes.

    Raises:
        StartFailed: there is no `mvn`, or it failed.
    """
    return filled_once(f"kafka-{kafka_version()}", _fetch)


def filled_once(name: str, fill: Callable[[Path], None]) -> Path:
    """A folder of the user's cache that `fill` makes at first use; safe to call from many processes."""
    folder = cache_folder() / name
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                fill(folder)
    return folder


def kafka_version() -> str:
    """The version in the pom beside this module."""
    version = ElementTree.parse(_FILES / "pom.xml").findtext(".//{*}kafka.version")
    assert version is not None
    return version


def _fetch(folder: Path) -> None:
    """Copy the jars beside `folder`, then rename: a half-filled folder never has the final name."""
    if shutil.which("mvn") is None:
        raise StartFailed("Apache Kafka's jars are fetched once by Maven: apt-get install maven")
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        shutil.copy(_FILES / "pom.xml", scratch)
        goal = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=jars"]
        done = subprocess.run(goal, cwd=scratch, capture_output=True, text=True)
        if done.returncode != 0:
            raise StartFailed(f"{' '.join(goal)} failed\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        (Path(scratch) / "jars").rename(folder)


def cache_folder() -> Path:
    """Where what is fetched once is kept, for all checkouts of a user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "marquee"
