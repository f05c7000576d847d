"""A short life of an installation in which something comes by on every topic: records to show and to check.

The embedded servers, a worker and a learner run; people of a small house do everything that there is an event for, ask
for slates and see ads.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from streams.contract import campaigns as c
from streams.contract import records as r
from streams.contract.ad_records import AdDecision
from streams.contract.asyncapi import Example
from streams.contract.cloudevents import event_headers
from streams.contract.imp_records import Banner, Imp
from streams.contract.messages import Outgoing
from streams.contract.schema_rules import AD_TYPES, EVENT_TYPES, ITEM_TYPES, RATING, SLATE_TYPES
from streams.contract.schemas import RECORD_OF
from streams.lab.local_stack import Stack
from streams.settings import TOPIC_NAMES, TopicName
from streams.transport.letters import read_to_end
from streams.transport.publishing import Publisher

OVERRIDES = {
    "MARQUEE_TOPICS__PARTITIONS": "2",
    "MARQUEE_SLATES__PER_EVENT": "all",
    "MARQUEE_SLATES__TRACE_RATE": "1",
    "MARQUEE_SLATES__SIZE": "3",
    "MARQUEE_LEARNER__REFRESH_EVENTS": "20",
    "MARQUEE_LEARNER__REFRESH_MIN_S": "0.2",
    "MARQUEE_LEARNER__COUNTERS_EVERY_S": "0.2",
}
_ITEMS = 12
_PATIENCE_S = 60
_CONTEXT = r.Context(surface="home", device="tv", country="DE", language="de")


class Kept(NamedTuple):
    """A record as it was on its topic; a value of None removed its key."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


Records = Mapping[TopicName, Sequence[Kept]]


def recorded() -> dict[TopicName, list[Example]]:
    """What a run brings, an example of each kind of record."""
    with Stack(OVERRIDES) as stack:
        stack.wait_until_ready()
        return examples_of(asyncio.run(play(stack)))


async def play(stack: Stack) -> Records:
    """Let everything happen once in an installation; returns all records of all topics.

    Raises:
        TimeoutError: something did not come by.
    """
    settings = stack.settings
    publisher = Publisher(settings.kafka.client_options(), idempotent=False)
    names = settings.topics.name
    try:
        items = [_item(n) for n in range(_ITEMS)]
        await publisher.send_all(Outgoing(names("catalog"), i.item_id.encode(), r.encode(i)) for i in items)
        await publisher.send_all([Outgoing(names("campaigns"), b"spring", r.encode(_campaign()))])
        await publisher.send_all(_event(names("events"), event, n) for n, event in enumerate(_deeds()))
        async with asyncio.timeout(_PATIENCE_S):
            ad = await _sold(stack, publisher)
            seen = [_of_ad(ad, kind) for kind in AD_TYPES]
            await publisher.send_all(_event(names("events"), event, n) for n, event in enumerate(seen, 1000))
            await publisher.send_all([Outgoing(names("catalog"), f"m{_ITEMS - 1}".encode(), None)])
            return await _settled(stack, names("events"), len(seen))
    finally:
        await publisher.stop()


def _item(n: int) -> r.Item:
    kinds = ("drama", "comedy", "crime")
    return r.Item(
        item_id=f"m{n}",
        title=f"Film {n}",
        categories=(kinds[n % 3],),
        language="de",
        year=1990 + n,
        duration_s=5_400.0,
        rating="12",
        territories=("DE", "FR"),
    )


def _campaign() -> c.Campaign:
    creative = c.Creative(crid="banner", format="banner", w=300, h=250, approved=True)
    line = c.LineItem(
        id="fares",
        bid_micros=6_000_000,
        budget_micros=50_000_000,
        delivery="asap",
        targeting={"country": ["DE", "FR"]},
        creatives=(creative,),
    )
    return c.Campaign(campaign_id="spring", advertiser="juniper-rail", adomain=("rail.example",), line_items=(line,))


def _deeds() -> Iterator[r.Event]:
    """Everything that people do, with items of their own and with slates."""
    now_ms = time.time_ns() // 1_000_000
    for n in range(4 * _ITEMS):
        yield r.Event(type="play", event_time=now_ms - 60_000 + n, user_id=f"u{n % 5}", item_id=f"m{n % _ITEMS}")
    for n, kind in enumerate(ITEM_TYPES):
        value = 4.0 if kind == RATING else 312.5 if kind in ("play", "progress") else None
        yield r.Event(
            type=kind,
            event_time=now_ms - 1_000 + n,
            user_id="ann",
            item_id=f"m{n % _ITEMS}",
            value=value,
            event_id=f"e{n}",
            context=_CONTEXT,
            consent=r.Consent(gdpr=0),
        )
    for n, kind in enumerate(SLATE_TYPES):
        yield r.Event(type=kind, event_time=now_ms - 500 + n, user_id="ann", item_id="m1", slate_id="s1", slot=0)


def _of_ad(ad: AdDecision, kind: str) -> r.Event:
    return r.Event(type=kind, event_time=time.time_ns() // 1_000_000, user_id="ann", decision_id=ad.decision_id)


def _event(topic: str, event: r.Event, n: int) -> Outgoing:
    """Every other one is a CloudEvent."""
    user = (event.user_id or "").encode()
    headers = event_headers(f"e{n}", "marquee.event.v1", "/player", event.event_time) if n % 2 else ()
    return Outgoing(topic, user, r.encode(event), headers)


async def _sold(stack: Stack, publisher: Publisher) -> AdDecision:
    """Ask for slates with an ad until one is filled, and for an ad that nobody sells."""
    names, n = stack.settings.topics.name, 0
    while True:
        fits = Imp(id="1", tagid="beside the film", banner=Banner(w=300, h=250), bidfloor=1.5)
        wrong = Imp(id="2", tagid="before the film", banner=Banner(w=1, h=1), bidfloor=900.0)
        imp = (fits, wrong) if n % 2 else ()
        request = r.Request(request_id=f"r{n}", user_id="ann", n=3, surface="home", context=_CONTEXT, imp=imp)
        await publisher.send_all([Outgoing(names("requests"), b"ann", r.encode(request))])
        n += 1
        await asyncio.sleep(0.3)
        for kept in await _all_of(stack, "ads"):
            if kept.value and (ad := r.decode_ad(kept.value)).filled:
                return ad


async def _settled(stack: Stack, events: str, ads: int) -> Records:
    """All records, once there is something on every topic and the ad was billed."""
    while True:
        found = {name: await _all_of(stack, name) for name in TOPIC_NAMES if name in RECORD_OF}
        billed = [r.decode_ad_stats(kept.value) for kept in found["ad_stats"] if kept.value]
        if all(found[name] for name in found if name != "privacy") and any(one.conversions for one in billed):
            return found
        await asyncio.sleep(0.5)


async def _all_of(stack: Stack, name: TopicName) -> list[Kept]:
    settings = stack.settings
    batches = read_to_end(settings.kafka.client_options(), settings.topics.name(name))
    return [Kept(one.key, one.value, one.headers) async for batch in batches for one in batch]


def examples_of(records: Records) -> dict[TopicName, list[Example]]:
    """An example of each kind of record: events by their types, the longest of each kind."""
    found: dict[TopicName, list[Example]] = {}
    for name, kept in records.items():
        kinds: dict[str, Example] = {}
        for one in sorted((one for one in kept if one.value), key=lambda one: len(one.value or b"")):
            payload = msgspec.json.decode(one.value or b"")
            headers = {title: value.decode() for title, value in one.headers}
            kinds[_kind(name, payload)] = Example(_kind(name, payload), (one.key or b"").decode(), headers, payload)
        order = {kind: n for n, kind in enumerate(EVENT_TYPES)}
        found[name] = sorted(kinds.values(), key=lambda example: (order.get(example.name, 0), example.name))
    return found


def _kind(name: TopicName, payload: Mapping[str, Any]) -> str:
    """What an example is called."""
    match name:
        case "events":
            return str(payload["type"])
        case "slates":
            return "of an event" if payload["trigger"] == "event" else "of a request"
        case "requests":
            return "with slots for ads" if "imp" in payload else "of items alone"
        case "ads":
            return "filled" if payload.get("filled") else "unfilled"
        case "ad_stats":
            return (
                "of a line item" if payload.get("line_item_id") else "of a campaign" if "key" in payload else "the end"
            )
        case _:
            return str(payload.get("kind", RECORD_OF[name].__name__))
