"""Programs of npm for tests: the pinned packages below, installed once into the user's cache folder.

Needs `node` and `npm`. Where they come from is what npm was told.
"""

import os
import shutil
import subprocess
import tempfile
from hashlib import sha256
from pathlib import Path

from deploy.kafka import filled_once
from deploy.processes import StartFailed

PACKAGES = ("@asyncapi/parser@3.6.6", "ajv@8.20.0", "kafkajs@2.2.4")


def packages() -> Path:
    """The folder that has `node_modules`, filled at first use; safe to call from many processes.

    Raises:
        StartFailed: there is no `npm`, or it failed.
    """
    return filled_once(f"npm-{sha256(' '.join(PACKAGES).encode()).hexdigest()[:12]}", _install)


def run(script: str, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a script by node, which finds the packages by their names.

    Raises:
        StartFailed: see `packages`.
    """
    where = os.environ | {"NODE_PATH": str(packages() / "node_modules")}
    command = ["node", "-e", script, *arguments]
    return subprocess.run(command, env=where, capture_output=True, text=True, timeout=timeout_s, check=False)


def _install(folder: Path) -> None:
    """Install beside `folder`, then rename: a half-filled folder never has the final name."""
    if shutil.which("npm") is None:
        raise StartFailed("packages of npm are fetched once: apt-get install nodejs npm")
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / "packages"
        made.mkdir()
        (made / "package.json").write_text("{}")
        goal = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--save-exact", *PACKAGES]
        done = subprocess.run(goal, cwd=made, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StartFailed(f"{' '.join(goal)} failed\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        made.rename(folder)
