import os
from pathlib import Path

import pytest

from streams.commands.cli import main
from streams.commands.console import Failed
from streams.commands.init import write
from streams.configuration import load_settings, require_consent_default


def test_what_is_written_is_what_a_worker_takes(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path / "new" / "shop")[0], environ={})
    assert require_consent_default(settings) == "deny"


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("mine")
    with pytest.raises(Failed, match=r"compose\.yaml would be overwritten; nothing was written"):
        write(tmp_path)
    assert os.listdir(tmp_path) == ["compose.yaml"]
    assert (tmp_path / "compose.yaml").read_text() == "mine"


def test_a_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "marquee.toml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Failed, match="would be overwritten"):
        write(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(("place", "code"), [("new", 0), ("file", 1), ("file/below", 1)])
def test_a_person_is_told_in_a_line(tmp_path: Path, place: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        main(["init", str(tmp_path / place)])
    assert ended.value.code == code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert len(said.splitlines()) == (1 if code else 3)
    assert code or "[consent] in marquee.toml" in said
