"""`/v1` over HTTP, a peer of the Kafka lanes: events in, requests answered in place, the slate a user has.

    POST /v1/events                  GET /v1/users/{user_id}/slate
    POST /v1/slates                  GET /openapi.json, which says it all

A token is wanted where one is set, bodies are bounded, nothing is logged that somebody sent.
"""

import asyncio
import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import HttpVersion11, web

from embeddings.errors import StoreRefused, StoreUnavailable
from streams.contract.cloudevents import TRACEPARENT, Headers
from streams.contract.deadletters import DeadLetter
from streams.contract.openapi import openapi
from streams.contract.parsing import Unreadable
from streams.contract.posted import JSON, MEDIA_TYPES, Posted, Problem, TooMany, field_of, named, posted, refusals
from streams.contract.records import Request
from streams.process.gathering import Crowded
from streams.process.health import Page
from streams.serving.ad_requests import deadline_ms
from streams.serving.stages import epoch_ms
from streams.settings import Settings
from streams.transport.publishing import PublishFailed
from streams.worker.outbox import BrokersAway
from streams.worker.posted_events import PostedEvents
from streams.worker.posted_requests import PostedRequests
from streams.worker.stored_slates import StoredSlates

log = logging.getLogger(__name__)
MAX_USER_ID = 512
"""Characters, as of every id."""
_JSON = {"Content-Type": JSON, "Cache-Control": "no-store"}
_SOON = {"Retry-After": "1"}
_USERS, _SLATE = "/v1/users/", "/slate"
_BODY_WITHIN_S, _GRACE_S = 30.0, 1.0
"""How long a body may take, and how long after its deadline an answer is waited for."""
_LONGEST_MS = 600_000
"""The longest deadline that a request may have."""
_MOST_HELD = 64 << 20
"""Bytes of bodies at a time: more are told to come again, so that many large ones do not fill the memory."""
_encode = msgspec.json.Encoder().encode
Reply = Callable[[web.BaseRequest], Awaitable[web.Response]]


class Declined(Exception):
    """There is no answer: status, why, and headers."""

    def __init__(self, status: int, error: str, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(error)
        self.status, self.headers, self.problem = status, headers or {}, Problem(error, **more)


class _Asked(msgspec.Struct):
    """What of a request is needed before it is read; whatever is wrong with it is found then."""

    request_id: Any = None
    deadline_ms: Any = None
    tmax: Any = None

    def within_s(self, default_ms: int) -> float:
        """How long its answer is waited for."""
        said = [ms if isinstance(ms, int) and 0 <= ms <= _LONGEST_MS else None for ms in (self.deadline_ms, self.tmax)]
        request = Request(request_id="-", deadline_ms=said[0], tmax=said[1])
        return min(deadline_ms(request, 0, default_ms), _LONGEST_MS) / 1_000 + _GRACE_S


_decode_asked = msgspec.json.Decoder(_Asked).decode


@dataclass(slots=True, kw_only=True)
class Api:
    """Finds the page of a path; of the event loop in which all three of its parts are.

    `started`: are the control topics read? A slate made or looked at before would lack what it does not know yet, and
    hold what was removed; of any thread. Events are taken before, too.
    """

    settings: Settings
    slates: StoredSlates
    events: PostedEvents
    requests: PostedRequests
    now_ms: Callable[[], int] = epoch_ms
    started: Callable[[], bool] = lambda: True
    _pages: dict[str, Page] = field(init=False)
    _of_user: Page = field(init=False)
    _token: bytes = field(init=False)
    _held: int = field(init=False, default=0)
    _document: bytes = field(init=False, default_factory=lambda: _encode(openapi()))

    def __post_init__(self) -> None:
        token = self.settings.http.token
        self._token = token.get_secret_value().encode() if token else b""
        asked = self._once_started(self._held_for(self._slates))
        self._pages = {
            "/v1/events": Page("POST /v1/events", ("POST",), self._declining(self._held_for(self._events))),
            "/v1/slates": Page("POST /v1/slates", ("POST",), self._declining(asked)),
            "/openapi.json": Page("GET /openapi.json", ("GET", "HEAD"), self._openapi),
        }
        route = f"GET {_USERS}{{user_id}}{_SLATE}"
        self._of_user = Page(route, ("GET", "HEAD"), self._declining(self._once_started(self._latest)))

    def page(self, path: str) -> Page | None:
        """The page of a raw path, None where there is none."""
        if path.startswith(_USERS) and path.endswith(_SLATE) and "/" not in path[len(_USERS) : -len(_SLATE)]:
            return self._of_user
        return self._pages.get(path)

    async def stop(self) -> None:
        """Disconnect."""
        await self.requests.outbox.stop()

    def _declining(self, reply: Reply) -> Reply:
        async def answer(request: web.BaseRequest) -> web.Response:
            try:
                self._let_in(request)
                return await reply(request)
            except Exception as error:
                return _declined(error)

        return answer

    def _once_started(self, reply: Reply) -> Reply:
        async def answer(request: web.BaseRequest) -> web.Response:
            if not self.started():
                raise Declined(503, "it has not started: /startupz says why", _SOON)
            return await reply(request)

        return answer

    def _let_in(self, request: web.BaseRequest) -> None:
        if not self._token:
            return
        kind, _, told = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(_bytes(told.strip()), self._token):
            raise Declined(401, "a token is wanted, as `Authorization: Bearer`", {"WWW-Authenticate": "Bearer"})

    async def _latest(self, request: web.BaseRequest) -> web.Response:
        user_id = unquote(request.rel_url.raw_path[len(_USERS) : -len(_SLATE)])
        if not 0 < len(user_id) <= MAX_USER_ID:
            raise Declined(400, f"a user id has 1 to {MAX_USER_ID} characters", field="user_id")
        slate = await self.slates.latest(user_id)
        if slate is None:
            raise Declined(404, "no slate for this user, or it has expired")
        return web.Response(body=slate, headers=_JSON)

    async def _events(self, request: web.BaseRequest) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = await self._body(request, MEDIA_TYPES)
        records = posted(_media(request), headers, body, self.now_ms(), self.settings.http.max_events)
        receipt = await self.events.take(records)
        return web.Response(status=400 if receipt.refused else 202, body=_encode(receipt), headers=_JSON)

    async def _slates(self, request: web.BaseRequest) -> web.Response:
        now_ms, trace = self.now_ms(), request.headers.get(TRACEPARENT)
        body = await self._body(request, (JSON,))
        try:
            asked = _decode_asked(body)
        except (ValueError, RecursionError):
            asked = _Asked()
        if asked.request_id is None:
            body = named(body, secrets.token_hex(16))
        headers: Headers = ((TRACEPARENT, _bytes(trace)),) if trace else ()
        record = Posted(0, now_ms, None, body, headers)
        within_s = asked.within_s(self.settings.slates.deadline_ms)
        answer = await asyncio.wait_for(self.requests.answer(record), within_s)
        if isinstance(answer, DeadLetter):
            raise Declined(400, answer.detail, code=answer.code.value, field=field_of(answer.detail))
        return web.Response(body=answer.value, headers=_JSON)

    async def _openapi(self, request: web.BaseRequest) -> web.Response:
        return web.Response(body=self._document, headers={"Content-Type": JSON})

    def _held_for(self, reply: Reply) -> Reply:
        """Count the bytes of a body while it is here; raises `Crowded` where with it there would be too many."""

        async def answer(request: web.BaseRequest) -> web.Response:
            most, told = self.settings.http.max_body_bytes, request.content_length
            size = most if told is None or "Content-Encoding" in request.headers else min(told, most)
            if self._held + size > max(_MOST_HELD, most):
                raise Crowded
            self._held += size
            try:
                return await reply(request)
            finally:
                self._held -= size

        return answer

    async def _body(self, request: web.BaseRequest, kinds: Sequence[str]) -> bytes:
        """The whole body, if it is of a kind that is taken, and not too large."""
        if _media(request) not in kinds:
            raise Declined(415, f"Content-Type is one of {', '.join(kinds)}")
        most = self.settings.http.max_body_bytes
        too_large = Declined(413, f"a body has at most {most} bytes", {"Connection": "close"})
        if (request.content_length or 0) > most:
            raise too_large
        await _go_on(request)
        body = bytearray()
        try:
            async with asyncio.timeout(_BODY_WITHIN_S):
                async for some in request.content.iter_any():
                    body += some
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            said = f"the body did not come whole within {_BODY_WITHIN_S:g} s"
            raise Declined(408, said, {"Connection": "close"}) from None
        except (web.RequestPayloadError, ConnectionError):
            raise Declined(400, "the body did not come whole", {"Connection": "close"}) from None
        return bytes(body)


async def _go_on(request: web.BaseRequest) -> None:
    """Tell who waits for that before it sends its body: RFC 9110, 10.1.1. aiohttp does so for its applications only."""
    if request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # nothing of the answer yet


def _media(request: web.BaseRequest) -> str:
    return request.content_type.lower()


def _bytes(header: str) -> bytes:
    """A header's value as it came, whatever bytes these are."""
    return header.encode("utf-8", "surrogateescape")


def _declined(error: Exception) -> web.Response:
    """What an error means to who asked."""
    match error:
        case Declined():
            status, headers, problem = error.status, error.headers, error.problem
        case Unreadable():
            receipt = {"accepted": 0, "refused": refusals([(0, error.code.value, str(error))])}
            return web.Response(status=400, body=_encode(receipt), headers=_JSON)
        case TooMany():
            status, headers, problem = 413, {}, Problem(str(error))
        case StoreUnavailable() | StoreRefused():
            status, headers, problem = 503, _SOON, Problem("the store does not answer")
        case BrokersAway():
            status, headers, problem = 503, _SOON, Problem("the brokers do not acknowledge: send it again")
        case Crowded():
            status, headers, problem = 503, _SOON, Problem("too many wait for an answer: ask again")
        case PublishFailed():
            status, headers, problem = 500, {}, Problem("the brokers refuse it: too large for its topic, or forbidden")
        case TimeoutError():
            status, headers, problem = 504, _SOON, Problem("no answer within the deadline")
        case _:
            log.error("a request over HTTP failed: %s", type(error).__name__)
            status, headers, problem = 500, {}, Problem("it failed for an unknown reason", code="handler_error")
    return web.Response(status=status, body=_encode(problem), headers={**_JSON, **headers})
