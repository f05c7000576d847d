"""Child processes that end with their parent, free loopback ports, and what to say when one does not come up."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.probe import unverified

# Below Linux' ephemeral range (32768–60999): no outgoing connection can take the port between choosing it and binding
# it, nor while a server that will be restarted on it is down.
PORTS = range(20_000, 32_000)

# Runs in the child before the server replaces it. Linux sends SIGKILL to it when the thread that forked it ends, which
# is why one thread of the parent forks all children and lives as long as the parent does. The parent may have died
# before the request was made: then the child has a new parent already and must not start.
_LEASH = """
import os, signal, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("parent is gone")
os.execvp(sys.argv[2], sys.argv[2:])
"""
_forker = ThreadPoolExecutor(1, thread_name_prefix="forker")


class StartFailed(Exception):
    """A server did not come up; the message carries the end of its log. The command that wanted it exits with 1."""


class Child:
    """A process in a group of its own that writes to a log file and dies with its parent.

    On Linux that holds for SIGKILL of the parent too; elsewhere only `stop`, `kill` and a normal exit end it. A
    terminal's Ctrl-C does not reach it: the parent decides in which order things stop.
    """

    def __init__(self, command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None) -> None:
        """Start `command` with `env` added to this process' environment; output is appended to `log`."""
        self.command, self.log = list(command), log
        self._process = _forker.submit(self._fork, {**os.environ, **(env or {})}).result()

    def _fork(self, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        leashed = [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *self.command]
        with self.log.open("ab") as out:
            return subprocess.Popen(
                leashed, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """The process id; also that of its group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float) -> int:
        """The exit status, once it ended.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        return self._process.wait(timeout_s)

    def wait_until(self, answers: Callable[[], bool], timeout_s: float) -> None:
        """Return once `answers()` is true; asks every 20 ms.

        Raises:
            StartFailed: it exited or the time is over. It has been killed.
        """
        deadline = time.monotonic() + timeout_s
        while not answers():
            self.expect_running()
            if time.monotonic() > deadline:
                self.kill()
                raise StartFailed(f"{self._what()} did not answer within {timeout_s:g} s\n{self.tail()}")
            time.sleep(0.02)

    def expect_running(self) -> None:
        """Do nothing.

        Raises:
            StartFailed: it exited.
        """
        if self.returncode is not None:
            raise StartFailed(f"{self._what()} exited with {self.returncode}\n{self.tail()}")

    def tail(self, lines: int = 20) -> str:
        """The last lines of the log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, grace_s: float = 10.0) -> None:
        """Ask it to end (SIGTERM to the group) and kill what is left after `grace_s`."""
        self.send(signal.SIGTERM)
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to the group, then reap."""
        self.send(signal.SIGKILL)
        self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the group, if it still exists: SIGSTOP makes a zombie owner, SIGCONT wakes it."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass  # it is gone, which is what most callers want
        except PermissionError:
            pass  # macOS answers so for a group that holds only an unreaped process

    def _what(self) -> str:
        return Path(self.command[0]).name


_given: set[int] = set()


def free_port() -> int:
    """A TCP port nobody listens on at 127.0.0.1, outside the range of outgoing connections.

    Never the same twice: whoever got one may not listen on it yet.
    """
    for port in random.SystemRandom().sample(PORTS, 200):
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port
    raise OSError(f"no free port in {PORTS.start}–{PORTS.stop}")


def exchange(port: int, request: bytes, timeout_s: float = 1.0) -> bytes:
    """What a server on 127.0.0.1 answers first to `request`; empty when nobody listens or it stays silent."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
            connection.sendall(request)
            return connection.recv(1 << 16)
    except OSError:
        return b""


def serves(address: str, timeout_s: float = 1.0) -> bool:
    """Whether a page of a process on this machine answers with 200. Its certificate is for another name: unverified."""
    try:
        with urllib.request.urlopen(address, timeout=timeout_s, context=unverified()) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
