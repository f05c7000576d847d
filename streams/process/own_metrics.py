"""What a process is: its build, its probes, its event loop, its threads, its GPUs, and what Python says of itself."""

import asyncio
import importlib.metadata
import threading
from collections.abc import Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from streams.process.gpu import memory_bytes
from streams.process.health import Check, examine
from streams.process.series import Series

LOOP_LAG_SECONDS = (0.005, 0.01, 0.05, 0.25, 1, 5)
_NAP_S = 0.25


class OwnMetrics:
    """What a process is, apart from what it does."""

    def __init__(self, series: Series, role: str, *, process: bool = True) -> None:
        """`process` adds what the operating system and Python say of it: CPU, memory, open files, collections."""
        build = series.info(
            "build",
            "What is running.",
            "Compare between processes: two versions at once should be a deploy in progress.",
        )
        build.info({"version": _version(), "role": role})
        self.loop_lag = series.histogram(
            "event_loop_lag_seconds",
            "How late the loop of heartbeats and pages comes to what is due.",
            "If it is beyond a second the member may lose its partitions: give the process more CPU.",
            LOOP_LAG_SECONDS,
        )
        series.reads(
            "threads",
            "Threads of Python that live.",
            "If it goes on rising, something leaks threads: `py-spy dump` shows which.",
            lambda: float(threading.active_count()),
        )
        self.checks = series.gauge(
            "check_ok",
            "Whether a check of a probe passes (1), looked at once a second.",
            "If one is 0, the probe's page says why.",
            probe=(),
            check=(),
        )
        self._gpus = series.gauge(
            "gpu_memory_bytes",
            "Memory of a GPU of this machine that is used, by whomever, and all of it; no series without one.",
            "If `used` comes near to `total`, lower index.memory_mb or move others off this GPU.",
            gpu=(),
            state=(),
        )
        if process:
            _native(series.registry)

    async def nap(self) -> None:
        """Sleep in the loop, and note how late it was; for whoever looks again and again."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + _NAP_S
        await asyncio.sleep(_NAP_S)
        self.loop_lag.observe(max(loop.time() - due_s, 0.0))

    def probed(self, probe: str, checks: Mapping[str, Check]) -> None:
        """Look at the checks of a probe."""
        for name, why in examine(checks).items():
            self.checks.labels(probe, name).set(why is None)

    def gpus(self) -> None:
        """Look at the memory of GPUs."""
        for gpu, used, total in memory_bytes():
            self._gpus.labels(str(gpu), "used").set(used)
            self._gpus.labels(str(gpu), "total").set(total)


def _native(registry: CollectorRegistry) -> None:
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)


def _version() -> str:
    try:
        return importlib.metadata.version("marquee")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "unknown"
