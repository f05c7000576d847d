"""A server that answers and refuses: what passes, what never will, and what is said of it."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from deploy.embedded import Valkey
from deploy.processes import free_port
from embeddings.errors import StoreRefused, StoreUnavailable
from embeddings.events import Source
from embeddings.redis_store import COMMANDS, RedisUserStore
from embeddings.store import PartitionMark
from streams.process.metrics import WorkerMetrics
from tests.connected.relays import Relay

EVENTS = Source("events", 0)
pytestmark = pytest.mark.embedded


class Options(Valkey):
    """Valkey with options of a test's own."""

    more: tuple[str, ...] = ()

    def command(self) -> list[str]:
        return [*super().command(), *self.more]

    def answers(self) -> bool:
        """It may want a password before it says more."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def server_with(*more: str) -> Iterator[tuple[Options, Callable[..., object]]]:
    """A server, and a way to command it as its owner."""
    server = Options()
    server.more = more
    with server, redis.Redis.from_url(server.url, password="pw" if "--requirepass" in more else None) as owner:
        yield server, owner.execute_command


@pytest.fixture(scope="module")
def owned() -> Iterator[tuple[Options, Callable[..., object]]]:
    with server_with() as both:
        yield both


def at(server: Valkey, who: str = "", database: int = 0) -> RedisUserStore:
    return RedisUserStore(f"redis://{who}127.0.0.1:{server.port}/{database}")


def refused(work: Callable[[], object]) -> str:
    with pytest.raises(StoreRefused) as why:
        work()
    assert "\n" not in str(why.value)
    return str(why.value)


def passing(work: Callable[[], object]) -> str:
    with pytest.raises(StoreUnavailable) as why:
        work()
    return str(why.value)


def test_a_cluster_is_refused_by_name() -> None:
    with server_with("--cluster-enabled", "yes") as (server, command):
        store = at(server)
        for served in (8_000, 16_383):  # none of its slots, some, all: CLUSTERDOWN, MOVED and CROSSSLOT
            for work in (store.rehearse, lambda: store.claim([EVENTS]), lambda: store.read(["a", "b", "c"])):
                assert "it is a cluster, which is not supported yet" in refused(work)
            command("CLUSTER", "ADDSLOTSRANGE", str(served - 8_000 and 8_001), str(served))
        assert "it is a cluster, which is not supported yet" in refused(store.rehearse)
        assert "as a cluster has only one" in refused(at(server, database=1).rehearse)


def test_the_wrong_password_is_refused_and_a_missing_one() -> None:
    with server_with("--requirepass", "pw") as (server, _):
        assert "it wants a password: set redis.password" in refused(at(server).rehearse)
        assert "check redis.username and redis.password" in refused(at(server, ":no@").rehearse)
        assert "check redis.username and redis.password" in refused(at(server, "who:pw@").rehearse)
        assert f"Redis at 127.0.0.1:{server.port}: " in refused(at(server, ":no@").rehearse)
        at(server, ":pw@").rehearse()


def test_a_password_that_nobody_set_is_refused(owned: tuple[Options, Callable[..., object]]) -> None:
    assert "check redis.username and redis.password" in refused(at(owned[0], ":pw@").rehearse)


def test_a_database_that_is_not_there_is_refused(owned: tuple[Options, Callable[..., object]]) -> None:
    assert "it has no database of that number" in refused(at(owned[0], database=99).rehearse)


@pytest.mark.parametrize("lacking", [name for name in COMMANDS if name not in ("msetex", "select", "info")])
def test_a_user_who_lacks_one_command_is_told_where_they_are_listed(
    owned: tuple[Options, Callable[..., object]], lacking: str
) -> None:
    server, command = owned
    granted = [f"+{name}" for name in COMMANDS if name not in ("msetex", lacking)]
    command("SCRIPT", "FLUSH")
    command("ACL", "SETUSER", "narrow", "reset", "on", "nopass", "~mq:*", *granted)
    store = at(server, "narrow:x@")
    assert "`marquee doctor --acl` lists it" in refused(store.rehearse)
    if lacking in ("evalsha", "script|load", "set", "mget"):
        assert "`marquee doctor --acl` lists it" in refused(lambda: store.claim([EVENTS]))


def test_a_user_without_what_is_optional_can_do_everything(owned: tuple[Options, Callable[..., object]]) -> None:
    server, command = owned
    granted = [f"+{name}" for name in COMMANDS if name not in ("msetex", "select", "info")]
    command("ACL", "SETUSER", "narrow", "reset", "on", "nopass", "~mq:*", *granted)
    assert at(server, "narrow:x@").rehearse() == {}


def test_a_user_of_another_prefix_is_refused(owned: tuple[Options, Callable[..., object]]) -> None:
    server, command = owned
    command("ACL", "SETUSER", "narrow", "reset", "on", "nopass", "~other:*", *[f"+{name}" for name in COMMANDS])
    assert "`marquee doctor --acl` lists it" in refused(at(server, "narrow:x@").rehearse)


def test_a_command_that_the_owner_took_away_is_refused() -> None:
    with server_with("--rename-command", "EVALSHA", "") as (server, _):
        assert "took a command away" in refused(at(server).rehearse)


def test_a_full_server_and_one_that_cannot_save_pass(owned: tuple[Options, Callable[..., object]]) -> None:
    server, command = owned
    store = at(server)
    command("CONFIG", "SET", "maxmemory", "1")
    assert "its memory is full: raise maxmemory" in passing(store.rehearse)
    command("CONFIG", "SET", "maxmemory", "0", "min-replicas-to-write", "1")
    assert "too few replicas" in passing(store.rehearse)
    command("CONFIG", "SET", "min-replicas-to-write", "0")
    store.rehearse()
    with server_with("--save", "1 1") as (other, order):
        order("CONFIG", "SET", "rdbcompression", "no")
        store = at(other)
        (other.folder / "dump.rdb").mkdir()  # what it saves cannot have that name
        order("SET", "mq:x", "1")
        with pytest.raises(redis.ResponseError):
            order("SAVE")
        order("BGSAVE")
        while order("INFO", "persistence")["rdb_bgsave_in_progress"]:  # type: ignore[index]
            pass
        assert "cannot save to its disk" in passing(store.rehearse)
        (other.folder / "dump.rdb").rmdir()


def test_whoever_watches_a_line_hears_how_long_it_took_and_why_it_failed(
    owned: tuple[Options, Callable[..., object]],
) -> None:
    server, command = owned
    metrics = WorkerMetrics(process=False)
    store = RedisUserStore(f"redis://127.0.0.1:{server.port}/0", watch=metrics.redis.watch("events"))

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"marquee_redis_{name}", labels)

    store.ping()
    store.ping()
    assert value("round_trip_seconds_count", client="events") == 2
    assert value("round_trip_seconds_count", client="pages") == 0
    assert value("connections_total", client="events") == 1
    assert float(store.said()["used_memory"]) > 0
    command("CONFIG", "SET", "maxmemory", "1")
    try:
        passing(store.ping)
    finally:
        command("CONFIG", "SET", "maxmemory", "0")
    assert value("errors_total", kind="full") == 1
    command("CLIENT", "PAUSE", "5000", "WRITE")
    try:
        hasty = RedisUserStore(
            f"redis://127.0.0.1:{server.port}/0", timeout_s=0.1, watch=metrics.redis.watch("requests")
        )
        passing(hasty.ping)
    finally:
        command("CLIENT", "UNPAUSE")
    assert value("errors_total", kind="timeout") == 1
    nowhere = RedisUserStore(f"redis://127.0.0.1:{free_port()}/0", watch=metrics.redis.watch("ads"))
    passing(nowhere.ping)
    assert (value("errors_total", kind="connection"), value("connections_total", client="ads")) == (1, 0)
    refused(RedisUserStore(f"redis://:pw@127.0.0.1:{server.port}/0", watch=metrics.redis.watch("ads")).ping)
    assert value("errors_total", kind="refused") == 1


def test_what_a_rehearsal_wrote_is_gone_and_what_was_there_is_as_before(
    owned: tuple[Options, Callable[..., object]],
) -> None:
    server, command = owned
    command("FLUSHALL")
    store = at(server)
    assert "server_name" in store.rehearse()
    assert command("DBSIZE") == 0
    store.claim([EVENTS])
    before = command("GET", "mq:topics")
    store.rehearse()
    assert command("GET", "mq:topics") == before
    assert command("DBSIZE") == 2  # topics and the fence


def test_a_demoted_server_is_left_for_the_one_its_address_moved_to() -> None:
    with server_with() as (first, demote), server_with() as (second, there):
        address = Relay(first.port)
        writer, reader = RedisUserStore(address.url), RedisUserStore(address.url)
        writer.claim([EVENTS])
        assert reader.latest_slate("u") is None
        made = address.made
        demote("REPLICAOF", "127.0.0.1", "1")
        for _ in range(2):  # the address has not moved yet: it is asked again, on a new connection
            assert "it is a replica and takes no writes: name its primary" in passing(lambda: writer.claim([EVENTS]))
        assert reader.latest_slate("u") is None
        assert address.made > made + 1
        address.port = second.port
        writer.claim([EVENTS])
        there("SET", "mq:mark:events:0", PartitionMark(7).to_bytes())
        assert reader.marks([EVENTS])[EVENTS].offset == 7
        address.close()


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x"]
    subprocess.run([*make, "-keyout", tmp_path / "key", "-out", tmp_path / "crt"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")

    def shake_hands(listener: socket.socket) -> None:
        with pytest.raises(ssl.SSLError), context.wrap_socket(listener.accept()[0], server_side=True):
            pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        hands = threading.Thread(target=shake_hands, args=(listener,))
        hands.start()
        store = RedisUserStore(f"rediss://127.0.0.1:{listener.getsockname()[1]}/0")
        assert "its certificate is refused" in refused(store.rehearse)
        hands.join()


def test_a_server_of_another_kind_is_told_as_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as client:
                client.recv(1 << 16)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        other = threading.Thread(target=answer)
        other.start()
        store = RedisUserStore(f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
        assert "does not speak Redis' protocol" in passing(store.rehearse)
        other.join()
