"""What a worker says over HTTP: its health, its lag, and all that its API answers."""

import asyncio
import itertools
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from embeddings.errors import StoreUnavailable
from embeddings.events import Source
from embeddings.store import UserStore
from streams.process.health import Check, HealthServer, Home
from streams.process.metrics import WorkerMetrics
from streams.process.threads import OwnLoop
from streams.process.watching import Watching
from streams.settings import Settings
from streams.transport.control import ControlReader
from streams.transport.deliveries import Lag
from streams.transport.standing import Standing, control_standing
from streams.transport.unowned import Unowned
from streams.worker.http_api import Api

_MEMORY_S = 10
"""So often the store is asked for its memory."""


@dataclass(slots=True, kw_only=True)
class Pages:
    """Health pages and metrics, and the API beside them; served in an event loop of its own, `loop`.

    Attributes:
        reads: a store of its own, which is written to once a second.
        control: reads the control topics.
        rehearsed: whether all that answers run is loaded.
        assigned: the topics of which partitions are assigned.
        holdup: why the work does not move.
        misfit_topics: which topics are not as they should be.
        lags: the lag of each owned partition.
        standing: how the membership stands.
        unowned: who tells of partitions that nobody has.
        memory: bytes that the store uses and may use, None where it does not say.
        paused: which of them are paused for a bad deploy, and what lets them go on.
        api: the other pages.
    """

    settings: Settings
    metrics: WorkerMetrics
    reads: UserStore
    control: ControlReader
    rehearsed: Callable[[], bool]
    assigned: Callable[[], Collection[str]]
    holdup: Callable[[], str | None]
    misfit_topics: Callable[[], str | None]
    lags: Callable[[], Mapping[Source, Lag]]
    paused: Callable[[], str | None]
    api: Api
    loop: OwnLoop
    standing: Callable[[], Standing | None] = lambda: None
    unowned: Unowned | None = None
    memory: Callable[[], tuple[float, float] | None] = lambda: None
    _pinged: str | None = field(init=False, default="the store was not asked yet")

    async def run(self) -> None:
        """Serve for as long as the worker lives."""
        http = self.settings.http
        checks = self.checks()
        server = HealthServer(
            host=http.host,
            port=http.port,
            registry=self.metrics.registry,
            started=checks["started"],
            ready=checks["ready"],
            notes={"dead_letters": self.paused},
            beyond=self.api.page,
            home=_home(asyncio.get_running_loop()),
            tls=http.tls(),
            connections=http.max_connections,
            observe=self.metrics.http.observed,
        )
        watching = Watching(
            settings=self.settings,
            metrics=self.metrics,
            standing=self.standing,
            lags=self.lags,
            control=partial(control_standing, self.control),
            checks=checks,
            unowned=self.unowned,
            whole={self.settings.topics.name("observations")},
        )
        await self.loop.run(server.start())
        try:
            for second in itertools.count():
                self._pinged = await asyncio.to_thread(self._ping)
                if second % _MEMORY_S == 0:
                    await asyncio.to_thread(self._look_at_memory)
                await watching.second()
        finally:
            await self.loop.run(self._stopped(server))

    def checks(self) -> dict[str, dict[str, Check]]:
        """What each probe asks: docs/hosts.md says what each means."""
        return {
            "started": {
                "control": self.control.unread,
                "loops": lambda: None if self.rehearsed() else "compiled loops are being loaded, or made",
            },
            "ready": {
                "store": lambda: self._pinged,
                "partitions": self._partitions,
                "work": self.holdup,
                "topics": self.misfit_topics,
            },
        }

    async def _stopped(self, server: HealthServer) -> None:
        await server.stop()
        await self.api.stop()

    async def tell_funnel(self) -> None:
        """Tell the funnel of ads that were asked for over HTTP once a second, while the worker lives."""
        while True:
            await asyncio.sleep(1)
            await self.loop.run(self.api.requests.tell_funnel())

    def _look_at_memory(self) -> None:
        """A figure: where the store goes away between ping and this, it is told the next time."""
        with suppress(StoreUnavailable):
            if self._pinged is None and (memory := self.memory()) is not None:
                for state, size in zip(("used", "max"), memory, strict=True):
                    self.metrics.redis.memory.labels(state).set(size)

    def _partitions(self) -> str | None:
        names = self.settings.topics.name
        without = {names("events"), names("requests")} - set(self.assigned())
        return f"no partition is assigned of {', '.join(sorted(without))}" if without else None

    def _ping(self) -> str | None:
        try:
            self.reads.ping()
        except StoreUnavailable as error:
            return str(error)
        return None


def _home(loop: asyncio.AbstractEventLoop) -> Home:
    """Calls things in an event loop, from another one."""

    async def call(what: Callable[[], Any]) -> Any:
        async def there() -> Any:
            return what()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(there(), loop))

    return call
