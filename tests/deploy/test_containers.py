"""What `marquee init` writes, as a new user would run it: without an engine, on Apache Kafka and Valkey.

Commands, environment, users, folders and health checks are those of compose.yaml and Dockerfile; `test_compose`
sees that deploy/compose.yaml has the same.
"""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.embedded import valkey_binary
from deploy.kafka import java, new_cluster_id
from deploy.processes import Child
from streams.commands.init import write
from tests.deploy.containers import (
    ROOT,
    Machine,
    compile_loops,
    copy_loops,
    images,
    kafka_properties,
    services,
    until_healthy,
)

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.timeout(300)]

COMPILED = bool(os.environ.get("COMPILE_LOOPS"))
"""Whether loops are compiled for the image's kind of CPU, as its build does; else those for this machine's serve."""
FOREIGN = "23456:0"
"""A user that no image knows, as some clusters choose one."""
DEPLOY = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
TALK = re.findall(r"```sh\n(.*?)```", DEPLOY, re.DOTALL)[0]
"""An event and its slate, as the page of a new deployment says them."""


class Installation:
    """The services of a folder that was begun with `marquee init`, as it wrote them."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine, self.folder = machine, folder
        self.config, compose = write(folder)
        self.services, self.images = services(compose, {}), images()
        self.running: dict[str, Child] = {}
        self.loops = folder / "loops"
        if COMPILED:
            compile_loops(self.loops, self.images["loops"])
        else:
            copy_loops(self.loops)

    def how(self, name: str) -> dict[str, Any]:
        """What of a service of ours is not its command."""
        service, image = self.services[name], self.images["learner" if name == "learner" else "worker"]
        environment = {**image.environment, **service["environment"], "PYTHONPATH": ROOT}
        if not COMPILED:
            environment = {key: value for key, value in environment.items() if not key.startswith("NUMBA_CPU")}
        if name == "learner":  # one network for all: its port is the one that the host has
            environment["MARQUEE_HTTP__PORT"] = service["ports"][0].split(":")[1]
        return {
            "user": image.user,
            "environment": environment,
            "read_only": service["read_only"],
            "scratch": [mount.split(":")[0] for mount in service["tmpfs"]],
            "owned": [volume.split(":")[1] for volume in service.get("volumes", ())],
            "binds": {self.loops: "/opt/loops", self.config: service["configs"][0]["target"]},
        }

    def command(self, name: str) -> list[str]:
        """What the image's entry point is given."""
        image = self.images["learner" if name == "learner" else "worker"]
        return [*image.entrypoint, *self.services[name].get("command", image.command)]

    def start_kafka(self) -> None:
        """With what the image makes of the variables; the classes are Apache Kafka's own."""
        service, settings = self.services["kafka"], self.folder / "server.properties"
        settings.write_text(kafka_properties(service["environment"]))
        how = {"user": "0:0", "environment": {"PATH": os.environ["PATH"]}, "read_only": False}
        volumes = {"owned": [service["volumes"][0].split(":")[1]]}
        place = java("kafka.tools.StorageTool", "format", "-t", new_cluster_id(), "-c", str(settings))
        both = ["sh", "-ec", f"{shlex.join(place)}; exec {shlex.join(java('kafka.Kafka', str(settings)))}"]
        self.running["kafka"] = self.machine.start("kafka", both, **how, **volumes)
        _, script, *asked = service["healthcheck"]["test"]
        assert script.endswith("/kafka-broker-api-versions.sh")
        health = java("org.apache.kafka.tools.BrokerApiVersionsCommand", *asked)
        until_healthy(self.machine, self.running["kafka"], health, 60, **how)

    def start_valkey(self) -> None:
        """The server of the wheel, Debian's command line in place of the image's."""
        service = self.services["valkey"]
        program, *options = service["command"]
        assert program == "valkey-server"
        place = service["volumes"][0].split(":")[1]
        how = {"user": service["user"], "environment": {"PATH": os.defpath}}
        volumes = {"owned": [place], "folder": place}
        self.running["valkey"] = self.machine.start("valkey", [valkey_binary(), *options], **how, **volumes)
        assert service["healthcheck"]["test"] == ["CMD", "valkey-cli", "ping"]
        until_healthy(self.machine, self.running["valkey"], ["redis-cli", "ping"], 10, **how)

    def apply_topics(self) -> None:
        said = self.machine.run(self.command("topics"), **self.how("topics"))
        assert said.returncode == 0, said.stderr
        assert "created marquee.events.v1" in said.stderr.replace("\n", " "), said.stderr

    def start(self, name: str, **other: Any) -> None:
        how = {**self.how(name), **other}
        self.running[name] = self.machine.start(name, self.command(name), **how)

    def until_healthy(self, name: str, within_s: float = 60) -> None:
        """By the image's health check."""
        until_healthy(self.machine, self.running[name], self.images["worker"].health, within_s, **self.how(name))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    refuse = pytest.fail if os.environ.get("REQUIRE_SERVERS") else pytest.skip
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("containers without an engine need root on Linux")
    for program in ("unshare", "nsenter", "setpriv", "ip", "java", "redis-cli", "kcat", "curl"):
        if shutil.which(program) is None:
            refuse(f"{program} is not installed")
    with Machine(tmp_path_factory.mktemp("machine")) as machine:
        yield machine


@pytest.fixture(scope="module")
def installation(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    folder = tmp_path_factory.mktemp("installation")
    folder.chmod(0o755)
    installed = Installation(machine, folder)
    installed.start_kafka()
    installed.start_valkey()
    installed.apply_topics()
    installed.start("learner")
    installed.start("worker", user=FOREIGN)
    return installed


def whole(text: str) -> Iterator[Any]:
    """JSON values one after the other, with or without an end of line between them."""
    while text := text.lstrip():
        value, end = json.JSONDecoder().raw_decode(text)
        yield value
        text = text[end:]


def test_worker_and_learner_are_healthy_by_the_files_own_checks(installation: Installation) -> None:
    installation.until_healthy("worker")
    installation.until_healthy("learner")
    assert "cannot be kept" not in installation.running["worker"].tail(100)


def test_an_event_from_the_host_is_answered_by_kafka_and_http(installation: Installation) -> None:
    how = {"user": "0:0", "environment": {"PATH": os.environ["PATH"]}}
    said = installation.machine.run(["sh", "-ec", TALK], timeout_s=120, **how)
    assert said.returncode == 0, said.stderr
    posted, by_kafka, by_http = whole(said.stdout)
    assert posted == {"accepted": 1, "refused": []}
    assert by_kafka["user_id"] == by_http["user_id"] == "u1"
    assert by_kafka["slate_id"] == by_http["slate_id"]


def test_nothing_is_compiled_that_the_image_brought(installation: Installation) -> None:
    brought = {file.name for file in installation.loops.rglob("*.nbc")}
    for name in ("worker", "learner"):
        loops = installation.machine.inside(installation.running[name], "/tmp/loops")
        assert {file.name for file in loops.rglob("*.nbc")} == brought, name


def test_top_sees_both(installation: Installation) -> None:
    command = [*installation.images["worker"].entrypoint, "top", "--json", "127.0.0.1:6066", "127.0.0.1:6067"]
    said = installation.machine.run(command, **installation.how("worker"))
    seen = json.loads(said.stdout)
    assert [process["role"] for process in seen["processes"]] == ["worker", "learner"], said.stderr
    assert seen["processes"][0]["ranker"] == "no_snapshot"
    assert seen["lag_records"] == 0


def test_a_health_check_fails_where_nobody_answers(installation: Installation) -> None:
    how = installation.how("worker")
    how["environment"] = {**how["environment"], "MARQUEE_HTTP__PORT": "6099"}
    said = installation.machine.run(installation.images["worker"].health, **how)
    assert said.returncode == 1
    assert "refused" in said.stderr


def test_the_root_is_read_only_and_the_user_nobody(installation: Installation) -> None:
    said = installation.machine.run(
        ["sh", "-c", "id -u; touch /opt/x"], **{**installation.how("worker"), "user": FOREIGN}
    )
    assert said.stdout == "23456\n"
    assert "Read-only file system" in said.stderr


def test_they_end_within_the_grace_that_the_file_gives(installation: Installation) -> None:
    for name in ("worker", "learner"):
        grace_s = int(installation.services[name]["stop_grace_period"].removesuffix("s"))
        installation.machine.terminate(installation.running[name])
        assert installation.running[name].wait(grace_s) == 0, installation.running[name].tail()
