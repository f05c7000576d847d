"""Packages of npm are fetched once, and who lacks npm is told."""

from pathlib import Path

import pytest

from deploy import npm
from deploy.processes import StartFailed


def test_scripts_find_the_packages_by_their_names(npm_packages: Path) -> None:
    done = npm.run("console.log(require('kafkajs/package.json').version, process.argv[1])", "said")
    assert (done.returncode, done.stdout) == (0, "2.2.4 said\n")
    assert npm.packages() == npm_packages


def test_without_npm_it_is_said_what_brings_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartFailed, match="apt-get install nodejs npm"):
        npm.packages()
