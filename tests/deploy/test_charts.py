"""The chart, for every file of values: linted, rendered, and each thing held to its own schema.

Values against their schema are checked by `make test`; what needs helm by `make charts`.
"""

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from deploy.boards.rules import alert_rules, recording_rules
from streams.configuration import SettingsError, load_settings
from streams.process.host import STOP_S
from tests.deploy import go_modules
from tests.deploy.containers import ROOT, images
from tests.deploy.promtool import cases

HELM_FOLDER = ROOT / "deploy" / "helm"
CHART = HELM_FOLDER / "marquee"
VALUES = sorted(HELM_FOLDER.glob("*.yaml"))
VERSIONS = ("1.27.0", "1.35.0")
"""The oldest Kubernetes that the chart says it is for, and one of today."""
CRDS = {
    "ServiceMonitor": (go_modules.PROMETHEUS_OPERATOR, "example/prometheus-operator-crd/*_servicemonitors.yaml"),
    "PrometheusRule": (go_modules.PROMETHEUS_OPERATOR, "example/prometheus-operator-crd/*_prometheusrules.yaml"),
    "ScaledObject": (go_modules.KEDA, "config/crd/bases/keda.sh_scaledobjects.yaml"),
}
PLACES = {"kafka": {"bootstrap": "k:9092"}, "redis": {"url": "redis://r:6379/0"}}
every_values = pytest.mark.parametrize("values", VALUES, ids=lambda file: file.stem)


def helm(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([go_modules.helm(), *map(str, words)], capture_output=True, text=True, check=False)


@cache
def rendered(values: Path, version: str = VERSIONS[-1], *more: str, namespace: str = "media") -> list[dict[str, Any]]:
    said = helm("template", "shop", CHART, "-f", values, "-n", namespace, "--kube-version", version, *more)
    assert said.returncode == 0, said.stderr
    return [thing for thing in yaml.safe_load_all(said.stdout) if thing]


def pods(things: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        thing["metadata"]["name"]: thing["spec"]["template"]["spec"]
        for thing in things
        if "template" in thing.get("spec", {})
    }


def environment(pod: dict[str, Any]) -> dict[str, str]:
    """As the container gets it; secrets are some text."""
    return {said["name"]: said.get("value", "some text") for said in pod["containers"][0]["env"]}


@cache
def strict_schema(kind: str) -> jsonschema.protocols.Validator:
    """Of a custom resource, refusing what it does not know, as an API server does not."""
    module, pattern = CRDS[kind]
    definition = yaml.safe_load(next(go_modules.module(module).glob(pattern)).read_text())
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return jsonschema.Draft202012Validator(_strict(schema))


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    elif isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


@every_values
def test_values_fit_their_schema(values: Path) -> None:
    said, schema = yaml.safe_load(values.read_text()), json.loads((CHART / "values.schema.json").read_text())
    both = {**yaml.safe_load((CHART / "values.yaml").read_text()), **said}
    jsonschema.validate(both, schema)
    jsonschema.validate(said, schema)


@pytest.mark.parametrize(
    "wrong",
    [
        {"settings": {}},
        {"settings": {**PLACES, "consent": {"default": "maybe"}}},
        {"settings": {**PLACES, "consent": {"default": "deny"}, "ads": {"secret": "hunter2"}}},
        {"worker": {"replica": 2}},
        {"workers": {}},
        {"terminationGracePeriodSeconds": 25},
        {"secrets": {"redis.password": "hunter2"}},
    ],
)
def test_the_schema_refuses_what_would_not_run(wrong: dict[str, Any]) -> None:
    schema, fine = json.loads((CHART / "values.schema.json").read_text()), yaml.safe_load(VALUES[0].read_text())
    jsonschema.validate(fine, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**fine, **wrong}, schema)


@pytest.mark.charts
@every_values
def test_helm_lints_without_a_word(values: Path) -> None:
    said = helm("lint", CHART, "-f", values, "--strict", "--kube-version", VERSIONS[-1])
    assert said.returncode == 0, said.stdout + said.stderr
    assert "[WARNING]" not in said.stdout


@pytest.mark.charts
def test_nothing_is_installed_before_consent_is_decided() -> None:
    said = helm("template", "shop", CHART, "--kube-version", VERSIONS[-1])
    assert said.returncode
    assert "settings" in said.stderr
    crowd = ("--set", "worker.scaling.enabled=true,worker.scaling.max=9,worker.scaling.prometheus=http://p.test")
    said = helm("template", "shop", CHART, "-f", HELM_FOLDER / "laptop.yaml", "--kube-version", VERSIONS[-1], *crowd)
    assert "9 workers would share 4 partitions" in said.stderr
    crowd = ("--set", "worker.replicas=3,gpu.enabled=true,gpu.replicas=2")
    said = helm("template", "shop", CHART, "-f", HELM_FOLDER / "laptop.yaml", "--kube-version", VERSIONS[-1], *crowd)
    assert "5 workers would share 4 partitions" in said.stderr


@pytest.mark.charts
@every_values
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_thing(values: Path, version: str) -> None:
    for thing in rendered(values, version):
        if thing["kind"] not in CRDS:
            kubernetes_validate.validate(thing, version.rpartition(".")[0], strict=True)


@pytest.mark.charts
@every_values
def test_custom_resources_are_as_their_definitions_say(values: Path) -> None:
    found = [thing for thing in rendered(values) if thing["kind"] in CRDS]
    expected = {"laptop": set(), "team": {"ServiceMonitor", "PrometheusRule"}, "ten-thousand": set(CRDS)}
    assert {thing["kind"] for thing in found} == expected[values.stem]
    for thing in found:
        body = {key: value for key, value in thing.items() if key != "metadata"}
        errors = [f"{list(error.path)}: {error.message}" for error in strict_schema(thing["kind"]).iter_errors(body)]
        assert not errors, thing["kind"]
        body["spec"]["misspelt"] = 1
        assert list(strict_schema(thing["kind"]).iter_errors(body))


@pytest.mark.charts
@every_values
def test_every_pod_has_the_images_environment_and_settings_that_load(values: Path) -> None:
    for name, pod in pods(rendered(values)).items():
        environ = {**images()["runtime"].environment, **environment(pod)}
        mounted = [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]]
        file = environ.pop("MARQUEE_KAFKA__SSL_CA_FILE", None)
        assert file is None or str(Path(file).parent) in mounted
        settings = load_settings(environ=environ)
        assert settings.consent.default == "deny", name
        assert settings.learner.serve == ("learner" in name)
        assert settings.index.device == ("gpu" if "gpu" in name else "auto")
        with pytest.raises(SettingsError):
            load_settings(environ={**environ, "MARQUEE_SLATES__SISE": "1"})


@pytest.mark.charts
@every_values
def test_every_pod_is_hardened_and_has_time_to_stop(values: Path) -> None:
    found = pods(rendered(values))
    assert {"shop-marquee-worker", "shop-marquee-learner", "shop-marquee-topics"} <= found.keys()
    for name, pod in found.items():
        (container,) = pod["containers"]
        assert pod["enableServiceLinks"] is False, name
        assert pod["automountServiceAccountToken"] is False
        rests_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1]) if "worker" in name else 0
        assert pod["terminationGracePeriodSeconds"] > STOP_S + rests_s
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert f"{pod['securityContext']['runAsUser']}:0" == images()["worker"].user
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
        if "topics" not in name:
            pages = [container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")]
            assert pages == ["/startupz", "/livez", "/readyz"]


@pytest.mark.charts
def test_secrets_are_named_and_never_told() -> None:
    things = rendered(HELM_FOLDER / "team.yaml")
    assert not [thing for thing in things if thing["kind"] == "Secret"]
    (container,) = pods(things)["shop-marquee-worker"]["containers"]
    by_name = {said["name"]: said for said in container["env"]}
    key = {"secretKeyRef": {"name": "marquee", "key": "kafka-password"}}
    assert by_name["MARQUEE_KAFKA__SASL_PASSWORD"]["valueFrom"] == key


@pytest.mark.charts
def test_pages_and_probes_speak_tls_where_the_process_does() -> None:
    tls = ("--set", "settings.http.tls_cert=/etc/tls/c,settings.http.tls_key=/etc/tls/k")
    things = rendered(HELM_FOLDER / "team.yaml", VERSIONS[-1], *tls)
    (container,) = pods(things)["shop-marquee-worker"]["containers"]
    assert container["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"
    (monitor,) = (thing for thing in things if thing["kind"] == "ServiceMonitor")
    assert monitor["spec"]["endpoints"][0]["scheme"] == "https"
    assert monitor["spec"]["endpoints"][0]["tlsConfig"] == {"insecureSkipVerify": True}
    (plain,) = (thing for thing in rendered(HELM_FOLDER / "team.yaml") if thing["kind"] == "ServiceMonitor")
    assert "tlsConfig" not in plain["spec"]["endpoints"][0]


@pytest.mark.charts
def test_workers_are_scaled_by_the_seconds_the_slowest_partition_is_behind() -> None:
    (scaled,) = (thing for thing in rendered(HELM_FOLDER / "ten-thousand.yaml") if thing["kind"] == "ScaledObject")
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["query"] == 'max(marquee_lag_seconds{job="media/shop", lane="events"})'
    workers = [thing for thing in rendered(HELM_FOLDER / "ten-thousand.yaml") if thing["kind"] == "Deployment"]
    assert {thing["metadata"]["name"]: thing["spec"].get("replicas") for thing in workers} == {
        "shop-marquee-worker": None,  # KEDA's
        "shop-marquee-worker-gpu": 2,
    }
    gpu = pods(workers)["shop-marquee-worker-gpu"]["containers"][0]
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert gpu["image"] == "marquee-worker-gpu:0.1.0"


def rule_groups(selector: str) -> list[dict[str, Any]]:
    """Those of the project, for some series."""
    return [
        group for text in (recording_rules(selector), alert_rules(selector)) for group in yaml.safe_load(text)["groups"]
    ]


@pytest.mark.charts
def test_two_releases_of_one_name_are_told_apart(tmp_path: Path) -> None:
    jobs, rules = {}, []
    for namespace in ("media", "kiosk"):
        things = {
            thing["kind"]: thing.get("spec", {}) for thing in rendered(HELM_FOLDER / "team.yaml", namespace=namespace)
        }
        (relabeling,) = things["ServiceMonitor"]["endpoints"][0]["relabelings"]
        assert relabeling.pop("targetLabel") == "job"
        jobs[namespace] = relabeling["replacement"]
        rules.append(tmp_path / f"{namespace}.yaml")
        rules[-1].write_text(json.dumps(things["PrometheusRule"]))
    late, fine = jobs.values()
    series = [
        {"series": f'marquee_lag_seconds{{job="{late}", lane="events", topic="klicks"}}', "values": "70x30"},
        {"series": f'marquee_lag_seconds{{job="{fine}", lane="events", topic="klicks"}}', "values": "1x30"},
        *({"series": f'marquee_slates_total{{job="{job}"}}', "values": "0+9x30"} for job in (late, fine)),
    ]
    fires = f'ALERTS{{alertname="MarqueeLag", alertstate="firing", job="{late}", severity="page", topic="klicks"}}'
    recorded = "job:marquee_availability_bad:ratio_rate5m"
    asked = [
        {"expr": "ALERTS", "eval_time": "30m", "exp_samples": [{"labels": fires, "value": 1}]},
        {
            "expr": recorded,
            "eval_time": "30m",
            "exp_samples": [{"labels": f'{recorded}{{job="{job}"}}', "value": 0} for job in (late, fine)],
        },
    ]
    cases(tmp_path / "cases.yaml", "1m", series, asked, rules=rules)


@pytest.mark.charts
def test_rules_and_boards_are_the_files_of_the_project() -> None:
    things = rendered(HELM_FOLDER / "team.yaml")
    (rule,) = (thing for thing in things if thing["kind"] == "PrometheusRule")
    assert rule["spec"]["groups"] == rule_groups('job="media/shop"')
    said = ("--set", "monitoring.runbooks=https://sre.test/m/,monitoring.job=kubernetes-pods")
    ours = rendered(HELM_FOLDER / "team.yaml", VERSIONS[-1], *said)
    (rule,) = (thing for thing in ours if thing["kind"] == "PrometheusRule")
    assert [each["expr"] for each in rule["spec"]["groups"][0]["rules"]] == [
        each["expr"] for each in rule_groups('job="kubernetes-pods"')[0]["rules"]
    ]
    links = [each["annotations"]["runbook_url"] for each in rule["spec"]["groups"][1]["rules"]]
    assert all(link.startswith("https://sre.test/m/Marquee") for link in links)
    boards = {name for thing in things if thing["kind"] == "ConfigMap" for name in thing["data"]}
    assert boards == {board.name for board in (ROOT / "deploy" / "grafana").glob("*.json")}
    for thing in things:
        for name, board in (thing.get("data") or {}).items():
            assert json.loads(board) == json.loads((ROOT / "deploy" / "grafana" / name).read_text())
