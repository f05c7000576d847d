"""Compose files are as the specification wants them, and as hardened as they say."""

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from deploy.kafka import kafka_version
from streams.commands.init import FILES, write
from streams.configuration import load_settings
from streams.process.host import STOP_S
from tests.deploy import go_modules
from tests.deploy.containers import ROOT, images, services

COMPOSE, STARTER = ROOT / "deploy" / "compose.yaml", ROOT / "deploy" / "starter" / "compose.yaml"
OURS = ("topics", "worker", "learner")
both = pytest.mark.parametrize("file", [COMPOSE, STARTER], ids=["deploy", "starter"])


@functools.cache
def said(file: Path) -> dict[str, dict[str, Any]]:
    return services(file, {"MARQUEE_CONSENT__DEFAULT": "deny"})


@pytest.fixture(scope="module")
def specification() -> jsonschema.protocols.Validator:
    schema = json.loads((go_modules.module(go_modules.COMPOSE) / "schema" / "compose-spec.json").read_text())
    return jsonschema.validators.validator_for(schema)(schema)


@both
def test_a_file_is_as_the_specification_wants_it(file: Path, specification: jsonschema.protocols.Validator) -> None:
    found = yaml.safe_load(file.read_text())
    assert not [f"{list(error.path)}: {error.message}" for error in specification.iter_errors(found)]
    found["services"]["worker"]["read_onlly"] = True
    assert list(specification.iter_errors(found))


@both
def test_what_is_not_decided_or_not_there_is_no_service(file: Path) -> None:
    for name, service in said(file).items():
        assert set(service.get("depends_on", ())) <= said(file).keys(), name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            named = source in yaml.safe_load(file.read_text())["volumes"]
            assert named or (file.parent / source).is_dir(), volume
    with pytest.raises(LookupError, match="deny or grant"):
        services(COMPOSE, {})


@both
def test_ours_are_hardened_and_have_time_to_stop(file: Path) -> None:
    for name in OURS:
        service = said(file)[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert float(service["stop_grace_period"].removesuffix("s")) > STOP_S
        assert "user" not in service  # the image's


@both
def test_environments_are_settings(file: Path, tmp_path: Path) -> None:
    write(tmp_path)
    for name in OURS:
        environ = {key: str(value) for key, value in said(file)[name]["environment"].items()}
        if "MARQUEE_CONFIG" in environ:
            environ["MARQUEE_CONFIG"] = str(tmp_path / "marquee.toml")
        assert load_settings(environ={**images()["runtime"].environment, **environ}).consent.default == "deny"


def test_both_files_agree_on_what_both_have() -> None:
    one, other = said(COMPOSE), said(STARTER)
    for name, service in other.items():
        for key, value in service.items():
            if key not in ("environment", "configs"):
                assert one[name][key] == value, (name, key)
        differ = set(one[name].get("environment", {}).items()) ^ set(service.get("environment", {}).items())
        assert {key for key, _ in differ} <= {"MARQUEE_CONFIG", "MARQUEE_CONSENT__DEFAULT", "MARQUEE_LOG__FORMAT"}, name


def test_kafka_is_the_one_that_is_tested() -> None:
    assert said(COMPOSE)["kafka"]["image"] == f"apache/kafka:{kafka_version()}"


def test_boards_and_rules_are_where_they_are_looked_for() -> None:
    grafana = said(COMPOSE)["grafana"]["volumes"]
    provider = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/marquee.yaml").read_text())["providers"][
        0
    ]
    assert any(volume.split(":")[1] == provider["options"]["path"] for volume in grafana)
    source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    for name in FILES:
        assert (ROOT / "deploy" / "starter" / name).is_file()
