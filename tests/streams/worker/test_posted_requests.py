import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from embeddings.ids import murmur2
from embeddings.store import Profiles
from streams.contract.messages import Part
from streams.contract.observations import decode
from streams.contract.records import Slate, decode_ad, decode_slate, encode
from streams.lab.ad_house import AdHouse
from streams.process.tracing import Traced
from streams.serving.observation_writer import slate_hash
from streams.worker.posted_requests import place_of
from tests.streams.builders import DENIED, NOW_MS, REQUESTS, Raw, Service, small
from tests.streams.lanes import AWAY, ITEMS, LOG
from tests.streams.posting import PATIENT, Posting, Reply, a_posting

ASK = {"request_id": "r1", "user_id": "u1", "n": 4, "surface": "player", "context": {"country": "DE"}}
ADS = "marquee.ads.v1"


@pytest.fixture(scope="module")
def service() -> Service:
    """One that has learned; requests change nothing of it."""
    service = Service(small(slates=PATIENT))
    service.catalogue(*ITEMS)
    service.live_through(LOG)
    return service


@pytest.fixture
async def posting(service: Service) -> AsyncIterator[Posting]:
    answerer = dataclasses.replace(service.answerer)
    async with a_posting(service, answerer) as posting:
        yield posting


async def post(posting: Posting, body: Any, **headers: str) -> Reply:
    return await posting.post("/v1/slates", body, **headers)


def slate_of(reply: Reply) -> Slate:
    assert reply.status == 200
    return decode_slate(encode(reply.body))


async def test_the_answer_is_the_slate_that_the_lane_would_publish(posting: Posting) -> None:
    slate = slate_of(await post(posting, ASK))
    raw = Raw(slate.offset, encode(ASK), b"u1", timestamp=NOW_MS)
    (published,), _ = posting.answerer.respond([Part(REQUESTS, [raw], slate.offset, -1)])
    lane = decode_slate(published.value)
    told = {name: getattr(slate, name) for name in slate.__struct_fields__}
    place = {name: told[name] for name in ("slate_id", "topic", "partition", "offset")}
    assert encode(Slate(**told | {name: getattr(lane, name) for name in place})) == published.value
    assert (slate.request_id, slate.surface, len(slate.items), slate.degraded) == ("r1", "player", 4, None)
    partitions = posting.service.settings.topics.partitions
    assert (slate.topic, slate.partition) == ("http:requests", murmur2([b"u1"])[0] % partitions)


NAMELESS = ({"user_id": "u1"}, {"user_id": "u1"}, {"request_id": None, "user_id": "u1"})


async def test_a_name_is_one_request_of_one_person(posting: Posting) -> None:
    first = slate_of(await post(posting, ASK))
    again = slate_of(await post(posting, ASK))
    other = slate_of(await post(posting, ASK | {"user_id": "u2"}))
    nameless = [slate_of(await post(posting, unnamed)) for unnamed in NAMELESS]
    assert again.slate_id == first.slate_id != other.slate_id
    assert len({slate.slate_id for slate in (first, other, *nameless)}) == 5
    assert all(slate.request_id for slate in nameless)


@given(*2 * [st.tuples(*2 * [st.text("a\x00ÿ", max_size=4)])])
def test_no_two_names_have_one_place_whatever_is_in_them(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (place_of(*one, 1) == place_of(*other, 1)) == (one == other)
    assert place_of("a\0b", "c", 1) != place_of("a", "b\0c", 1)


async def test_those_who_ask_at_a_time_are_answered_in_one_go(
    posting: Posting, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, reads = posting.service.users.read, list[int]()

    def counted(user_ids: Sequence[str]) -> Profiles:
        reads.append(len(user_ids))
        return read(user_ids)

    monkeypatch.setattr(posting.service.users, "read", counted)
    asked = [ASK | {"request_id": f"r{n % 25}", "user_id": f"u{n % 5}"} for n in range(50)]
    slates = [slate_of(reply) for reply in await asyncio.gather(*(post(posting, one) for one in asked))]
    assert [(slate.request_id, slate.user_id) for slate in slates] == [(a["request_id"], a["user_id"]) for a in asked]
    assert len(reads) < 20
    assert max(reads) <= 25, "who asks twice at a time is answered once"


async def test_other_requests_under_the_same_name_at_a_time_each_get_what_they_ask_for(posting: Posting) -> None:
    asked = [ASK | {"n": n} for n in (2, 7, 3, 2, 5)]
    slates = [slate_of(reply) for reply in await asyncio.gather(*(post(posting, one) for one in asked))]
    assert [len(slate.items) for slate in slates] == [2, 7, 3, 2, 5]
    assert len({slate.slate_id for slate in slates}) == 1


async def test_what_was_shown_is_told_where_the_events_of_the_same_people_are(posting: Posting) -> None:
    slates = [slate_of(await post(posting, ASK | {"user_id": f"u{n}"})) for n in range(4)]
    await posting.api.requests.outbox.stop()
    told = [decode(record.value or b"") for record in posting.topics.of("marquee.observations.v1")]
    assert {name for o in told for name in o.shown_L.tolist()} == {slate_hash(slate.slate_id) for slate in slates}
    assert sorted(o.source.partition for o in told) == sorted(slate.partition for slate in slates)
    assert {record.topic for record in posting.topics.published} == {"marquee.observations.v1"}
    assert posting.metrics.registry.get_sample_value("marquee_slates_total", {"trigger": "request"}) == 4


BAD: list[tuple[Any, str, str | None]] = [
    ({"request_id": "r"}, "missing_field", "user_id"),
    (ASK | {"n": "x"}, "malformed", "n"),
    (ASK | {"tmax": -5_000}, "malformed", "tmax"),
    (ASK | {"deadline_ms": -5_000}, "malformed", "deadline_ms"),
    (b'{"request_id":"r","user_id":"u1","tmax":1%s}' % (b"0" * 400), "malformed", "tmax"),
    (ASK | {"request_id": ""}, "malformed", "request_id"),
    (b"{", "malformed", None),
    (b"[]", "malformed", None),
    (b"{}", "missing_field", "user_id"),
    (b"[" * 2_000, "too_deep", None),
    (ASK | {"event_time": 5}, "seconds", "event_time"),
]


async def test_a_request_that_cannot_be_read_says_why(posting: Posting) -> None:
    for body, code, field in BAD:
        reply = await post(posting, body)
        assert (reply.status, reply.body["code"], reply.body.get("field")) == (400, code, field), body


async def test_those_who_ask_at_a_time_are_a_span_that_is_linked_to_their_traces(posting: Posting) -> None:
    exported, provider, trace = InMemorySpanExporter(), TracerProvider(), 0x4BF92F3577B34DA6A3CE929D0E0E4736
    provider.add_span_processor(SimpleSpanProcessor(exported))
    posting.metrics.spans = Traced(provider, links=3)
    assert (await post(posting, ASK, traceparent=f"00-{trace:032x}-00f067aa0ba902b7-01")).status == 200
    (batch,) = (span for span in exported.get_finished_spans() if span.name == "batch http")
    assert [link.context.trace_id for link in batch.links] == [trace]


async def test_consent_counts_as_on_kafka(posting: Posting) -> None:
    assert slate_of(await post(posting, ASK | {"consent": DENIED})).degraded == "contextual"


async def test_past_its_deadline_an_answer_is_popular_and_far_beyond_it_none(
    posting: Posting, monkeypatch: pytest.MonkeyPatch
) -> None:
    posting.answerer.now_ms = lambda: NOW_MS + 60
    assert slate_of(await post(posting, ASK | {"deadline_ms": 50})).degraded == "popular"
    assert slate_of(await post(posting, ASK | {"tmax": 70})).degraded is None
    monkeypatch.setattr("streams.worker.http_api._GRACE_S", 0.01)
    hurry, counted = asyncio.Event(), posting.metrics.registry.get_sample_value
    assert counted("marquee_slates_total", {"trigger": "request"}) == 2

    async def slow(some: Sequence[Any]) -> Any:
        await hurry.wait()
        return await posting.api.requests._all(some)

    posting.api.requests._together.answer = slow
    reply = await post(posting, ASK | {"deadline_ms": 5})
    hurry.set()
    assert (reply.status, reply.headers["Retry-After"]) == (504, "1")
    slate_of(await post(posting, ASK | {"request_id": "r2", "deadline_ms": 30_000}))
    assert counted("marquee_slates_total", {"trigger": "request"}) == 3, "nobody saw the one that came too late"


async def test_a_request_that_nobody_can_answer_costs_its_neighbours_nothing(posting: Posting) -> None:
    respond = posting.answerer.respond

    class Brittle:
        now_ms, ads = staticmethod(lambda: NOW_MS), None

        @staticmethod
        def respond(parts: Sequence[Part]) -> Any:
            if any(b"bad" in record.value for part in parts for record in part.records):
                raise IndexError
            return respond(parts)

    posting.api.requests.answerer = Brittle()  # type: ignore[assignment]
    asked = [ASK | {"request_id": name} for name in ("a", "bad", "b", "c")]
    replies = await asyncio.gather(*(post(posting, one) for one in asked))
    assert [reply.status for reply in replies] == [200, 500, 200, 200]
    assert replies[1].body["code"] == "handler_error"


@pytest.fixture
def house() -> AdHouse:
    """One that sells one line item, and has for a while."""
    house = AdHouse(settings=small(), now_ms=NOW_MS - 12_000)
    creative = {"crid": "cr", "approved": True, "format": "banner", "adomain": ["spring.example"]}
    line = {"id": "l", "bid_micros": 5_000_000, "creatives": [creative], "delivery": "asap"}
    whole = {"campaign_id": "spring", "advertiser": "spring", "line_items": [line], "budget_micros": 1_000_000}
    assert not house.publish(whole)
    for _ in range(12):
        house.now_ms += 1_000
        house.tick()
    return house


WANTED = {"request_id": "r-ann", "user_id": "ann", "n": 0, "imp": [{"id": "1", "banner": {}}]}


async def test_ads_are_shown_when_their_topic_has_them_and_once_for_a_name(house: AdHouse) -> None:
    async with a_posting(answerer=house.workers[0].answerer) as posting:
        posting.topics.errors_of = {ADS: [AWAY]}
        assert (await post(posting, WANTED)).status == 503, "nobody could say later what was shown"
        counted = posting.metrics.registry.get_sample_value
        assert counted("marquee_slates_total", {"trigger": "request"}) == 0
        assert counted("marquee_ad_decisions_total", {"outcome": "filled"}) == 0
        (ad,) = slate_of(await post(posting, WANTED)).ads
        assert (ad.filled, ad.campaign_id, ad.person) == (True, "spring", "")
        (again,) = slate_of(await post(posting, WANTED)).ads
        assert again == ad, "the decision stands"
        decisions = [decode_ad(record.value or b"") for record in posting.topics.of(ADS)]
        assert {one.decision_id for one in decisions} == {ad.decision_id}
        assert {record.key for record in posting.topics.of(ADS)} == {b"ann"}
        (other,) = slate_of(await post(posting, WANTED | {"user_id": "bob"})).ads
        assert other.decision_id != ad.decision_id, "a name is one request of one person"
        spent = posting.metrics.registry.get_sample_value("marquee_ad_decisions_total", {"outcome": "again"})
        assert spent == 2
