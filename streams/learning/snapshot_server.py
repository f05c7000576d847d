"""Snapshots over HTTP, read only, for workers that do not share the learner's disk."""

import logging

from aiohttp import web

from streams.addresses import url_of
from streams.process.health import listen
from streams.settings import Learner

log = logging.getLogger(__name__)


class SnapshotServer:
    """Serves the folder of snapshots, where the settings ask for it."""

    def __init__(self, settings: Learner) -> None:
        self._settings = settings
        self._runner: web.AppRunner | None = None
        self.port = 0
        """Where it listens, once it does."""

    def url(self) -> str:
        """What workers are told to fetch from; empty where they share the disk."""
        s = self._settings
        return (s.public_url or url_of(s.host, self.port)) if s.serve else ""

    @property
    def listens(self) -> bool:
        """Whether workers can fetch: it listens, or they share the disk."""
        return bool(self.port) or not self._settings.serve

    async def start(self) -> None:
        """Listen, if it is wanted.

        Raises:
            OSError: the address is taken.
        """
        s = self._settings
        if not s.serve:
            return
        s.snapshot_dir.mkdir(parents=True, exist_ok=True)
        app = web.Application()
        app.router.add_static("/", s.snapshot_dir)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        self.port = await listen(self._runner, s.host, s.port)
        log.info("snapshots are served at %s", self.url())

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
