import tomllib
from pathlib import Path
from typing import Any

import pytest

from streams.commands import cli, extras


def test_what_is_installed_is_enough() -> None:
    extras.require("a test", *extras.BROUGHT)


def test_all_that_is_missing_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "BROUGHT", {"cpu": ("json",), "learner": ("absent_a",), "demo": ("absent_b", "json")})
    with pytest.raises(extras.NotInstalled) as error:
        extras.require("it", "cpu", "learner", "demo")
    assert str(error.value) == "it needs absent_a, absent_b: pip install 'marquee[learner,demo]'"


def test_every_extra_is_one_of_the_project() -> None:
    project: dict[str, Any] = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert set(extras.BROUGHT) <= set(project["optional-dependencies"])


@pytest.mark.parametrize("command", [["learner"], ["evaluate"], ["up"], ["demo"], ["bench", "ingest"]])
def test_command_without_its_extra_ends_with_2_and_one_line(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(extras.BROUGHT, "learner", ("absent",))
    with pytest.raises(SystemExit) as ended:
        cli.main(command)
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("needs absent: pip install 'marquee[learner]'")
