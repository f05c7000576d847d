import asyncio
import gzip
import logging
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
from pydantic import ValidationError

from embeddings.errors import StoreUnavailable
from streams.http_settings import Http
from tests.streams.lanes import LOG
from tests.streams.posting import Posting, a_posting

PAGES = (("GET", "/v1/users/u1/slate"), ("POST", "/v1/events"), ("POST", "/v1/slates"))


@pytest.fixture
async def posting() -> AsyncIterator[Posting]:
    async with a_posting(http={"token": "open sesame"}) as posting:
        yield posting


async def test_a_token_is_wanted_of_whoever_uses_the_api_and_of_nobody_else(posting: Posting) -> None:
    for told in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic open sesame"}, {"Authorization": "é"}):
        for method, path in PAGES:
            reply = await posting.ask(method, path, headers=told)
            assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
    for page in ("/livez", "/readyz", "/startupz", "/metrics", "/openapi.json"):
        assert (await posting.ask("GET", page)).status == 200
    let_in = {"Authorization": "bearer open sesame"}
    assert (await posting.ask("GET", "/v1/users/u1/slate", headers=let_in)).status == 404
    assert (await posting.post("/v1/slates", b"{}", **let_in)).status == 400


async def test_pages_take_what_they_are_for_and_nothing_else(posting: Posting) -> None:
    for method, path in PAGES:
        for other in {"GET", "POST", "PUT", "DELETE", "PATCH"} - {method}:
            reply = await posting.ask(other, path)
            assert reply.status == 405
            assert method in reply.headers["Allow"]
    for path in ("/", "/v1", "/v1/users/", "/v1/users/a/b/slate", "/v1/users/a", "/v1/events/", "/admin"):
        assert (await posting.ask("GET", path)).status == 404


async def test_who_asks_while_too_many_wait_is_told_when_to_come_again() -> None:
    async with a_posting() as posting:
        posting.api.slates._together.waiting = 0
        reply = await posting.ask("GET", "/v1/users/u1/slate")
        assert (reply.status, reply.headers["Retry-After"]) == (503, "1")


async def test_before_it_has_started_there_are_no_slates_but_events_are_taken() -> None:
    async with a_posting() as posting:
        posting.api.started = lambda: False
        slates = await posting.post("/v1/slates", {"request_id": "r", "user_id": "u1"})
        latest = await posting.ask("GET", "/v1/users/u1/slate")
        assert [(reply.status, reply.headers["Retry-After"]) for reply in (slates, latest)] == [(503, "1")] * 2
        event = {"type": "view", "user_id": "u", "item_id": "i", "event_time": 1_750_000_000_000}
        assert (await posting.post("/v1/events", event)).status == 202


async def test_a_compressed_body_is_held_for_as_large_as_it_may_become() -> None:
    whole = gzip.compress(b'{"request_id": "r", "user_id": "u1"}')
    async with a_posting() as posting:
        assert (await posting.post("/v1/slates", whole, Content_Encoding="gzip")).status == 200
        posting.api._held = 63 << 20
        assert (await posting.post("/v1/slates", {"request_id": "r", "user_id": "u1"})).status == 200
        posting.api._held += 1
        assert (await posting.post("/v1/slates", whole, Content_Encoding="gzip")).status == 503


async def test_a_coding_that_nobody_reads_and_a_body_that_is_none_are_refused_without_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_posting() as posting:
        reply = await posting.post("/v1/events", b"{}", Content_Encoding="br")
        assert (reply.status, reply.headers["Accept-Encoding"]) == (415, "gzip, deflate")
        broken = await posting.post("/v1/events", b"no gzip at all", Content_Encoding="gzip")
        assert (broken.status, broken.body) == (400, {"error": "the body did not come whole"})
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_who_waits_to_be_told_to_go_on_is_told_unless_the_body_is_not_taken() -> None:
    event = b'{"type": "view", "user_id": "u", "item_id": "i", "event_time": 1750000000000}'
    for kind, status in (("application/json", 202), ("text/plain", 415)):
        async with a_posting(http={"max_body_bytes": 4_096}) as posting:
            headers = {"Content-Type": kind}
            reply = await posting.ask(
                "POST", "/v1/events", data=event, headers=headers, expect100=True, timeout=aiohttp.ClientTimeout(5)
            )
            assert reply.status == status


async def test_ids_are_as_long_here_as_elsewhere() -> None:
    async with a_posting() as posting:
        for user, status in (("😀" * 512, 404), ("x" * 513, 400)):
            assert (await posting.ask("GET", f"/v1/users/{quote(user)}/slate")).status == status


async def test_the_latest_slate_of_a_user_is_served_as_it_is_stored() -> None:
    async with a_posting() as posting:
        posting.service.now_ms = 4_000_000_000_000  # a slate that does not expire for a while
        posting.service.deliver([event._replace(timestamp=posting.service.now_ms) for event in LOG])
        user = "u1"
        kept = posting.service.users.latest_slate(user)
        assert kept
        reply = await posting.ask("GET", f"/v1/users/{user}/slate")
        assert (reply.status, reply.headers["Cache-Control"]) == (200, "no-store")
        assert (await posting.ask("HEAD", f"/v1/users/{user}/slate")).status == 200
        for name, status in (("ann%2F%C3%A4", 404), ("x" * 600, 400), ("%20", 404)):
            assert (await posting.ask("GET", f"/v1/users/{name}/slate")).status == status


async def test_a_store_that_does_not_answer_is_unavailable_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_posting() as posting:

        def away(user_ids: object) -> None:
            raise StoreUnavailable("timeout")

        monkeypatch.setattr(posting.service.users, "read_slates", away)
        reply = await posting.ask("GET", "/v1/users/u1/slate")
        assert (reply.status, reply.headers["Retry-After"]) == (503, "1")


async def test_nothing_that_somebody_sent_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with a_posting() as posting:
        monstrous = {"request_id": "r", "user_id": "user-17", "n": 3}
        posting.api.requests.answerer = None  # type: ignore[assignment]
        assert (await posting.post("/v1/slates", monstrous)).status == 500
        assert (await posting.post("/v1/events", b'{"user_id":"user-17"')).status == 400
        await posting.ask("GET", "/v1/users/user-17/slate")
    assert "user-17" not in caplog.text
    assert "a request over HTTP failed: AttributeError" in caplog.text


@pytest.fixture
def certified(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for this host, and its key."""
    certificate, key = tmp_path / "crt", tmp_path / "key"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    make += ["-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(make, check=True, capture_output=True)
    return certificate, key


async def test_it_speaks_tls_where_it_has_a_certificate(certified: tuple[Path, Path]) -> None:
    certificate, key = certified
    async with a_posting(http={"tls_cert": str(certificate), "tls_key": str(key)}) as posting:
        trusting = ssl.create_default_context(cafile=str(certificate))
        for page in ("/livez", "/openapi.json"):
            assert (await posting.ask("GET", page, ssl=trusting)).status == 200
    with pytest.raises(ValidationError, match="tls_cert and tls_key are set both or not at all"):
        Http(tls_cert=certificate)
    with pytest.raises(ValidationError, match="do not go together"):
        Http(tls_cert=key, tls_key=key)


async def raw(posting: Posting, request: bytes) -> int:
    """The status of what these bytes are answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", posting.server.port)
    writer.write(request)
    head = await reader.readline()
    writer.close()
    return int(head.split()[1])


async def test_bytes_that_are_no_text_are_no_reason_to_fail(caplog: pytest.LogCaptureFixture) -> None:
    post = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    event = b'{"type":"view","user_id":"u","item_id":"i","event_time":1750000000000}'
    whole = b"Content-Length: %d\r\n\r\n%s" % (len(event), event)
    async with a_posting() as posting:
        assert await raw(posting, b"GET /v1/users/user-17\xff/slate HTTP/1.1\r\nHost: x\r\n\r\n") == 400
        assert "user-17" not in caplog.text
        assert await raw(posting, b"GET /v1/users/%FF%00/slate HTTP/1.1\r\nHost: x\r\n\r\n") == 404
        assert await raw(posting, post + b"ce-id: \xff\r\nce-source: %%%\r\ntraceparent: \xfe\r\n" + whole) == 202
        assert dict(posting.topics.published[0].headers)["ce_id"] == b"\xff", "as it came"
        assert await raw(posting, post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n") == 400
        asked = post.replace(b"events", b"slates") + b"traceparent: \xfe\r\n" + whole
        assert await raw(posting, asked) == 200
        assert await raw(posting, asked.replace(b"application/json", b"application/cloudevents+json")) == 415


async def test_a_body_that_does_not_come_in_time_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.worker.http_api._BODY_WITHIN_S", 0.05)
    head = b"POST /v1/%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    async with a_posting() as posting:
        for page in (b"events", b"slates"):
            assert await raw(posting, head % page) == 408
        assert posting.topics.published == []
        assert posting.api._held == 0
