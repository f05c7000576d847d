"""The API of a worker over HTTP around a service in memory and topics that fail as they are told."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp
import msgspec

from streams.process.health import HealthServer
from streams.process.metrics import WorkerMetrics
from streams.serving.requests import Answerer
from streams.worker.http_api import Api
from streams.worker.outbox import Outbox
from streams.worker.posted_events import PostedEvents
from streams.worker.posted_requests import PostedRequests
from streams.worker.shown import Shown
from streams.worker.stored_slates import StoredSlates
from tests.streams.builders import NOW_MS, Service, small
from tests.streams.lanes import ITEMS, Topics

PATIENT = {"deadline_ms": 30_000}
"""A slow machine is no reason for another answer."""
JSON = {"Content-Type": "application/json"}


class Reply(NamedTuple):
    status: int
    body: Any
    headers: Mapping[str, str]


@dataclass
class Posting:
    """A worker's API, and who speaks to it."""

    service: Service
    answerer: Answerer
    topics: Topics = field(default_factory=Topics)
    metrics: WorkerMetrics = field(default_factory=lambda: WorkerMetrics(process=False))
    api: Api = field(init=False)
    server: HealthServer = field(init=False)
    session: aiohttp.ClientSession = field(init=False)

    def __post_init__(self) -> None:
        settings, outbox = self.service.settings, Outbox(publisher=self.topics, within_s=0.05)  # type: ignore[arg-type]
        self.api = Api(
            settings=settings,
            slates=StoredSlates(reads=self.service.users, serving=self.service.serving, settings=settings),
            events=PostedEvents(outbox=outbox, settings=settings, now_ms=lambda: NOW_MS),
            requests=PostedRequests(
                answerer=self.answerer,
                outbox=outbox,
                settings=settings,
                metrics=self.metrics,
                shown=Shown(self.metrics.slates),
            ),
            now_ms=lambda: NOW_MS,
        )
        self.server = HealthServer(
            host="127.0.0.1", port=0, registry=self.metrics.registry, beyond=self.api.page, tls=settings.http.tls()
        )

    async def post(self, path: str, body: Any, **headers: str) -> Reply:
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return await self.ask("POST", path, data=data, headers=JSON | told)

    async def ask(self, method: str, path: str, **options: Any) -> Reply:
        scheme = "https" if self.service.settings.http.tls_cert else "http"
        url = f"{scheme}://127.0.0.1:{self.server.port}{path}"
        async with self.session.request(method, url, **options) as reply:
            body = await reply.read()
            told = msgspec.json.decode(body) if reply.content_type == "application/json" and body else body
            return Reply(reply.status, told, dict(reply.headers))


@asynccontextmanager
async def a_posting(
    service: Service | None = None, answerer: Answerer | None = None, **settings: Any
) -> AsyncIterator[Posting]:
    if service is None:
        service = Service(small(**settings | {"slates": PATIENT}))
        service.catalogue(*ITEMS)
    posting = Posting(service, answerer or service.answerer)
    async with posting.server, aiohttp.ClientSession() as posting.session:
        yield posting
