"""What the code base promises about itself."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from streams.contract.records import topic_specs
from streams.process.metrics import LearnerMetrics, WorkerMetrics
from streams.settings import TOPIC_NAMES, Settings

ROOT = Path(__file__).parents[1]
PACKAGES = ("streams", "embeddings", "ranking", "deploy")
#: Long because they are lists: every setting, every record.
LISTS = {"streams/settings.py", "streams/contract/records.py"}
LINES, LINES_OF_TESTS, LINES_OF_LISTS = 400, 450, 500
#: Places a reader is sent to, the name of a dialect, and addresses of this machine.
HOSTS = {"127.0.0.1", "localhost", "www.apache.org", "maven.apache.org", "semver.org", "keepachangelog.com"}
HOSTS |= {"json-schema.org"}


def files(*suffixes: str) -> list[str]:
    """Every file of the project, as git sees it."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    return [name for name in names if not suffixes or name.endswith(suffixes)]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8", errors="replace")


def test_no_file_is_too_long_to_read() -> None:
    def limit(name: str) -> int:
        return LINES_OF_LISTS if name in LISTS else LINES_OF_TESTS if name.startswith("tests/") else LINES

    lines = {name: text(name).count("\n") for name in files(".py")}
    assert not {name: count for name, count in lines.items() if count > limit(name)}


def test_modules_are_named_after_what_they_are_about() -> None:
    vague = {"utils", "util", "common", "helpers", "helper", "managers", "manager", "misc", "base"}
    assert not [name for name in files(".py") if set(Path(name).with_suffix("").parts) & vague]


def test_tests_are_no_package() -> None:
    """A package `tests.embeddings` would hide the real one."""
    assert not [name for name in files("__init__.py") if name.startswith("tests/")]


def test_nothing_names_the_machine_it_was_written_on() -> None:
    places = re.compile(r"(?<![\w.}])/(?:work|root|home|Users|mnt)/\w")
    assert not [name for name in files() if name != "tests/test_house_rules.py" and places.search(text(name))]


def test_packages_come_from_wherever_their_clients_are_told() -> None:
    """No registry, mirror or download is written down: pip, Maven and apt know where to go.

    A name without a dot is a neighbour's: a service of a compose file or of a cluster.
    """
    found = {(name, urlsplit(url).hostname) for name in files() for url in re.findall(r"https?://[\w.-]+", text(name))}
    assert not {
        (name, host)
        for name, host in found
        if host not in HOSTS and "." in str(host) and not str(host).endswith((".test", "example"))
    }


def test_every_public_thing_says_what_it_is() -> None:
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--select",
        "D1",
        "--ignore",
        "D105,D107",
        "--no-cache",
        *PACKAGES,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_test_names_are_sentences() -> None:
    short = [
        f"{name}::{node.name}"
        for name in files(".py")
        if Path(name).name.startswith("test_")
        for node in ast.walk(ast.parse(text(name)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and node.name.count("_") < 3
    ]
    assert not short


def test_nothing_is_unpickled() -> None:
    calls = re.compile(r"\bpickle\b|torch\.load\(|allow_pickle=True")
    assert not [name for name in files(".py") if name.startswith(PACKAGES) and calls.search(text(name))]


def test_the_contract_lists_every_topic_as_it_is_created() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| [^|]+ \| (N|1) \| (delete|compact) \|", text("docs/contract.md"), re.M)
    settings = Settings()
    shapes = {spec.topic: spec for spec in topic_specs(settings)}
    topics = {name.replace("_", "-"): name for name in TOPIC_NAMES}
    assert {name for name, _, _ in rows} == set(topics)
    for name, partitions, cleanup in rows:
        spec = shapes[settings.topics.name(topics[name])]
        assert spec.partitions == (settings.topics.partitions if partitions == "N" else 1), name
        assert spec.config["cleanup.policy"] == cleanup, name


def test_pages_and_the_reading_order_name_no_file_that_is_not_there() -> None:
    places = re.compile(rf"\b(?:{'|'.join(PACKAGES)}|tests|docs|benchmarks|examples)/[\w/]+\.(?:py|md)")
    named = {(page, place) for page in files(".md") for place in places.findall(text(page))}
    order = re.findall(r"`(\w+\.\w+)`", text("streams/__init__.py"))
    named |= {("streams/__init__.py", f"streams/{place.replace('.', '/')}.py") for place in order}
    assert len(order) > 10
    assert not {(page, place) for page, place in named if not (ROOT / place).is_file()}


def test_pages_name_no_metric_that_is_not_there() -> None:
    known: set[str] = set()
    for metrics in (WorkerMetrics(process=False), LearnerMetrics(process=False)):
        for family in metrics.registry.collect():
            known |= {family.name, *(sample.name for sample in family.samples)}
            known |= {f"{family.name}_{end}" for end in ("total", "bucket", "sum", "count", "info")}
    named = {(page, name) for page in files(".md") for name in re.findall(r"\bmarquee_[a-z_]+[a-z]", text(page))}
    assert not {(page, name) for page, name in named if name not in known}


def test_pages_name_no_setting_that_is_not_there() -> None:
    groups = {name: field.annotation for name, field in Settings.model_fields.items()}
    keys = {f"{name}.{key}" for name, group in groups.items() for key in getattr(group, "model_fields", {})}
    named = {
        (page, f"{group}.{key}")
        for page in files(".md")
        for group, key in re.findall(r"`([a-z]+)\.([a-z_]+)`", text(page))
        if group in groups and key not in ("py", "md")
    }
    assert not {(page, name) for page, name in named if name not in keys}
