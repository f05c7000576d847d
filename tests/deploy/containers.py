"""What a Dockerfile and a compose file say, and services started by it where no container engine is.

A `Machine` is namespaces of its own (network, mounts, processes): ports and names are those of the files. Its root is
an overlay over this machine's, read-only where the file says so, in which the virtual environment stands where the
image has it. A service runs there with command, environment, user, folders and health check of the files.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from deploy.processes import Child, StartFailed

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
VENV = Path(sys.prefix)
PACKAGES = ("streams", "embeddings", "ranking")
"""Where compiled loops are kept beside their sources."""
_HOSTS = "127.0.0.1 localhost kafka valkey worker learner prometheus alertmanager\n"


@dataclass(frozen=True)
class Image:
    """What a stage of a Dockerfile leaves for whoever runs it."""

    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = "0:0"
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    health: Sequence[str] = ()
    base: str = ""


def images(dockerfile: Path = DOCKERFILE) -> dict[str, Image]:
    """Every stage by name, with what it has of the stage it is built from."""
    said = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", dockerfile.read_text()))
    stages: dict[str, Image] = {}
    arguments: dict[str, str] = {}
    name = ""
    for word, rest in re.findall(r"(?m)^([A-Z]+) +(.*)$", said):
        rest = re.sub(r"\$\{(\w+)\}", lambda found: arguments.get(found[1], found[0]), rest)
        if word == "FROM":
            base, _, name = re.split(r" +(AS) +", rest)
            stages[name] = stages.get(base, Image(base=base))
        elif word == "ARG":
            key, _, value = rest.partition("=")
            arguments.setdefault(key, value.strip('"'))
        elif word == "ENV":
            new = dict(pair.split("=", 1) for pair in shlex.split(rest.replace("$PATH", os.defpath)))
            stages[name] = replace(stages[name], environment={**stages[name].environment, **new})
        elif word == "USER":
            stages[name] = replace(stages[name], user=rest.strip())
        elif word == "ENTRYPOINT":
            stages[name] = replace(stages[name], entrypoint=json.loads(rest))
        elif word == "CMD":
            stages[name] = replace(stages[name], command=json.loads(rest))
        elif word == "HEALTHCHECK":
            stages[name] = replace(stages[name], health=json.loads(rest.partition(" CMD ")[2]))
    return stages


def services(file: Path, environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The services of a compose file, with variables from `environ`.

    Raises:
        LookupError: a variable is missing that the file insists on.
    """

    def value(found: re.Match[str]) -> str:
        name, default, complaint = found.groups()
        if name not in environ and complaint is not None:
            raise LookupError(f"{name}: {complaint}")
        return environ.get(name, default or "")

    said = re.sub(r"\$\{(\w+)(?::-([^}]*)|:\?([^}]*))?\}", value, file.read_text())
    return yaml.safe_load(said)["services"]


def kafka_properties(environment: Mapping[str, object]) -> str:
    """What Kafka's image makes of its variables."""
    keys = ((name.removeprefix("KAFKA_"), value) for name, value in environment.items())
    return "".join(f"{name.lower().replace('_', '.')}={value}\n" for name, value in keys)


def compile_loops(folder: Path, image: Image) -> None:
    """Compile every loop into a folder as the image's build does: for its kind of CPU; it takes a minute."""
    kind = {name: value for name, value in image.environment.items() if name.startswith("NUMBA_")}
    environ = {**os.environ, **kind, "NUMBA_CACHE_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "streams.lab.warm"], cwd=folder.parent, env=environ, check=True)


def copy_loops(folder: Path, root: Path = ROOT) -> None:
    """Put what was compiled beside the sources, for this machine's CPU, where a folder of loops has it.

    Raises:
        StartFailed: nothing was compiled in this checkout.
    """
    caches = {index.parent for package in PACKAGES for index in (root / package).rglob("*.nbi")}
    if not caches:
        raise StartFailed(f"no loop is compiled in {root}: run python -m streams.lab.warm there, as make install does")
    for cache in caches:
        sources = cache.parent
        place = folder / f"{sources.name}_{hashlib.sha1(str(sources).encode()).hexdigest()}"
        shutil.copytree(cache, place, ignore=shutil.ignore_patterns("*.pyc"))


class Machine:
    """Namespaces in which services run as containers; everything in it ends with the block."""

    def __init__(self, folder: Path) -> None:
        """Logs and what is mounted are in `folder`; nothing starts before `with`."""
        self.logs, self.folder = folder, folder / "machine"
        self.child: Child | None = None
        self.started: list[Child] = []

    def __enter__(self) -> Self:
        self.folder.mkdir()
        setup = f"""
            mount --make-rprivate /; ip link set lo up; mount -t tmpfs none {self.folder}/; cd {self.folder}
            mkdir up work root; mount -t overlay none -o lowerdir=/,upperdir=up,workdir=work root
            {"".join(f"chmod go+x root{folder};" for folder in _closed())}
            mkdir -p root/opt/marquee root/opt/loops root/var/lib/marquee root/data root/var/lib/kafka/data
            printf '{_HOSTS.strip()}\\n' > root/etc/hosts
            mount --bind /proc root/proc; mount --rbind /dev root/dev; mount --bind {VENV} root/opt/marquee
            touch ready; exec sleep infinity"""
        unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self.child = Child([*unshare, "sh", "-ec", setup], self.logs / "machine.log")
        self.child.wait_until(self._is_up, 60)
        return self

    def terminate(self, child: Child) -> None:
        """What an engine sends to a container that is to stop; the child is only the way into it."""
        os.kill(int(_children(child.pid)), signal.SIGTERM)

    def inside(self, child: Child, folder: str) -> Path:
        """A folder of a running container, as this machine sees it."""
        return Path(f"/proc/{_children(child.pid)}/root{folder}")

    def _is_up(self) -> bool:
        there = [*self._enter(), "test", "-e", f"{self.folder}/ready"]
        return bool(self._first) and subprocess.run(there, check=False).returncode == 0

    @property
    def _first(self) -> str:
        assert self.child is not None
        return _children(self.child.pid)

    def _enter(self) -> list[str]:
        return ["nsenter", f"--target={self._first}", "--net", "--mount", "--pid", "--"]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for child in (*self.started, *([self.child] if self.child else [])):
            child.kill()

    def contained(
        self,
        command: Sequence[str],
        *,
        user: str,
        environment: Mapping[str, object],
        read_only: bool = True,
        folder: str = "/",
        scratch: Sequence[str] = (),
        owned: Sequence[str] = (),
        binds: Mapping[Path, str] | None = None,
    ) -> list[str]:
        """The command line that runs `command` in a container of its own.

        Args:
            command: What to run.
            user: `uid` or `uid:gid`, numbers.
            environment: All of it.
            read_only: Whether the root is.
            folder: Where it begins.
            scratch: Folders anybody may write to, as `tmpfs` of a compose file.
            owned: Folders of that user's, empty, as volumes.
            binds: What of this machine is where.
        """
        uid, _, gid = user.partition(":")
        root = self.folder / "root"
        mounts = [f"mount -t tmpfs -o mode=1777 none {root}{folder}" for folder in scratch]
        mounts += [f"mount -t tmpfs -o mode=0775,uid={uid},gid={gid or 0} none {root}{folder}" for folder in owned]
        hidden = {place: str(place) for place in (ROOT, VENV) for folder in scratch if place.is_relative_to(folder)}
        for source, place in {**hidden, **(binds or {})}.items():
            mounts += [_holder(source, f"{root}{place}"), f"mount --bind {source} {root}{place}"]
        mounts += [f"mount -o remount,ro,bind {root}"] if read_only else []
        words = [f"{name}={value}" for name, value in environment.items()]
        drop = [f"--reuid={uid}", f"--regid={gid or 0}", "--clear-groups", "--bounding-set=-all", "--no-new-privs"]
        inside = ["setpriv", *drop, "env", "-i", f"--chdir={folder}", *words, *command]
        script = "\n".join([*mounts, f"exec chroot {root} {shlex.join(inside)}"])
        return [*self._enter(), "unshare", "--mount", "sh", "-ec", script]

    def run(self, command: Sequence[str], timeout_s: float = 60, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run to the end; what it said is in the result."""
        return subprocess.run(self.contained(command, **how), capture_output=True, text=True, timeout=timeout_s)

    def start(self, name: str, command: Sequence[str], **how: Any) -> Child:
        """Run beside everything else, with a log of its own."""
        self.started.append(Child(self.contained(command, **how), self.logs / f"{name}.log"))
        return self.started[-1]


def until_healthy(machine: Machine, child: Child, health: Sequence[str], timeout_s: float, **how: Any) -> None:
    """Ask as an engine does, a little oftener.

    Raises:
        StartFailed: it ended, or was not healthy in time.
    """
    deadline = time.monotonic() + timeout_s
    while (asked := machine.run(health, **how)).returncode != 0:
        child.expect_running()
        if time.monotonic() > deadline:
            raise StartFailed(f"{asked.stdout}{asked.stderr}\n{child.tail()}")
        time.sleep(0.5)


def _children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()


def _holder(source: Path, place: str) -> str:
    return f"mkdir -p {place}" if source.is_dir() else f"mkdir -p {Path(place).parent}; touch {place}"


def _closed() -> list[str]:
    """Folders on the way to Python and the sources that not everybody may pass."""
    ways = {parent for place in (Path(os.path.realpath(sys.executable)), VENV, ROOT) for parent in place.parents}
    return [str(folder) for folder in sorted(ways) if folder.stat().st_mode & 0o011 != 0o011]
