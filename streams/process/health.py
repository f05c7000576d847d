"""What a process says over HTTP: is it alive, ready, started; its metrics; and what else it serves.

`/livez /readyz /startupz` answer 200 or 503 with every check by name and, where it fails, why. `/metrics` is apart from
them. There is no verb that administers anything, and no access log, for a path may hold a user id.

Pages are looked up in a dict: the route table and middlewares of `aiohttp.web.Application` cost as much as the rest.
"""

import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping
from time import perf_counter
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from streams.addresses import url_of
from streams.process.connections import NAME, BoundedServer, Handler

Check = Callable[[], str | None]
"""Why something is not as it should be, or None. Asked on the event loop at every request: it must not block."""

Home = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Calls something in the event loop of the process, and waits for what it returns."""

OTHER = "other"
"""Paths that are none of ours, together."""
TURNED_AWAY = "turned_away"
"""What was asked of a connection too many is not read."""
_READ = frozenset({"GET", "HEAD"})

log = logging.getLogger(__name__)
_server_log = logging.getLogger(f"{__name__}.server")


def _quotes_nobody(record: logging.LogRecord) -> bool:
    """Whether a record of aiohttp's is written: what is no HTTP, or no gzip, is not; of errors the kind, not paths."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        record.msg, record.args, record.exc_info = f"a request failed: {type(error).__name__}", (), None
    return not isinstance(error, (HttpProcessingError, web.RequestPayloadError))


_server_log.addFilter(_quotes_nobody)


class Page(NamedTuple):
    """What answers requests of some methods; `route` is what they are counted under, which names nobody."""

    route: str
    methods: Collection[str]
    answer: Handler


async def at_home(call: Callable[[], Any]) -> Any:
    """For servers that run in the event loop of their process."""
    return call()


class HealthServer:
    """The HTTP side of a process, for an `async with` block; it answers until the block ends.

    A blocked event loop answers nothing, which is the truth: whoever probes takes that for dead.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        *,
        live: Mapping[str, Check] | None = None,
        ready: Mapping[str, Check] | None = None,
        started: Mapping[str, Check] | None = None,
        notes: Mapping[str, Check] | None = None,
        beyond: Callable[[str], Page | None] = lambda path: None,
        home: Home = at_home,
        tls: ssl.SSLContext | None = None,
        observe: Callable[[str, int, float], object] = lambda route, status, seconds: None,
        connections: int = 512,
    ) -> None:
        """Nothing listens yet. A process is ready only when it has started: the checks of `started` count for both.

        Args:
            host: Address to listen on.
            port: Port to listen on; 0 takes a free one, which `port` says after the start.
            registry: What `/metrics` shows.
            live: Whether a restart would not help.
            ready: Whether it can do its work now.
            started: Whether it has been able to.
            notes: What `/readyz` says beside its checks: for a person to know; another process would not do better.
            beyond: Finds further pages by the raw path.
            home: Asks checks where they may be asked, if this server runs in another event loop: one that is blocked
                answers no probe.
            tls: Speaks https with it.
            observe: Told of every answer: route, `other` for paths that are none, status, seconds.
            connections: At most so many at a time: see `BoundedServer`.
        """
        self.host, self.port = host, port
        self._registry, self._beyond, self._home, self._tls, self._observe = registry, beyond, home, tls, observe
        started = started or {}
        probes = {"/livez": live or {}, "/startupz": started, "/readyz": {**started, **(ready or {})}}
        self._pages = {"/metrics": Page("/metrics", _READ, self._metrics)}
        for path, checks in probes.items():
            self._pages[path] = Page(path, _READ, self._probe(checks, (notes or {}) if path == "/readyz" else {}))
        self._connections = connections
        self._runner: web.ServerRunner | None = None

    async def start(self) -> Self:
        """Listen.

        Raises:
            OSError: the address is taken. The process has not started.
        """
        server = BoundedServer(  # of the loop that this is called in
            self._handle,
            most=self._connections,
            turned_away=lambda: self._observe(TURNED_AWAY, 503, 0.0),
            access_log=None,
            logger=_server_log,
        )
        self._runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        self.port = await listen(self._runner, self.host, self.port, self._tls)
        log.info("%s answers", url_of(self.host, self.port, tls=self._tls is not None))
        return self

    async def stop(self) -> None:
        """Stop listening; requests that run get a second."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.stop()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        began_s, path = perf_counter(), request.rel_url.raw_path
        page = self._pages.get(path) or self._beyond(path)
        if page is None:
            answer: web.StreamResponse = json_answer(404, error="there is no such page")
        elif request.method not in page.methods:
            allowed = ", ".join(sorted(page.methods))
            answer = json_answer(405, {"Allow": allowed}, error=f"this page takes {allowed}")
        else:
            try:
                answer = await page.answer(request)
            except Exception:  # aiohttp logs it, and answers so
                self._observe(page.route, 500, perf_counter() - began_s)
                raise
        answer.headers.update(NAME)
        self._observe(page.route if page else OTHER, answer.status, perf_counter() - began_s)
        return answer

    async def _metrics(self, request: web.BaseRequest) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})

    def _probe(self, checks: Mapping[str, Check], notes: Mapping[str, Check]) -> Handler:
        async def answer(_request: web.BaseRequest) -> web.Response:
            found, noted = await self._home(lambda: (examine(checks), examine(notes)))
            ok = not any(found.values())
            told = {name: why or "ok" for name, why in (found | noted).items()}
            return json_answer(200 if ok else 503, ok=ok, checks=told)

        return answer


async def listen(
    runner: web.AppRunner | web.ServerRunner, host: str, port: int, tls: ssl.SSLContext | None = None
) -> int:
    """Listen for a site that was set up; returns the port. `::` listens for IPv4 too, as other servers' does.

    Raises:
        OSError: the address is taken, or not this machine's.
    """
    if host == "::" and socket.has_dualstack_ipv6():
        sock = socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=True)
        await web.SockSite(runner, sock, ssl_context=tls).start()
    else:
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
    return int(runner.addresses[0][1])


def examine(checks: Mapping[str, Check]) -> dict[str, str | None]:
    """The answer of each check by name; one that raises has failed, with the name of its error."""
    return {name: _ask(check) for name, check in checks.items()}


def _ask(check: Check) -> str | None:
    try:
        return check()
    except Exception as error:
        log.warning("a health check raised", exc_info=True)
        return f"the check raised {type(error).__name__}"


def json_answer(status: int, headers: Mapping[str, str] | None = None, /, **body: object) -> web.Response:
    """An answer with a JSON object, which nobody may keep."""
    return web.Response(
        status=status,
        body=msgspec.json.encode(body),
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )
