"""What a process says over HTTP: is it alive, ready, started; its metrics; and the latest slate of a user.

`/livez /readyz /startupz` answer 200 or 503 with every check by name and, where it fails, why. `/metrics` is apart from
them. There is no verb that changes anything, and no access log, for a path may hold a user id.
"""

import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Self

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from embeddings.errors import StoreRefused, StoreUnavailable
from streams.addresses import url_of

Check = Callable[[], str | None]
"""Why something is not as it should be, or None. Asked on the event loop at every request: it must not block."""

Slate = Callable[[str], Awaitable[bytes | None]]
"""The latest slate of a user as JSON, still good to show; None where there is none."""

MAX_USER_ID = 512
_RETRY_AFTER_S = "1"

log = logging.getLogger(__name__)


class HealthServer:
    """The HTTP side of a process, for an `async with` block; it answers until the block ends.

    A blocked event loop answers nothing, which is the truth: whoever probes takes that for dead.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        registry: CollectorRegistry,
        live: Mapping[str, Check] | None = None,
        ready: Mapping[str, Check] | None = None,
        started: Mapping[str, Check] | None = None,
        notes: Mapping[str, Check] | None = None,
        latest_slate: Slate | None = None,
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
            latest_slate: Serves `GET /v1/users/{user_id}/slate`; without it there is no such page.
        """
        self.host, self.port = host, port
        self._registry, self._latest_slate = registry, latest_slate
        started = started or {}
        probes = {"/livez": live or {}, "/startupz": started, "/readyz": {**started, **(ready or {})}}
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        for path, checks in probes.items():
            app.router.add_get(path, _probe(checks, (notes or {}) if path == "/readyz" else {}))
        if latest_slate is not None:
            app.router.add_get("/v1/users/{user_id}/slate", self._slate)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)

    async def start(self) -> Self:
        """Listen.

        Raises:
            OSError: the address is taken. The process has not started.
        """
        await self._runner.setup()
        self.port = await listen(self._runner, self.host, self.port)
        log.info("%s answers", url_of(self.host, self.port))
        return self

    async def stop(self) -> None:
        """Stop listening; requests that run get a second."""
        await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.stop()

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})

    async def _slate(self, request: web.Request) -> web.Response:
        user_id = request.match_info["user_id"]
        if len(user_id.encode()) > MAX_USER_ID:
            return _answer(400, error=f"a user id has at most {MAX_USER_ID} bytes")
        assert self._latest_slate is not None
        try:
            slate = await self._latest_slate(user_id)
        except (StoreUnavailable, StoreRefused):
            return _answer(503, {"Retry-After": _RETRY_AFTER_S}, error="the store does not answer")
        if slate is None:
            return _answer(404, error="no slate for this user, or it has expired")
        return web.Response(body=slate, content_type="application/json", headers={"Cache-Control": "no-store"})


async def listen(runner: web.AppRunner, host: str, port: int) -> int:
    """Listen for a site that was set up; returns the port. `::` listens for IPv4 too, as other servers' does.

    Raises:
        OSError: the address is taken, or not this machine's.
    """
    if host == "::" and socket.has_dualstack_ipv6():
        sock = socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=True)
        await web.SockSite(runner, sock).start()
    else:
        await web.TCPSite(runner, host, port).start()
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


def _probe(checks: Mapping[str, Check], notes: Mapping[str, Check]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        found = examine(checks)
        ok = not any(found.values())
        found |= examine(notes)
        return _answer(200 if ok else 503, ok=ok, checks={name: why or "ok" for name, why in found.items()})

    return answer


def _answer(status: int, headers: Mapping[str, str] | None = None, /, **body: object) -> web.Response:
    return web.Response(
        status=status,
        body=msgspec.json.encode(body),
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )
