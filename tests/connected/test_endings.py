"""A process that cannot go on says so in one line, and ends."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from aiokafka import AIOKafkaProducer

from deploy.embedded import Broker, Valkey
from deploy.processes import Child
from streams.contract.records import encode, topic_specs
from streams.settings import Settings, Topics

pytestmark = [pytest.mark.embedded, pytest.mark.slow, pytest.mark.timeout(120)]

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("MARQUEE_") or "CACHE" in name}


@pytest.fixture
def environ(embedded_broker: Broker, valkey: Valkey, topic_prefix: str, tmp_path: Path) -> dict[str, str]:
    for spec in topic_specs(Settings(topics=Topics(prefix=topic_prefix, partitions=2))):
        embedded_broker.create_topic(spec.topic, spec.partitions)
    return {
        **CLEAN,
        "MARQUEE_KAFKA__BOOTSTRAP": embedded_broker.bootstrap,
        "MARQUEE_KAFKA__IDEMPOTENT": "false",
        "MARQUEE_KAFKA__SESSION_TIMEOUT_S": "2",
        "MARQUEE_KAFKA__GROUP_PREFIX": topic_prefix,
        "MARQUEE_REDIS__URL": valkey.url,
        "MARQUEE_REDIS__PREFIX": topic_prefix,
        "MARQUEE_TOPICS__PREFIX": topic_prefix,
        "MARQUEE_TOPICS__PARTITIONS": "2",
        "MARQUEE_CONSENT__DEFAULT": "grant",
        "MARQUEE_HTTP__PORT": "0",
        "MARQUEE_LOG__LEVEL": "warning",
        "MARQUEE_LEARNER__SNAPSHOT_DIR": str(tmp_path / "snapshots"),
        "MARQUEE_LEARNER__CHECKPOINT_DIR": str(tmp_path / "checkpoints"),
    }


def said(environ: dict[str, str], *words: str) -> tuple[int, str]:
    """The exit code of a command, and what it wrote to standard error."""
    command = [sys.executable, "-m", "streams", *words]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


async def compressed(environ: dict[str, str], topic: str) -> None:
    where = environ["MARQUEE_KAFKA__BOOTSTRAP"]
    async with AIOKafkaProducer(bootstrap_servers=where, compression_type="zstd") as producer:
        await producer.send_and_wait(topic, encode({"type": "play", "user_id": "u" * 999}), key=b"u")


@pytest.mark.parametrize(("role", "topic"), [("worker", "catalog"), ("learner", "observations")])
def test_a_codec_that_is_missing_ends_it_by_name(
    environ: dict[str, str], topic_prefix: str, tmp_path: Path, role: str, topic: str
) -> None:
    (tmp_path / "cramjam.py").write_text("raise ImportError")
    asyncio.run(compressed(environ, f"{topic_prefix}.{topic}.v1"))
    code, err = said({**environ, "PYTHONPATH": str(tmp_path)}, role)
    assert code == 1
    assert err == "failed: UnsupportedCodecError: Libraries for zstd compression codec not found\n"
    if role == "worker":
        found = said({**environ, "PYTHONPATH": str(tmp_path)}, "doctor")[1]
        assert "pip install cramjam: the first record compressed with snappy or lz4 or zstd ends a worker" in found


def test_a_damaged_checkpoint_ends_the_learner_by_name(environ: dict[str, str], tmp_path: Path) -> None:
    damaged = tmp_path / "checkpoint-00000000000000000009.safetensors"
    damaged.write_bytes(b"half")
    code, err = said({**environ, "MARQUEE_LEARNER__CHECKPOINT_DIR": str(tmp_path)}, "learner")
    assert code == 1
    assert err.startswith(f"failed: {damaged} cannot be read, move it away to go on without it: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [damaged]


def test_a_store_that_refuses_ends_a_worker_with_what_it_needs(environ: dict[str, str], valkey: Valkey) -> None:
    with redis.Redis.from_url(valkey.url) as owner:
        owner.acl_setuser("reads", enabled=True, reset=True, nopass=True, keys=["*"], commands=["+@read", "-info"])
        code, err = said({**environ, "MARQUEE_REDIS__USERNAME": "reads", "MARQUEE_REDIS__PASSWORD": "x"}, "worker")
        owner.acl_deluser("reads")
    assert code == 1
    assert err.count("\n") == 1
    assert "redis.username may not do what is needed: `marquee doctor --acl` lists it" in err


@pytest.mark.parametrize("taken", ["read", "write"])
def test_rights_taken_away_end_a_running_worker_with_one_sentence(
    environ: dict[str, str], valkey: Valkey, topic_prefix: str, tmp_path: Path, taken: str
) -> None:
    log = tmp_path / "worker.log"
    where = {"MARQUEE_REDIS__USERNAME": topic_prefix, "MARQUEE_REDIS__PASSWORD": "x"}
    with redis.Redis.from_url(valkey.url) as owner:
        owner.acl_setuser(topic_prefix, enabled=True, nopass=True, keys=["*"], commands=["+@all"])
        worker = Child([sys.executable, "-m", "streams", "worker"], log, env={**environ, **where})
        try:
            worker.wait_until(lambda: owner.exists(f"{topic_prefix}:topics") == 1, 60)
            owner.acl_setuser(topic_prefix, commands=[f"-@{taken}"])
            assert worker.wait(30) == 1
        finally:
            worker.kill()
            owner.acl_deluser(topic_prefix)
    lines = log.read_text().splitlines()
    assert lines[-1].startswith(f"failed: Redis at 127.0.0.1:{valkey.port}: redis.username may not do what is needed")
    assert not [line for line in lines if "Traceback" in line or "crash!" in line], lines
