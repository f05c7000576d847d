import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from embeddings.events import Source
from streams.contract.decode import decode
from streams.contract.messages import Outgoing
from streams.contract.parsing import Rules
from streams.contract.posted import Posted
from tests.streams.builders import NOW_MS
from tests.streams.lanes import AWAY, TOO_LARGE
from tests.streams.posting import Posting, Reply, a_posting

EVENT = {"type": "play", "user_id": "ann", "item_id": "i001", "event_time": NOW_MS - 1_000}
CLOUD = {"specversion": "1.0", "id": "1", "source": "/app", "type": "play"}
EVENTS = "marquee.events.v1"


@pytest.fixture
async def posting() -> AsyncIterator[Posting]:
    async with a_posting(http={"max_events": 5, "max_body_bytes": 4_096}) as posting:
        yield posting


async def post(posting: Posting, body: Any, **headers: str) -> Reply:
    return await posting.post("/v1/events", body, **headers)


def refused(reply: Reply) -> list[tuple[int, str, str | None]]:
    return [(one["index"], one["code"], one.get("field")) for one in reply.body["refused"]]


async def test_an_event_is_acknowledged_when_its_topic_has_it(posting: Posting) -> None:
    posting.topics.acknowledges.clear()
    posting.api.events.outbox.within_s = 5
    asking = asyncio.create_task(post(posting, EVENT))
    await posting.topics.sent.wait()
    assert not asking.done()
    posting.topics.acknowledges.set()
    reply = await asking
    assert (reply.status, reply.body) == (202, {"accepted": 1, "refused": []})
    assert posting.topics.published == [Outgoing(EVENTS, b"ann", msgspec.json.encode(EVENT), [])]


STRUCTURED = {"Content_Type": "application/cloudevents+json; charset=utf-8"}
BATCHED = {"Content_Type": "application/cloudevents-batch+json"}
NAMELESS = {**EVENT, "user_id": ""}
FORMS: list[tuple[Any, dict[str, str]]] = [
    (EVENT, {"ce_id": "1", "ce_source": "/app%20a", "ce_specversion": "1.0", "ce_type": "play"}),
    (CLOUD | {"data": EVENT}, STRUCTURED),
    ([CLOUD | {"data": EVENT}], BATCHED),
    (CLOUD | {"data": NAMELESS, "partitionkey": "ann"}, STRUCTURED),
    (NAMELESS, {"ce_id": "1", "ce_source": "/app a", "ce_partitionkey": "ann"}),
    ([EVENT], {}),
]


async def test_an_event_means_the_same_in_every_form(posting: Posting) -> None:
    for body, headers in FORMS:
        posting.topics.published.clear()
        assert (await post(posting, body, **headers)).status == 202
        (record,) = posting.topics.published
        assert record.key == b"ann"
        there = Posted(0, NOW_MS, record.key, record.value, record.headers)
        decoded = decode([(Source(EVENTS, 0), [there])], Rules.of(posting.service.settings, {}), NOW_MS)
        assert (decoded.batch.user_ids, decoded.events[0].item_id) == (("ann",), "i001")
        named = "ce_id" in headers or "specversion" in str(body)
        assert bool(decoded.batch.dedupe_B[0]) == named, "a name of its own is kept, so that it counts once"
        if "ce_source" in headers:
            assert dict(record.headers)["ce_source"] == b"/app a", "which is percent-encoded over HTTP only"


async def test_an_event_is_of_the_trace_that_it_names_else_of_the_request_that_brought_it(posting: Posting) -> None:
    own = CLOUD | {"traceparent": "own"}
    forms: list[tuple[Any, dict[str, str], list[bytes]]] = [
        (EVENT, {}, [b"asked"]),
        (EVENT, {"ce_id": "1", "ce_traceparent": "own"}, [b"own"]),
        ([EVENT, EVENT], {}, [b"asked"] * 2),
        (own | {"data": EVENT}, STRUCTURED, [b"own"]),
        ([own | {"data": EVENT}, CLOUD | {"data": EVENT}], BATCHED, [b"own", b"asked"]),
    ]
    for body, headers, traces in forms:
        posting.topics.published.clear()
        assert (await post(posting, body, **headers, traceparent="asked")).status == 202
        assert [dict(record.headers)["traceparent"] for record in posting.topics.published] == traces


async def test_what_cannot_be_read_gets_the_code_of_a_dead_letter_and_the_rest_is_taken(posting: Posting) -> None:
    seconds, nobody = {**EVENT, "event_time": 1_750_000_000}, {**EVENT, "user_id": None}
    reply = await post(posting, [EVENT, seconds, nobody, {**EVENT, "item_id": 5}, EVENT])
    assert (reply.status, reply.body["accepted"]) == (400, 2)
    assert refused(reply) == [
        (1, "seconds", "event_time"),
        (2, "missing_field", "user_id"),
        (3, "malformed", "item_id"),
    ]
    assert [record.key for record in posting.topics.published] == [b"ann", b"ann"]


BAD: list[tuple[Any, dict[str, str], str, str | None]] = [
    (b"{", {}, "malformed", None),
    (b"[", {}, "malformed", None),
    (b"", {}, "malformed", None),
    (b"[" * 2_000, {}, "too_deep", None),
    (b'{"type":"play","event_time":1,"user_id":"\xff"}', {}, "bad_utf8", None),
    (b'{"user_id":"u","event_time":1750000000000}', {}, "missing_field", "type"),
    (b'{"id":"1"}', STRUCTURED, "missing_field", "data"),
    (EVENT, STRUCTURED, "missing_field", "data"),
    (b'"{}"', {}, "malformed", None),
    ([EVENT], {"ce_id": "1", "ce_source": "/app"}, "malformed", None),
    (b"{}", BATCHED, "malformed", None),
    ({**EVENT, "type": "rating"}, {}, "missing_field", "value"),
    ({**EVENT, "item_id": None}, {}, "missing_field", "item_id"),
    ({**EVENT, "event_time": NOW_MS + 10**9}, {}, "future", "event_time"),
]


async def test_a_bad_body_is_refused_by_what_is_wrong_with_it(posting: Posting) -> None:
    for body, headers, code, field in BAD:
        reply = await post(posting, body, **headers)
        assert (reply.status, reply.body["accepted"], refused(reply)) == (400, 0, [(0, code, field)]), body
    assert not posting.topics.published


async def test_bodies_and_lists_are_bounded(posting: Posting) -> None:
    assert (await post(posting, [EVENT] * 6)).status == 413
    assert (await post(posting, b" " * 5_000)).status == 413

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * 1_000

    headers = {"Content-Type": "application/json"}
    assert (await posting.ask("POST", "/v1/events", data=chunks(), headers=headers)).status == 413
    assert not posting.topics.published


async def test_many_large_bodies_at_a_time_are_told_to_come_again(
    posting: Posting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.worker.http_api._MOST_HELD", 10_000)
    posting.topics.acknowledges.clear()
    posting.api.events.outbox.within_s = 5
    large = [asyncio.create_task(post(posting, msgspec.json.encode(EVENT) + b" " * 3_500)) for _ in range(5)]
    told, waiting = await asyncio.wait(large, return_when=asyncio.FIRST_COMPLETED)
    while len(told) < 3:
        more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        told |= more
    assert {task.result().status for task in told} == {503}
    posting.topics.acknowledges.set()
    assert {(await task).status for task in waiting} == {202}
    assert (await post(posting, EVENT)).status == 202


async def test_a_body_of_another_kind_is_not_taken(posting: Posting) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        assert (await post(posting, EVENT, Content_Type=kind)).status == 415


async def test_brokers_that_are_away_are_told_at_once(posting: Posting) -> None:
    posting.topics.errors = [AWAY]
    reply = await post(posting, EVENT)
    assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
    assert (await post(posting, EVENT)).status == 202
    posting.topics.acknowledges.clear()
    assert (await post(posting, EVENT)).status == 503, "it is not known whether they have it"
    sent = len(posting.topics.published)
    assert (await post(posting, EVENT)).status == 503
    assert len(posting.topics.published) == sent, "one batch waits for them, not every one"
    posting.topics.acknowledges.set()
    assert (await post(posting, EVENT)).status == 202


async def test_an_event_that_no_topic_takes_costs_its_neighbours_nothing(posting: Posting) -> None:
    posting.topics.acknowledges.clear()
    posting.api.events.outbox.within_s = 5
    first = asyncio.create_task(post(posting, EVENT))
    await posting.topics.sent.wait()
    posting.topics.errors = [TOO_LARGE, TOO_LARGE]  # those who wait, then one of them alone
    others = [asyncio.create_task(post(posting, EVENT)) for _ in range(3)]
    await asyncio.sleep(0.05)
    posting.topics.acknowledges.set()
    assert (await first).status == 202
    assert sorted(reply.status for reply in await asyncio.gather(*others)) == [202, 202, 500]


async def test_those_who_post_at_a_time_share_a_round_trip(posting: Posting) -> None:
    sends = 0
    send_all = posting.topics.send_all

    async def counted(*args: Any, **named: Any) -> None:
        nonlocal sends
        sends += 1
        await asyncio.sleep(0.01)
        await send_all(*args, **named)

    posting.topics.send_all = counted  # type: ignore[method-assign]
    posting.api.events.outbox.within_s = 5
    replies = await asyncio.gather(*(post(posting, {**EVENT, "item_id": f"i{n}"}) for n in range(40)))
    assert {reply.status for reply in replies} == {202}
    assert len(posting.topics.published) == 40
    assert sends < 10
