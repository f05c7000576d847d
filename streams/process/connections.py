"""How many connections a server of HTTP holds, and how long it waits for who says nothing, or says it slowly.

A connection is waiting until the head of a request is whole, and again once that was answered. One more than may be
takes the place of the one that has waited longest, or else of one that still sends a body: who is slow keeps nobody
out.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import hdrs, web
from aiohttp.http_exceptions import ContentEncodingError

BEGIN_S, IDLE_S = 10.0, 75.0
"""How long a first head may take, and each next one: longer than balancers keep idle connections."""
_LINGER_S = 1.0
"""How long who is told to send no more has to read why."""
_BODY = msgspec.json.encode({"error": "too many connections are being answered: ask again"})
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nCache-Control: no-store\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
NAME = {hdrs.SERVER: "marquee"}
"""What the server calls itself: no version of anything."""


class _Connection(web.RequestHandler):
    """One whose errors are JSON as all others are, and quote nobody."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What is said where there is no request, or its answer failed; the connection is closed."""
        super().handle_error(request, status, exc, message)  # it logs, and raises where an answer was begun
        headers, error = {**NAME, hdrs.CACHE_CONTROL: "no-store"}, "it is not HTTP as this server reads it"
        if status >= 500:
            error = "it failed for an unknown reason"
        elif isinstance(exc, ContentEncodingError):
            status, error, headers[hdrs.ACCEPT_ENCODING] = 415, "Content-Encoding is gzip or deflate", "gzip, deflate"
        body = msgspec.json.encode({"error": error})
        answer = web.Response(status=status, body=body, content_type="application/json", headers=headers)
        answer.force_close()
        return answer


class BoundedServer(web.Server):
    """A server of at most so many connections; of one event loop."""

    def __init__(
        self,
        handler: Handler,
        *,
        most: int,
        turned_away: Callable[[], object],
        begin_s: float = BEGIN_S,
        **options: Any,
    ) -> None:
        """Nothing listens yet.

        Args:
            handler: answers requests.
            most: connections at a time.
            turned_away: told of each connection that is answered 503 at once, because all others are being answered.
            begin_s: the first head of a connection is whole by then, or it is closed.
            options: of aiohttp's.
        """
        options |= {"keepalive_timeout": IDLE_S, "lingering_time": _LINGER_S}
        super().__init__(self._answered, **options)
        self._options = options
        self._answer, self._most, self._turned_away, self._begin_s = handler, most, turned_away, begin_s
        self._held: dict[web.RequestHandler, asyncio.TimerHandle] = {}
        self._waiting: dict[web.RequestHandler, None] = {}
        self._answering: dict[web.RequestHandler, web.BaseRequest] = {}

    def __call__(self) -> web.RequestHandler:
        """What speaks with a new connection."""
        return _Connection(self, loop=asyncio.get_running_loop(), **self._options)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Hold it, if need be in the place of another one; where none waits, say so and close it."""
        super().connection_made(handler, transport)
        loop = asyncio.get_running_loop()
        if len(self._held) >= self._most and not self._displaced():
            self._turned_away()
            transport.write(_FULL)
            handler.close()  # what is asked is not read
            loop.call_later(_LINGER_S, transport.close)
            return
        self._held[handler] = loop.call_later(self._begin_s, handler.force_close)
        self._waiting[handler] = None

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Forget it."""
        self._forget(handler)
        super().connection_lost(handler, exc)

    def _displaced(self) -> bool:
        """Close the one that has waited longest, else one whose body is not whole; false where there is none."""
        sending = (handler for handler, request in self._answering.items() if not request.content.is_eof())
        longest = next(iter(self._waiting), None) or next(sending, None)
        if longest is None:
            return False
        self._forget(longest)
        longest.force_close()
        return True

    def _forget(self, handler: web.RequestHandler) -> None:
        self._waiting.pop(handler, None)
        self._answering.pop(handler, None)
        if (begins := self._held.pop(handler, None)) is not None:
            begins.cancel()

    async def _answered(self, request: web.BaseRequest) -> web.StreamResponse:
        handler = request.protocol
        self._waiting.pop(handler, None)
        if (begins := self._held.get(handler)) is not None:
            begins.cancel()
            self._answering[handler] = request
        try:
            return await self._answer(request)
        finally:
            if self._answering.pop(handler, None) is not None:
                self._waiting[handler] = None
