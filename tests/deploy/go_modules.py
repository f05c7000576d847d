"""What comes through the Go module proxy: schemas that others publish there, and helm.

Versions are pinned here as constraints.txt pins Python's; Go's checksum database vouches for what is fetched.
"""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from deploy.kafka import filled_once

COMPOSE = "github.com/compose-spec/compose-go/v2@v2.16.2"
HELM = "helm.sh/helm/v3/cmd/helm@v3.22.0"
KEDA = "github.com/kedacore/keda/v2@v2.21.0"
PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"


def refuse(why: str) -> None:
    """Fail where everything must be there, else skip."""
    (pytest.fail if os.environ.get("REQUIRE_SERVERS") else pytest.skip)(why)


def module(name: str) -> Path:
    """The folder of a module's files, fetched at first use."""
    if shutil.which("go") is None:
        refuse("go is not installed: apt-get install golang-go")
    fetched = subprocess.run(
        ["go", "mod", "download", "-json", name], cwd="/", capture_output=True, text=True, check=False
    )
    said = json.loads(fetched.stdout or "{}")
    if "Dir" not in said:
        refuse(f"{name} cannot be fetched: {said.get('Error') or fetched.stderr}")
    return Path(said["Dir"])


def helm() -> str:
    """The program, built at first use: minutes, and Go as new as it wants."""
    return str(filled_once(HELM.rpartition("/")[2], _build) / "helm")


def _build(folder: Path) -> None:
    """Build beside `folder`, then rename: a half-filled folder never has the final name."""
    if shutil.which("go") is None:
        refuse("go is not installed: apt-get install golang-go")
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / "programs"
        environ = {**os.environ, "GOBIN": str(made), "CGO_ENABLED": "0"}
        built = subprocess.run(
            ["go", "install", HELM], cwd="/", env=environ, capture_output=True, text=True, check=False
        )
        if built.returncode:
            refuse(f"helm cannot be built: {built.stderr[-2000:]}")
        made.rename(folder)
