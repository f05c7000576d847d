"""What a worker says over HTTP: its health, its lag, and the stored slate of a user as it may still be shown."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from msgspec import structs

from embeddings.eligibility import Viewer
from embeddings.errors import StoreUnavailable
from embeddings.events import REFUSES, Source
from embeddings.ids import item_ids
from embeddings.store import UserStore
from streams.contract.records import Slate, decode_slate, encode
from streams.process.health import Check, HealthServer
from streams.process.metrics import WorkerMetrics
from streams.process.watching import Watching
from streams.serving.live_model import Serving
from streams.serving.policies import Policies
from streams.serving.stages import epoch_ms
from streams.settings import Settings
from streams.transport.control import ControlReader
from streams.transport.deliveries import Lag
from streams.transport.standing import Standing, control_standing
from streams.transport.unowned import Unowned

log = logging.getLogger(__name__)

_MEMORY_S = 10
"""So often the store is asked for its memory."""


@dataclass(slots=True, kw_only=True)
class Pages:
    """Health pages, metrics and stored slates.

    Attributes:
        reads: a store of its own, which is written to once a second.
        control: reads the control topics.
        assigned: the topics of which partitions are assigned.
        holdup: why the work does not move.
        misfit_topics: which topics are not as they should be.
        lags: the lag of each owned partition.
        standing: how the membership stands.
        unowned: who tells of partitions that nobody has.
        memory: bytes that the store uses and may use, None where it does not say.
        paused: which of them are paused for a bad deploy, and what lets them go on.
    """

    settings: Settings
    metrics: WorkerMetrics
    serving: Serving
    reads: UserStore
    control: ControlReader
    assigned: Callable[[], Collection[str]]
    holdup: Callable[[], str | None]
    misfit_topics: Callable[[], str | None]
    lags: Callable[[], Mapping[Source, Lag]]
    paused: Callable[[], str | None]
    standing: Callable[[], Standing | None] = lambda: None
    unowned: Unowned | None = None
    memory: Callable[[], tuple[float, float] | None] = lambda: None
    _policies: Policies = field(init=False)
    _pinged: str | None = field(init=False, default="the store was not asked yet")

    def __post_init__(self) -> None:
        self._policies = Policies.of(self.settings)

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
            latest_slate=self.latest_slate,
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
        async with server:
            for second in itertools.count():
                self._pinged = await asyncio.to_thread(self._ping)
                if second % _MEMORY_S == 0:
                    await asyncio.to_thread(self._look_at_memory)
                await watching.second()

    def checks(self) -> dict[str, dict[str, Check]]:
        """What each probe asks: docs/hosts.md says what each means."""
        return {
            "started": {"control": self.control.unread},
            "ready": {
                "store": lambda: self._pinged,
                "partitions": self._partitions,
                "work": self.holdup,
                "topics": self.misfit_topics,
            },
        }

    def _look_at_memory(self) -> None:
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

    async def latest_slate(self, user_id: str) -> bytes | None:
        """The stored slate, without what may not be shown any more; None when it expired.

        What was seen since is left out too, or where the surface repeats, what was refused.
        """
        value = await asyncio.to_thread(self.reads.latest_slate, user_id)
        if value is None:
            return None
        return await asyncio.to_thread(self._still_good, user_id, decode_slate(value))

    def _still_good(self, user_id: str, slate: Slate) -> bytes | None:
        if slate.expires_at <= epoch_ms():
            return None
        profile, repeats = self.reads.read([user_id]), self._policies.on(slate.surface).repeats
        ids_1K = item_ids([item.item_id for item in slate.items])[None]
        seen_K = profile.seen.hits(np.zeros(1, np.int32), profile.states.item_UH, ids_1K)[0]
        if repeats:
            seen_K = np.isin(ids_1K[0], profile.states.item_UH[REFUSES[profile.states.action_UH]])
        viewer = Viewer(slate.country or "", slate.age_limit, slate.surface, slate.language or "")
        with self.serving.items.lock:
            row_K = self.serving.items.ids.rows(ids_1K[0])
            barred_N = self.serving.barred(viewer)
            gone_K = (row_K < 0) | (row_K >= len(barred_N)) | barred_N[np.minimum(row_K, len(barred_N) - 1)]
        good = [item for item, out in zip(slate.items, (seen_K | gone_K).tolist(), strict=True) if not out]
        return encode(structs.replace(slate, items=tuple(good)))
