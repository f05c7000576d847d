"""The Dockerfile: what the linter says of it, and that it names nothing that is not there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.processes import StartFailed
from streams.configuration import load_settings
from tests.deploy.containers import DOCKERFILE, ROOT, copy_loops, images

TARGETS = ("worker", "learner")


def test_hadolint_finds_nothing(tmp_path: Path) -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert program, "it comes with the extra test"
    done = subprocess.run([program, "--no-fail", DOCKERFILE], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    careless = tmp_path / "Dockerfile"
    careless.write_text("FROM python\nRUN cd /x && pip install y\n")
    assert "DL3006" in subprocess.run([program, careless], capture_output=True, text=True).stdout


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_is_nobodys_and_says_how_it_is(target: str) -> None:
    image = images()[target]
    uid, gid = map(int, image.user.split(":"))
    assert uid >= 10_000
    assert gid == 0  # some clusters choose a user without a name, in this group
    assert image.command == [target]
    assert image.health[:3] == ["python", "-m", "deploy.probe"]
    assert load_settings(environ=image.environment).http.host == "0.0.0.0"


def test_a_worker_is_built_without_torch() -> None:
    said = DOCKERFILE.read_text()
    worker = said[said.index("FROM runtime AS worker") :]
    assert "COPY --from=worker-packages" in worker
    packages = said[said.index("AS worker-packages") : said.index("AS learner-packages")]
    assert "learner" not in packages.replace("AS learner-packages", "")


def test_what_is_copied_is_there_and_not_left_out() -> None:
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().split()
    for words in re.findall(r"(?m)^COPY (?!--from)(.*) \S+$", DOCKERFILE.read_text()):
        for source in words.split():
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, source


def test_what_is_needed_is_read_out_of_the_project(tmp_path: Path) -> None:
    """The lines of Python in it, run as its shell runs them."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    said = re.sub(r"\\\n", "", DOCKERFILE.read_text())
    lines = [part for run in re.findall(r"(?m)^RUN (.*)$", said) for part in run.split("&&") if "python -c" in part]
    for line in lines:
        environ = {"PATH": f"{Path(sys.executable).parent}:/bin:/usr/bin", "FAISS": "gpu", "EXTRAS": "otel"}
        subprocess.run(["sh", "-ec", line], cwd=tmp_path, env=environ, check=True)
    needs = (tmp_path / "needs.txt").read_text()
    assert "numba>=" in needs
    assert "faiss-gpu==" in needs
    assert "opentelemetry-sdk>=" in needs
    assert "torch" not in needs
    assert (tmp_path / "learner.txt").read_text().startswith("torch>=")


def test_images_are_named_without_a_host() -> None:
    for image in images().values():
        assert not image.base or re.fullmatch(r"[\w.${}-]+(:[\w.${}-]+)?", image.base), image.base


def test_a_checkout_without_compiled_loops_says_what_compiles_them(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match=rf"no loop is compiled in {tmp_path}: run python -m streams\.lab\.warm"):
        copy_loops(tmp_path / "loops", root=tmp_path)
    there = tmp_path / "ranking" / "__pycache__" / "score.py311.nbi"
    there.parent.mkdir(parents=True)
    there.touch()
    copy_loops(tmp_path / "loops", root=tmp_path)
    (found,) = (tmp_path / "loops").rglob("*.nbi")
    assert found.parent.name.startswith("ranking_")
