import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streams.configuration import SettingsError
from streams.lab.datasets import UnreadableLog, cache_folder, ml_100k
from streams.process.folders import writable


def marquee(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A command where numba finds no folder for what it compiled, and there is no home."""
    nowhere = {"NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator", "HOME": "", "MARQUEE_LOG__LEVEL": "error"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MARQUEE_", "NUMBA_"))}
    command = [sys.executable, "-m", "streams", *words]
    away = {"MARQUEE_KAFKA__BOOTSTRAP": "127.0.0.1:1", "MARQUEE_REDIS__URL": "redis://127.0.0.1:1/0"}
    path = {"PYTHONPATH": os.getcwd(), **nowhere, **away, **environ}
    done = subprocess.run(command, cwd=folder, env={**inherited, **path}, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.slow
def test_the_doctor_says_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = {"MARQUEE_LEARNER__SNAPSHOT_DIR": "file/snapshots"}
    found = {
        check["name"]: check for check in json.loads(marquee(tmp_path, "doctor", "--json", **folder).stdout)["checks"]
    }
    assert found["loops"]["detail"] == "compiled loops are not kept"
    assert "NUMBA_CACHE_DIR" in found["loops"]["advice"]
    assert found["folders"]["detail"] == "learner.snapshot_dir = 'file/snapshots': cannot be written (Not a directory)"
    assert not found["folders"]["ok"]
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.slow
def test_a_learner_does_not_start_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = {"MARQUEE_LEARNER__CHECKPOINT_DIR": "file/c", "MARQUEE_HTTP__PORT": "0"}
    done = marquee(tmp_path, "learner", **folder)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("settings: learner.checkpoint_dir = 'file/c': cannot be written")


@pytest.mark.slow
def test_loops_are_compiled_where_they_cannot_be_kept() -> None:
    code = "from embeddings.ids import murmur2; from ranking.jit import kernel; print(murmur2([b'u1'])[0])"
    environ = {**os.environ, "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator", "NUMBA_CACHE_DIR": ""}
    said = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert said.stdout.strip().isdecimal()
    assert said.stderr.count("NUMBA_CACHE_DIR") == 1


def test_a_folder_is_tried_and_nothing_is_left(tmp_path: Path) -> None:
    writable(tmp_path / "a" / "b", "x.y")
    assert not os.listdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"x\.y = .*: cannot be written \(Not a directory\)"):
        writable(tmp_path / "file", "x.y")


def test_data_sets_are_kept_where_there_is_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MARQUEE_CACHE", str(tmp_path / "file"))
    with pytest.raises(SettingsError, match=r"MARQUEE_CACHE = .*file.*: cannot be written"):
        ml_100k()

    monkeypatch.setenv("MARQUEE_CACHE", "'/tmp/x'\r")
    with pytest.raises(UnreadableLog, match=r"MARQUEE_CACHE = .*: holds '\\r'"):
        cache_folder()

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("MARQUEE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(UnreadableLog, match="set MARQUEE_CACHE"):
        cache_folder()
