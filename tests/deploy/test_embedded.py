import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from deploy.embedded import Broker, Valkey
from deploy.kafka_admin import admin_client
from deploy.processes import Child, StartFailed, exchange, free_port


def holds_within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_valkey_keeps_everything_in_memory_and_refuses_rather_than_evicts(valkey: Valkey) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        assert client.config_get("save")["save"] == ""
        assert client.config_get("appendonly")["appendonly"] == "no"
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"


def test_servers_listen_on_loopback_only(valkey: Valkey, embedded_broker: Broker) -> None:
    assert valkey.url.startswith("redis://127.0.0.1:")
    assert embedded_broker.bootstrap.startswith("127.0.0.1:")


async def test_broker_creates_a_topic_once_and_accepts_it_again(embedded_broker: Broker, topic_prefix: str) -> None:
    embedded_broker.create_topic(topic_prefix, 8, cleanup_policy="compact")
    embedded_broker.create_topic(topic_prefix, 8, cleanup_policy="compact")
    async with admin_client(bootstrap_servers=embedded_broker.bootstrap) as admin:
        (topic,) = await admin.describe_topics([topic_prefix])
    assert len([p for p in topic["partitions"] if p["leader"] >= 0]) == 8


@pytest.mark.embedded
def test_server_comes_back_on_its_port_after_a_kill() -> None:
    with Valkey() as server:
        url = server.url
        server.kill()
        assert exchange(server.port, b"PING\r\n") == b""
        server.start()
        assert server.url == url


@pytest.mark.embedded
def test_nothing_is_left_when_the_block_ends() -> None:
    with Valkey() as server:
        assert server.child is not None
        pid, folder = server.child.pid, server.folder
    assert not is_running(pid)
    assert not folder.exists()


@pytest.mark.embedded
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
def test_servers_die_with_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "from deploy.embedded import Broker, Valkey\n"
        "with Broker() as broker, Valkey() as valkey:\n"
        "    print(broker.child.pid, valkey.child.pid, flush=True)\n"
        "    input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(is_running(pid) for pid in pids)
        parent.send_signal(signal.SIGKILL)
    assert holds_within(5, lambda: not any(is_running(pid) for pid in pids))


def test_child_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    children: list[Child] = []
    thread = threading.Thread(target=lambda: children.append(Child(["sleep", "60"], tmp_path / "log")))
    thread.start()
    thread.join()
    time.sleep(0.1)
    assert children[0].returncode is None
    children[0].kill()
    assert children[0].returncode == -signal.SIGKILL


def test_child_that_cannot_start_says_why(tmp_path: Path) -> None:
    child = Child(["sh", "-c", "echo the port is taken >&2; exit 3"], tmp_path / "log")
    with pytest.raises(StartFailed, match=r"exited with 3\n.*the port is taken"):
        child.wait_until(lambda: False, 60)


def test_child_that_stays_silent_is_killed_and_reported(tmp_path: Path) -> None:
    child = Child(["sleep", "60"], tmp_path / "log")
    with pytest.raises(StartFailed, match=r"sleep did not answer within 0\.1 s"):
        child.wait_until(lambda: False, 0.1)
    assert child.returncode is not None


def test_stopping_a_child_ends_what_it_started_and_what_ignores_the_request(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = Child(["sh", "-c", "trap '' TERM; sleep 60 & echo $!; wait; wait"], log)
    assert holds_within(5, lambda: bool(child.tail()))
    grandchild = int(child.tail())
    child.stop(grace_s=0.2)
    assert holds_within(5, lambda: not is_running(grandchild))


def test_free_ports_are_outside_the_range_of_outgoing_connections_and_given_once() -> None:
    """Three nodes of Kafka take six before any of them listens."""
    ports = [free_port() for _ in range(500)]
    assert all(20_000 <= port < 32_000 for port in ports)
    assert len(set(ports)) == 500
