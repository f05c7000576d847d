"""What a worker says over HTTP: its health, its lag, and all that its API answers."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from embeddings.errors import StoreUnavailable
from embeddings.events import Source
from embeddings.store import UserStore
from streams.process.health import Check, HealthServer, Home
from streams.process.metrics import WorkerMetrics
from streams.process.threads import OwnLoop
from streams.settings import Settings
from streams.transport.deliveries import Lag
from streams.worker.http_api import Api


@dataclass(slots=True, kw_only=True)
class Pages:
    """Health pages and metrics, and the API beside them; served in an event loop of its own, `loop`.

    Attributes:
        reads: a store of its own, which is written to once a second.
        unread: why the control topics are not read to their end.
        assigned: the topics of which partitions are assigned.
        holdup: why the work does not move.
        misfit_topics: which topics are not as they should be.
        lags: the lag of each owned partition.
        paused: which of them are paused for a bad deploy, and what lets them go on.
        api: the other pages.
    """

    settings: Settings
    metrics: WorkerMetrics
    reads: UserStore
    unread: Check
    assigned: Callable[[], Collection[str]]
    holdup: Callable[[], str | None]
    misfit_topics: Callable[[], str | None]
    lags: Callable[[], Mapping[Source, Lag]]
    paused: Callable[[], str | None]
    api: Api
    loop: OwnLoop
    _pinged: str | None = field(init=False, default="the store was not asked yet")

    async def run(self) -> None:
        """Serve for as long as the worker lives."""
        http = self.settings.http
        server = HealthServer(
            host=http.host,
            port=http.port,
            registry=self.metrics.registry,
            started={"control": self.unread},
            ready={
                "store": lambda: self._pinged,
                "partitions": self._partitions,
                "work": self.holdup,
                "topics": self.misfit_topics,
            },
            notes={"dead_letters": self.paused},
            beyond=self.api.page,
            home=_home(asyncio.get_running_loop()),
            tls=http.tls(),
        )
        await self.loop.run(server.start())
        try:
            while True:
                self._pinged = await asyncio.to_thread(self._ping)
                self.metrics.lags(self.lags())
                await asyncio.sleep(1)
        finally:
            await self.loop.run(self._stopped(server))

    async def _stopped(self, server: HealthServer) -> None:
        await server.stop()
        await self.api.stop()

    async def tell_funnel(self) -> None:
        """Tell the funnel of ads that were asked for over HTTP once a second, while the worker lives."""
        while True:
            await asyncio.sleep(1)
            await self.loop.run(self.api.requests.tell_funnel())

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
