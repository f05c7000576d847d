"""Which of the announced snapshots serves: the newest that can be had, or the one that is pinned."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from embeddings import snapshots
from embeddings.errors import SnapshotRefused, SnapshotUnreachable
from streams.contract.manifests import Announcements, manifest_of, version_of
from streams.contract.records import ModelManifest
from streams.process.metrics import WorkerMetrics
from streams.process.threads import Thread
from streams.serving.live_model import Serving
from streams.settings import Settings

log = logging.getLogger(__name__)
_OLDER = 3
"""So many of the newest versions are looked at where the newest cannot be had."""


@dataclass(slots=True, kw_only=True)
class SnapshotTaker:
    """Fetches what is to serve, builds its index beside the one in use, and swaps.

    A snapshot that cannot be fetched is tried again, `first_pause_s` later at first and `longest_pause_s` at last, for
    as long as it is to serve; one that is not what was announced is not. Both are said and counted once.
    """

    settings: Settings
    serving: Serving
    metrics: WorkerMetrics
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    said: Announcements = field(init=False, default_factory=Announcements)
    _thread: Thread = field(init=False, default_factory=lambda: Thread("models"))
    _failed: dict[int, tuple[ModelManifest, bool]] = field(init=False, default_factory=dict)
    """Announcements that could not be taken, and whether they never can."""
    _news: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _settled: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    def announced(self, records: Sequence[tuple[bytes, ModelManifest | None]]) -> None:
        """Take over records of the `models` topic, by key, in their order."""
        for key, record in records:
            self.said.take(key, record)
        self._settled.clear()
        self._news.set()

    async def settled(self) -> None:
        """Return when what was announced was looked at: it serves, or cannot be had now."""
        await self._settled.wait()

    async def run(self) -> None:
        """Look for what serves, until cancelled. To begin earlier would overlook a pin that was not read yet."""
        self._news.set()
        if (pin := self.settings.model.pinned_version) and version_of(pin) not in self.said.versions:
            log.warning("model.pinned_version is %s, which is not announced: nothing else serves", pin)
        pause_s: float | None = None
        while True:
            try:
                await asyncio.wait_for(self._news.wait(), pause_s)
                longer_s = self.first_pause_s
            except TimeoutError:
                longer_s = min(2 * (pause_s or 0), self.longest_pause_s)
            self._news.clear()
            pause_s = longer_s if await self._look() else None
            if not self._news.is_set():
                self._settled.set()

    async def _look(self) -> bool:
        """Take the best of what is announced. Returns whether anything better may be had later."""
        later = False
        for record in self._wanted():
            failed, for_good = self._failed.get(int(record.version), (None, False))
            if failed == record and for_good:
                continue
            try:
                began_s = time.monotonic()
                await self._thread.run(self._take, record)
            except SnapshotUnreachable as error:
                later = True
                why = f"cannot be fetched now, and is tried again: {error}; {_remedy(record.uri)}"
                self._refused(record, why, for_good=False)
            except Exception as error:  # whatever a file holds, the one in use serves on
                why = str(error) if isinstance(error, SnapshotRefused) else f"{type(error).__name__}: {error}"
                self._refused(record, f"is refused for good: {why} ({record.uri})", for_good=True)
            else:
                self._swapped(record, time.monotonic() - began_s)
                break
        return later

    def _wanted(self) -> list[ModelManifest]:
        """What would be better than what serves, best first."""
        live, versions = self.serving.live.version, self.said.versions
        self._failed = {v: failed for v, failed in self._failed.items() if v in versions or self.said.pin == failed[0]}
        if (setting := self.settings.model.pinned_version) is not None:
            pin = versions.get(version_of(setting) or 0)
        elif (pin := self.said.pin) is None:
            return [versions[version] for version in sorted(versions, reverse=True) if version > live][:_OLDER]
        return [pin] if pin is not None and int(pin.version) != live else []

    def _take(self, record: ModelManifest) -> None:
        snapshot = snapshots.load(manifest_of(record), max_bytes=self.settings.model.max_bytes)
        width = snapshot.source_ND.shape[1]
        if width != self.settings.learner.dimensions:
            raise SnapshotRefused(f"vectors of {width} components, learner.dimensions says otherwise")
        self.serving.swap(snapshot)

    def _refused(self, record: ModelManifest, why: str, *, for_good: bool) -> None:
        failed, was_for_good = self._failed.get(int(record.version), (None, False))
        if failed != record or was_for_good != for_good:
            (self.metrics.model.refused if for_good else self.metrics.model.unreachable)()
            serves = f"version {self.serving.live.version} serves" if self.serving.live.version else "none serves yet"
            log.warning("snapshot %s %s; %s", record.version, why, serves)
        self._failed[int(record.version)] = record, for_good

    def _swapped(self, record: ModelManifest, seconds: float) -> None:
        self._failed.pop(int(record.version), None)
        live = self.serving.live
        self.metrics.model.swapped(
            version=record.version,
            created_at_s=record.created_ms / 1000,
            ranker=live.ranker.state,
            seconds=seconds,
        )
        self.metrics.model.indexed(
            items=live.index.size,
            kind=live.index.kind,
            device=live.index.device,
            built_at_s=time.time(),
            recall=live.index.recall,
        )


def _remedy(uri: str) -> str:
    """What to set where a snapshot cannot be fetched from here."""
    if uri.startswith(("http:", "https:")):
        return "the learner must be reachable from here: set its learner.host, learner.port and learner.public_url"
    return (
        "learner.snapshot_dir must be a folder that learner and worker share; where they cannot, set"
        " learner.serve = true and learner.public_url"
    )
