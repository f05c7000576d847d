"""`marquee worker` without metrics: what the cost of observing is measured against.

    python -m streams.lab.unobserved

Nothing is counted, timed, judged or looked at for metrics alone; all else is a worker's.
"""

import asyncio
import runpy
import sys
from dataclasses import dataclass, field
from typing import Any, Self, cast
from unittest.mock import patch

from prometheus_client import CollectorRegistry

from streams.process.metrics import WorkerMetrics
from streams.process.tracing import UNTRACED, Spans
from streams.process.watching import Watching
from streams.transport.unowned import Unowned
from streams.worker import worker


class Mute:
    """Metrics that keep nothing, whatever they are told; all that is asked of them is mute too."""

    spans: Spans = UNTRACED

    def __init__(self) -> None:
        """The registry stays empty."""
        self.registry = CollectorRegistry()

    def __getattr__(self, name: str) -> Self:
        setattr(self, name, self)  # it is found there the next time, without a call
        return self

    def __call__(self, *_said: object, **_named: object) -> Self:
        """Whatever is said."""
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_how: object) -> None:
        pass

    async def nap(self) -> None:
        """As long as a watching process naps, which notes how late it was."""
        await asyncio.sleep(0.25)


@dataclass(slots=True, repr=False)
class Unobserved(worker.Worker):
    """A worker that is mute, if it is made within `muted`."""

    metrics: WorkerMetrics = field(init=False, default_factory=lambda: cast(WorkerMetrics, Mute()))

    def _memory(self) -> None:
        """Redis is not asked."""


async def _never(_self: object) -> None:
    await asyncio.Event().wait()


def muted() -> Any:
    """A block in which what works for metrics alone does nothing."""
    return patch.multiple(worker, Worker=Unobserved, Shown=lambda _metrics: Mute())


def main() -> None:
    """Run it until SIGTERM."""
    sys.argv[1:] = ["worker"]
    with muted(), patch.object(Watching, "look", lambda _self: None), patch.object(Unowned, "run", _never):
        runpy.run_module("streams", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
