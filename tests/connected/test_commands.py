"""The commands as processes, on servers of their own: what `up` brings, what works on it, and how everything ends."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.processes import free_port

pytestmark = [pytest.mark.embedded, pytest.mark.slow, pytest.mark.timeout(180)]

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("MARQUEE_") or "CACHE" in name}


@dataclass
class Command:
    """A running `marquee`, and what it started."""

    process: subprocess.Popen[str]
    errors: Path

    @classmethod
    def start(cls, errors: Path, *arguments: str, on_sigint: Any = signal.SIG_DFL) -> "Command":
        """With Ctrl-C as in a foreground shell, however the tests were started."""
        command = [sys.executable, "-m", "streams", *arguments]
        with errors.open("w") as file:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env=CLEAN,
                preexec_fn=partial(signal.signal, signal.SIGINT, on_sigint),
            )
        return cls(process, errors)

    def line(self) -> dict[str, Any]:
        """The next line of standard output, as an object."""
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said, self.errors.read_text()
        return dict(json.loads(said))

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            if self.process.stdout is not None:
                self.process.stdout.close()


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=30)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


def eventually(answer: Callable[[], Any], within_s: float = 60) -> Any:
    until = time.monotonic() + within_s
    while not (found := answer()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    command = Command.start(tmp_path_factory.mktemp("up") / "err", "up", "--http-port", str(free_port()), "--json")
    yield command
    if command.process.poll() is None:
        command.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def places(up: Command) -> dict[str, Any]:
    return up.line()


@pytest.fixture
def marquee(places: dict[str, Any]) -> Callable[..., tuple[int, dict[str, Any]]]:
    environment = {
        **CLEAN,
        "MARQUEE_KAFKA__BOOTSTRAP": places["kafka"],
        "MARQUEE_KAFKA__IDEMPOTENT": "false",
        "MARQUEE_REDIS__URL": places["redis"],
        "MARQUEE_CONSENT__DEFAULT": "grant",
    }

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        command = [sys.executable, "-m", "streams", *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        lines = done.stdout.splitlines()
        return done.returncode, json.loads(lines[-1]) if lines else {}

    return run


def test_up_listens_where_it_was_told_to(up: Command, places: dict[str, Any]) -> None:
    asked = up.process.args
    assert isinstance(asked, list)
    assert places["http"].endswith(f":{asked[asked.index('--http-port') + 1]}")
    with urllib.request.urlopen(places["http"] + "/readyz", timeout=30) as answer:
        assert answer.status == 200


def test_the_doctor_finds_nothing_wrong_with_it(marquee: Any) -> None:
    code, said = marquee("doctor")
    assert (code, said["ok"]) == (0, True), said


def test_its_topics_are_all_there(marquee: Any) -> None:
    assert marquee("topics", "plan")[1]["created"] == []
    assert marquee("topics", "apply") == (0, marquee("topics", "plan")[1])


def test_a_replayed_log_is_answered_over_http(marquee: Any, places: dict[str, Any], tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    rows = [{"user_id": f"u{n % 5}", "item_id": f"i{n % 9}", "timestamp": 1_700_000_000 + n} for n in range(60)]
    log.write_text("\n".join(map(json.dumps, rows)))
    code, said = marquee("replay", str(log))
    assert (code, said["events"]) == (0, 60)

    def slate() -> dict[str, Any]:
        try:
            with urllib.request.urlopen(places["http"] + "/v1/users/u1/slate", timeout=30) as answer:
                return dict(json.loads(answer.read()))
        except urllib.error.HTTPError:
            return {}  # not there yet

    assert eventually(slate)["user_id"] == "u1"


def test_workers_go_back_to_the_snapshot_before_and_forward_again_without_a_restart(
    marquee: Any, places: dict[str, Any], tmp_path: Path
) -> None:
    log = tmp_path / "more.jsonl"

    def versions() -> list[int]:
        return [snapshot["version"] for snapshot in marquee("snapshot", "list")[1]["snapshots"]]

    def serving() -> int:
        with urllib.request.urlopen(places["http"] + "/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        (said,) = (line for line in lines if line.startswith("marquee_snapshot_version "))
        return int(float(said.split()[1]))

    def learn(began_s: int) -> None:
        rows = ({"user_id": f"v{n % 9}", "item_id": f"i{n % 40}", "timestamp": began_s + n} for n in range(1_500))
        log.write_text("\n".join(map(json.dumps, rows)))
        assert marquee("replay", str(log))[0] == 0

    day_s = 1_700_000_000
    while len(versions()) < 2:  # one is built when rows come, if the last one was not built just before
        day_s += 86_400
        learn(day_s)
        time.sleep(1.0)
    eventually(lambda: serving() == versions()[-1])
    code, said = marquee("snapshot", "rollback")
    assert code == 0
    assert said["pinned"] in versions()[:-1]
    eventually(lambda: serving() == said["pinned"])
    assert marquee("snapshot", "list")[1]["pinned"] == said["pinned"]
    assert marquee("snapshot", "pin", str(1 << 40))[0] == 1
    assert marquee("snapshot", "unpin")[0] == 0
    eventually(lambda: serving() == versions()[-1])
    assert marquee("snapshot", "unpin")[0] == 1


async def test_dead_letters_are_listed_shown_replayed_and_discarded(marquee: Any, places: dict[str, Any]) -> None:
    from aiokafka import AIOKafkaProducer

    async with AIOKafkaProducer(bootstrap_servers=places["kafka"]) as producer:
        for value in (b"{", b'{"type":"play"}'):
            await producer.send_and_wait("marquee.events.v1", value, key=b"u")
    letters = eventually(lambda: len(found := marquee("dlq", "list")[1]["letters"]) == 2 and found)
    assert [letter["code"] for letter in letters] == ["malformed", "missing_field"]
    code, whole = marquee("dlq", "show", letters[0]["letter"])
    assert (code, whole["value"], whole["key"]) == (0, "{", "u")
    assert marquee("dlq", "show", "0/99")[0] == 1
    assert marquee("dlq", "replay", "--all", "--dry-run")[1]["handled"] == {"malformed": 1, "missing_field": 1}
    assert marquee("dlq", "replay", "--code", "malformed")[1] == {
        "handled": {"malformed": 1},
        "left": {},
        "dry_run": False,
    }
    again = eventually(lambda: [x for x in marquee("dlq", "list")[1]["letters"] if x["attempts"] == 1])
    assert again[0]["code"] == "malformed"
    assert marquee("dlq", "discard", "--all")[0] == 0
    assert marquee("dlq", "list")[1]["letters"] == []


def test_sigterm_ends_it_and_everything_it_started(up: Command, places: dict[str, Any]) -> None:
    children = up.children()
    assert len(children) == 4
    assert up.end(signal.SIGTERM) == 0
    assert gone(children)
    assert not Path(places["logs"]).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with a killed parent")
def test_sigkill_leaves_nothing_running(tmp_path: Path) -> None:
    command = Command.start(tmp_path / "err", "up", "--http-port", "0", "--json")
    command.line()
    children = command.children()
    assert command.end(signal.SIGKILL) == -signal.SIGKILL
    assert gone(children)


def test_sigterm_ends_it_also_in_the_background(tmp_path: Path) -> None:
    """A shell lets what it starts with & ignore SIGINT."""
    command = Command.start(tmp_path / "err", "up", "--http-port", "0", "--json", on_sigint=signal.SIG_IGN)
    command.line()
    children = command.children()
    assert command.end(signal.SIGTERM) == 0
    assert gone(children)


def test_ctrl_c_ends_a_demo_and_leaves_nothing_running(tmp_path: Path) -> None:
    command = Command.start(tmp_path / "err", "demo", "--report", str(tmp_path / "report"))
    eventually(lambda: "worker ready" in command.errors.read_text(), within_s=60)
    children = command.children()
    assert len(children) == 4
    time.sleep(1)
    assert command.end(signal.SIGINT) == 130
    assert gone(children)
    assert command.errors.read_text().endswith("stopped\n")
    assert not (tmp_path / "report").exists()


def test_a_short_demo_ends_with_its_figures(tmp_path: Path) -> None:
    command = Command.start(tmp_path / "err", "demo", "--events", "300", "--report", str(tmp_path / "report"), "--json")
    out, _ = command.process.communicate(timeout=120)
    assert command.process.returncode == 0, command.errors.read_text()
    said = json.loads(out.splitlines()[-1])
    keys = {"events", "events_per_s", "slates", "p50_ms", "p99_ms", "recall@10", "popularity_recall@10", "report"}
    assert keys | {"seconds"} <= set(said)
    assert (said["events"], said["slates"]) == (300, 300)
    assert set(said["ads"]) == {"slots", "filled", "spend_micros", "capped"}
    assert "<svg" in Path(said["report"]).read_text(encoding="utf-8")
