"""A whole installation on this machine: embedded broker and Valkey, one worker, one learner, all ending together."""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.embedded import Broker, Valkey
from deploy.processes import Child, StartFailed, free_port, serves
from streams.addresses import url_of
from streams.configuration import load_settings
from streams.contract.records import topic_specs
from streams.settings import Settings

BROKER_NAME = "Tansu (embedded, in memory)"


class Stack:
    """Embedded servers, a worker and a learner as child processes; a `with` block around their life.

    `overrides` are environment variables (`MARQUEE_…`) on top of those that point at the servers, which are on top of
    what this process was given. A temporary folder goes at the end, unless something failed: then its logs say why.
    """

    def __init__(
        self,
        overrides: Mapping[str, str] | None = None,
        *,
        folder: Path | None = None,
        http_port: int = 0,
        kafka_port: int = 0,
        redis_port: int = 0,
    ) -> None:
        """Choose ports (0 takes a free one) and folders; nothing starts before `with`."""
        self._exit = ExitStack()
        self.broker, self.valkey = Broker(port=kafka_port or None), Valkey(port=redis_port or None)
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="marquee-"))
        self.http_port, self.learner_port = http_port or free_port(), free_port()
        self.environment = {
            "MARQUEE_KAFKA__BOOTSTRAP": self.broker.bootstrap,
            "MARQUEE_REDIS__URL": self.valkey.url,
            "MARQUEE_KAFKA__IDEMPOTENT": "false",
            "MARQUEE_KAFKA__SESSION_TIMEOUT_S": "4",  # this broker lets the first member wait for half of it
            "MARQUEE_KAFKA__SECURITY_PROTOCOL": "PLAINTEXT",
            "MARQUEE_REDIS__USERNAME": "",
            "MARQUEE_REDIS__PASSWORD": "",
            "MARQUEE_CONSENT__DEFAULT": "grant",
            "MARQUEE_LEARNER__SNAPSHOT_DIR": str(self.folder / "snapshots"),
            "MARQUEE_LEARNER__CHECKPOINT_DIR": str(self.folder / "checkpoints"),
            **(overrides or {}),
        }
        self.children: dict[str, Child] = {}

    @property
    def settings(self) -> Settings:
        """The settings in force in this installation.

        Raises:
            SettingsError: what this process was given is no setting, or an impossible one.
        """
        return load_settings(environ={**os.environ, **self.environment})

    @property
    def url(self) -> str:
        """Where the worker answers over HTTP, or, where it is given a certificate, HTTPS."""
        return url_of("127.0.0.1", self.http_port, tls=self.settings.http.tls_cert is not None)

    def __enter__(self) -> Self:
        try:
            specs = topic_specs(self.settings)
            self._exit.enter_context(self.broker)
            self._exit.enter_context(self.valkey)
            for spec in specs:
                self.broker.create_topic(spec.topic, spec.partitions)
            self._spawn("learner", self.learner_port)
            self._spawn("worker", self.http_port)
        except BaseException as error:
            self._end(error)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        for child in self.children.values():  # both at once; then one after the other is waited for
            child.send(signal.SIGTERM)
        self._exit.close()
        if self._temporary and not isinstance(error, Exception):
            shutil.rmtree(self.folder, ignore_errors=True)

    def _spawn(self, role: str, port: int, *program: str) -> None:
        environment = {**self.environment, "MARQUEE_HTTP__PORT": str(port)}
        command = [sys.executable, *(program or ("-m", "streams")), role]
        child = Child(command, self.folder / f"{role}.log", env=environment)
        self._exit.callback(child.stop)
        self.children[role] = child

    def wait_until_ready(self, timeout_s: float = 60) -> float:
        """Wait until the worker says it is ready; returns how long that took.

        Raises:
            StartFailed: it exited or stayed unready; the end of its log is in the message.
        """
        began = time.monotonic()
        ready = f"{self.url}/readyz"
        self.children["worker"].wait_until(lambda: serves(ready), timeout_s)
        return time.monotonic() - began

    def check(self) -> None:
        """Raise when a child has ended.

        Raises:
            StartFailed: with the end of its log.
        """
        for role, child in self.children.items():
            if child.returncode is not None:
                raise StartFailed(f"the {role} ended with {child.returncode}\n{child.tail()}")
