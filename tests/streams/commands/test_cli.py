"""What a person meets: exit codes, one line about what is wrong, and the one object of `--json`."""

import json
import logging
import os
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streams.commands.cli import app, main
from streams.commands.dlq import chosen, place
from streams.process.logs import JsonLines

NOBODY = {"MARQUEE_KAFKA__BOOTSTRAP": "127.0.0.1:1", "MARQUEE_REDIS__URL": "redis://127.0.0.1:1/0"}


class Said(dict[str, Any]):
    """What a command said: exit code, standard output, standard error; as a dict, the object of its last line."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        last = out.rstrip().rpartition("\n")[2]
        super().__init__(json.loads(last) if last.startswith("{") else {})


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("MARQUEE_") and name != "MARQUEE_CACHE":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def marquee(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, *capsys.readouterr())

    return run


@contextmanager
def capture_warnings() -> Iterator[list[str]]:
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    yield lines
    logging.getLogger().removeHandler(handler)


def test_every_verb_explains_itself(marquee: Any) -> None:
    verbs = ["demo", "up", "worker", "learner", "topics", "replay", "evaluate", "bench", "doctor", "config", "dlq"]
    verbs += ["ads", "contract", "init", "simulate", "state", "snapshot", "top"]
    assert {command.name for command in app.registered_groups} | {
        command.callback.__name__ for command in app.registered_commands if command.callback
    } == set(verbs)
    for verb in verbs:
        said = marquee(verb, "--help")
        assert said.code == 0, said.err
        assert verb in said.out


def test_without_a_verb_the_help_comes(marquee: Any) -> None:
    said = marquee()
    assert said.code == 0
    assert "demo" in said.out


def test_the_version_is_that_of_the_project(marquee: Any) -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert marquee("--version").out == f"marquee {project['version']}\n"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nothing"], "'nothing'"),
        (["demo", "--event", "5"], "--events"),
        (["demo", "--events", "5"], "100"),
        (["evaluate", "my-log"], "--format"),
        (["evaluate", "absent.csv", "--format", "csv"], "absent.csv"),
        (["evaluate", "--format", "xml"], "movielens"),
        (["evaluate", "--baseline", "oracle"], "popularity"),
        (["evaluate", "ipinyou", "--events", "100"], "--events"),
        (["replay", "absent.jsonl"], "absent.jsonl"),
        (["dlq", "show", "x"], "0/12"),
        (["dlq", "replay"], "--all"),
        (["dlq", "discard", "--code", "gone"], "malformed"),
        (["dlq", "list", "--topic", "slates"], "events"),
        (["simulate", "ads", "--system", "magic"], "learned-soft"),
        (["simulate", "ads", "--campaigns", "3"], "10"),
    ],
)
def test_wrong_use_ends_with_2_and_one_line_that_helps(marquee: Any, arguments: list[str], word: str) -> None:
    said = marquee(*arguments)
    assert said.code == 2
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("wrong use: ")
    assert word in said.err
    assert "--help" in said.err


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"MARQUEE_SLATES__SISE": "3"}, ["MARQUEE_SLATES__SISE", "slates.size"]),
        ({"MARQUEE_SLATES__SIZE": "900"}, ["slates.size", "900", "1 to 200"]),
        ({}, ["consent.default", "grant, deny"]),
    ],
)
def test_wrong_settings_end_with_2_and_name_the_key(
    marquee: Any, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], words: list[str]
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    said = marquee("config", "check")
    assert said.code == 2
    assert said.err.startswith("settings: ")
    assert all(word in said.err for word in words), said.err


@pytest.mark.parametrize(
    "arguments", [["worker"], ["learner"], ["topics", "apply"], ["dlq", "list"], ["snapshot", "list"]]
)
def test_a_broker_that_is_away_is_a_failure_and_no_traceback(
    marquee: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    for name, value in {**NOBODY, "MARQUEE_CONSENT__DEFAULT": "deny"}.items():
        monkeypatch.setenv(name, value)
    said = marquee(*arguments)
    assert said.code == 1
    assert "failed: " in said.err
    assert "no broker answers at 127.0.0.1:1; is it running, and is kafka.bootstrap " in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("role", ["worker", "learner"])
def test_a_port_that_is_taken_is_told_before_anything_starts(
    marquee: Any, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setenv("MARQUEE_HTTP__PORT", str(other.getsockname()[1]))
        said = marquee(role)
    assert said.code == 1
    assert said.err.count("\n") == 1
    assert "MARQUEE_HTTP__PORT" in said.err


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"MARQUEE_HTTP__HOST": "192.0.2.1"}, "failed: http.host = '192.0.2.1': cannot be listened on here"),
        (
            {"MARQUEE_HTTP__HOST": "nowhere.invalid"},
            "failed: http.host = 'nowhere.invalid': cannot be listened on here",
        ),
        (
            {"MARQUEE_LEARNER__HOST": "192.0.2.1", "MARQUEE_LEARNER__SERVE": "true"},
            "failed: learner.host = '192.0.2.1': cannot be listened on here",
        ),
    ],
)
def test_a_host_that_is_not_this_machines_is_the_hosts_fault(
    marquee: Any, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], said: str
) -> None:
    for name, value in {"MARQUEE_HTTP__PORT": "0", **environ}.items():
        monkeypatch.setenv(name, value)
    found = marquee("learner")
    assert (found.code, found.err.count("\n")) == (1, 1)
    assert found.err.startswith(said)
    assert "http.port" not in found.err


def test_service_links_are_one_line_and_no_obstacle(marquee: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARQUEE_CONSENT__DEFAULT", "deny")
    monkeypatch.setenv("MARQUEE_PORT", "tcp://10.0.48.109:6066")
    monkeypatch.setenv("MARQUEE_SERVICE_HOST", "10.0.48.109")
    with capture_warnings() as lines:
        assert marquee("config", "check").code == 0
    assert [line.partition(",")[0] for line in lines] == ["MARQUEE_PORT"]
    assert "enableServiceLinks" in lines[0]


def test_an_error_that_nobody_expected_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("streams.configuration.schema", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(["config", "schema"])


def test_doctor_says_what_is_missing(marquee: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NOBODY.items():
        monkeypatch.setenv(name, value)
    said = marquee("doctor", "--json")
    assert said.code == 1
    assert said["ok"] is False
    found = {check["name"]: check for check in said["checks"]}
    assert not found["broker"]["ok"]
    assert not found["redis"]["ok"]
    assert found["faiss"]["ok"]
    assert "marquee up" in said.err


def test_settings_are_shown_without_their_secrets(marquee: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARQUEE_REDIS__PASSWORD", "canary")
    said = marquee("config", "show")
    assert said.code == 0
    assert json.loads(said.out)["redis"]["password"] == "**********"
    assert "canary" not in said.out + said.err


def test_the_schema_knows_every_group(marquee: Any) -> None:
    assert {"kafka", "redis", "slates"} <= set(json.loads(marquee("config", "schema").out)["properties"])


def test_a_log_of_ones_own_is_evaluated(marquee: Any, tmp_path: Path) -> None:
    rows = [f"u{n % 7},i{n % 11},{1_000_000 + n}" for n in range(60)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    said = marquee("evaluate", "log.csv", "--format", "csv", "--baseline", "popularity", "--json")
    assert said.code == 0, said.err
    assert {"dataset", "events", "recall@10", "recall@20", "ndcg@10", "second_half", "baselines", "seconds"} <= set(
        said
    )
    assert (said["dataset"], said["events"], set(said["baselines"])) == ("log", 60, {"popularity"})


def test_a_broken_log_is_named_with_its_line(marquee: Any, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"user_id": "u", "item_id": "i"}\n{"user_id": "u"}\n')
    said = marquee("evaluate", "log.jsonl", "--format", "jsonl")
    assert said.code == 1
    assert "log.jsonl:2" in said.err


def test_bad_lines_may_be_left_out_and_a_yardstick_too(
    marquee: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.lab.baselines.available", lambda: 500)
    rows = [f"u{n % 7},i{n % 11},{1_000_000 + n if n % 20 else 'n/a'},{n % 11}" for n in range(60)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp,rating", *rows]) + "\n")
    asked = [
        "evaluate",
        "log.csv",
        "--format",
        "csv",
        "--baseline",
        "popularity",
        "--baseline",
        "cooccurrence",
        "--json",
    ]
    refused = marquee(*asked)
    assert (refused.code, refused.out, refused.err.count("\n")) == (1, "", 1)
    assert "failed: log.csv:2: timestamp is 'n/a'; " in refused.err
    said = marquee(*asked, "--on-error", "skip")
    assert (said.code, said["events"], said["skipped"], set(said["baselines"])) == (0, 57, 3, {"popularity"})
    assert "left out: log.csv:2: " in said.err
    assert "ratings go up to 10" in said.err
    assert "cooccurrence is left out: it takes" in said.err
    assert said.out.index("marquee") < said.out.index("popularity")


def test_nothing_is_published_of_a_log_with_a_bad_line_at_its_end(marquee: Any, tmp_path: Path) -> None:
    """There is no broker: a command that publishes would wait for one."""
    rows = [json.dumps({"user_id": f"u{n}", "item_id": "i", "timestamp": 1_700_000_000 + n}) for n in range(2_500)]
    (tmp_path / "log.jsonl").write_text("\n".join([*rows, '{"user_id":"u\\ud83d","item_id":"i"}']))
    said = marquee("replay", "log.jsonl")
    assert said.code == 1
    assert "log.jsonl:2501: user_id is 'u\\ud83d', which holds half a character" in said.err


def test_letters_are_named_by_partition_and_offset() -> None:
    assert place("12") == (0, 12)
    assert place("3/12") == (3, 12)


def test_letters_are_chosen_by_code_by_name_or_all() -> None:
    class Letter:
        partition, offset, code = 0, 7, "nan"

    letter: Any = Letter()
    assert chosen(["nan"], None, False)(letter)
    assert chosen(None, ["0/7"], False)(letter)
    assert chosen(None, None, True)(letter)
    assert not chosen(["future"], ["0/8"], False)(letter)


def test_json_lines_hold_time_level_and_traceback() -> None:
    record = logging.LogRecord("streams.worker.worker", logging.WARNING, "", 0, "%d lost", (3,), None)
    record.created, record.msecs = 0.0, 5.0
    said = json.loads(JsonLines().format(record))
    assert said == {
        "time": "1970-01-01T00:00:00.005Z",
        "level": "warning",
        "logger": "streams.worker.worker",
        "message": "3 lost",
    }


def test_help_loads_nothing_heavy() -> None:
    command = "import sys; import streams.commands.cli; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "faiss", "faust", "aiokafka", "numba", "pydantic", "matplotlib", "redis"}
    assert not heavy & set(done.stdout.split())


def test_python_m_streams_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "streams", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("marquee ")


@pytest.mark.slow
@pytest.mark.parametrize(("said", "threads"), [({}, "1"), ({"OPENBLAS_NUM_THREADS": "3"}, "3")])
def test_products_are_computed_by_one_thread_unless_somebody_says_otherwise(said: dict[str, str], threads: str) -> None:
    """A second one waits in a loop for its part of products that are too small to share."""
    asked = (
        "import contextlib, sys; from streams.commands.cli import main\n"
        "assert 'numpy' not in sys.modules, 'it reads the variable as it is imported'\n"
        "with contextlib.suppress(SystemExit): main(['config', 'show'])\n"
        "import os, numpy; print(os.environ['OPENBLAS_NUM_THREADS'])\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    ended = subprocess.run([sys.executable, "-c", asked], env=kept | said, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == threads
