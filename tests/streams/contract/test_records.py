"""Golden files hold the bytes of version 1 of each record. They are never edited: a release that cannot read them, or
writes other bytes for the same content, has broken the contract and needs a new version of the topic."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.contract import campaigns as c
from streams.contract import records as r
from streams.contract.ad_records import AdWindow
from streams.contract.cloudevents import echo, event_headers, open_envelope, read_headers
from streams.settings import TOPIC_NAMES, Settings, Topics

GOLDEN = Path(__file__).parent / "golden"
CONTEXT = r.Context(surface="home", device="tv", country="DE", language="de", session_id="s1", utcoffset=60)
CONSENT = r.Consent(gdpr=1, tcf="CO5VTlWO5VTlWH1AAAENAwCwAIAAAAAAAIAAAAoAAAAA", gpp_sid=(2,), coppa=0, lmt=0)
AD = r.AdDecision(
    decision_id="d1", user_id="u1", imp_id="1", slate_id="sl1", filled=True, campaign_id="c1", line_item_id="l1",
    crid="cr1", price_micros=1_200_000, min_to_win_micros=900_000, pctr=0.0125, reasons=("segment",),
    losses={"102": 3, "1000": 1}, decided_ms=1_750_000_000_100,
)  # fmt: skip
EXAMPLES: dict[str, tuple[Any, Callable[[bytes], Any]]] = {
    "events": (
        r.Event(
            user_id="u1", item_id="m1", type="play", value=321.5, event_time=1_750_000_000_000, event_id="e1",
            slate_id="sl1", slot=3, context=CONTEXT, consent=CONSENT,
        ),
        r.decode_event,
    ),
    "catalog": (
        r.Item(
            item_id="m1", title="Zażółć", text="A film.", categories=("Drama",), creators=("p1",), series="s1",
            duration_s=5400.0, language="pl", year=1997, rating="16", territories=("DE", "PL"),
            available_from=1_700_000_000_000, available_until=1_800_000_000_000, embedding=(0.5, -0.25),
        ),
        r.decode_item,
    ),
    "campaigns": (
        c.Campaign(
            campaign_id="c1", advertiser="a1", time_zone="Europe/Berlin", currency="EUR", budget_micros=10**12,
            caps=(c.Cap(count=3),),
            line_items=(
                c.LineItem(
                    id="l1", bid_micros=2_000_000, targeting={"in": ["country", ["DE"]]},
                    creatives=(c.Creative(crid="cr1", adomain=("a.example",), cat=("IAB1",), dur=15, approved=True),),
                ),
            ),
        ),
        c.decode_campaign,
    ),
    "requests": (
        r.Request(
            request_id="r1", user_id="u1", surface="home", n=10, context=CONTEXT, exclude=("m2",), deadline_ms=80,
            event_time=1_750_000_000_000, imp=(r.Imp(id="1", bidfloor=0.5),), consent=CONSENT,
        ),
        r.decode_request,
    ),
    "slates": (
        r.Slate(
            slate_id="sl1", user_id="u1", trigger="event", surface="home",
            items=(r.SlateItem(item_id="m1", position=0, score=0.75, source="vectors", reasons=("similar",)),),
            ads=(AD,), model_version="7", index_version="7", policy="ranked", degraded="cached",
            expires_at=1_750_000_003_600, event_ms=1_750_000_000_000, received_ms=1_750_000_000_001,
            decoded_ms=1_750_000_000_002, folded_ms=1_750_000_000_003, retrieved_ms=1_750_000_000_004,
            ranked_ms=1_750_000_000_005, published_ms=1_750_000_000_006, topic="marquee.events.v1", partition=3,
            offset=41,
        ),
        r.decode_slate,
    ),
    "ads": (AD, r.decode_ad),
    "ad_stats": (
        r.AdStats(
            key="c1/l1", campaign_id="c1", line_item_id="l1", advertiser="a1", type="standard", currency="EUR",
            served=9, impressions=8, clicks=1, spent_micros=16_000, spent_today_micros=4_000, reserved_micros=2_000,
            budget_micros=10**9, day="2026-11-27", goal="money", goal_per="lifetime", target=10**9, expected=20_000.0,
            delivered=16_000, indicator=0.8, funnel={"capped": 3, "opportunities": 40}, today={"served": 2},
            lost_to={"c2/l1": 5}, hours={"499000": 16_000},
            windows=(AdWindow(budget=10**9, version=4, spent=16_000, reserved=2_000),), epoch="e", number=7,
            offsets={"marquee.events.v1/3": 41}, time_ms=1_750_000_000_000,
        ),
        r.decode_ad_stats,
    ),
    "traces": (
        r.Trace(
            slate_id="sl1", user_id="u1", model_version="7", counts={"candidates": 2}, seconds={"rank": 0.001},
            filtered={"seen": 4}, feature_names=("dot",), candidates=("m1", "m2"), sources=("vectors", "fresh"),
            scores=(0.75, 0.5), features=((1.0,), (0.5,)),
        ),
        r.decode_trace,
    ),
    "counters": (
        r.Counter(
            item_id="m1", popularity=(1.5, 2.5, 3.5), trending={"DE": 4.0}, likes=2.0, dislikes=1.0, shown=9.0,
            clicked=3.0, last_taken_s=1_750_000_000, first_seen_s=1_740_000_000, events=1e6, time_ms=1_750_000_000_000,
        ),
        r.decode_counter,
    ),
    "models": (
        r.ModelManifest(
            version="7", uri="file:///var/snapshots/7", sha256="00", created_ms=1_750_000_000_000, events=1000,
            items=2, dimensions=64, shapes={"items": (2, 64)}, metrics={"loss": 0.5},
        ),
        r.decode_model,
    ),
    "privacy": (
        r.Privacy(action="receipt", request_id="p1", time_ms=1_750_000_000_000, counts={"states": 1}),
        r.decode_privacy,
    ),
}  # fmt: skip


@pytest.mark.parametrize("topic", EXAMPLES)
def test_version_1_is_written_and_read_as_ever(topic: str) -> None:
    example, decoder = EXAMPLES[topic]
    golden = (GOLDEN / f"{topic.replace('_', '-')}.v1.json").read_bytes()
    assert r.encode(example) == golden
    assert decoder(golden) == example


def test_every_public_topic_has_a_golden_file() -> None:
    assert set(EXAMPLES) == set(TOPIC_NAMES) - {"observations"}


@pytest.mark.parametrize("topic", EXAMPLES)
def test_fields_nobody_knows_are_ignored(topic: str) -> None:
    example, decoder = EXAMPLES[topic]
    known = msgspec.json.decode(r.encode(example))
    later = known | {"new_field": {"deep": [1, {"x": None}]}, "another": "x"}
    assert decoder(msgspec.json.encode(later)) == example


def test_values_nobody_knows_read_as_unknown() -> None:
    assert r.decode_privacy(b'{"action":"teleport"}').action == "unknown"
    assert r.decode_slate(b'{"slate_id":"s","user_id":"u","trigger":"moon","degraded":"new"}').trigger == "unknown"


def test_defaults_are_not_written() -> None:
    assert r.encode(r.Event(type="play", event_time=1, user_id="u")) == b'{"type":"play","event_time":1,"user_id":"u"}'


def test_an_image_is_at_most_64_kib() -> None:
    size = 65_536 * 4 // 3 + 2
    r.decode_item(msgspec.json.encode({"image": "a" * size}))
    with pytest.raises(msgspec.ValidationError):
        r.decode_item(msgspec.json.encode({"image": "a" * (size + 4)}))


def test_topics_keyed_by_user_have_equal_partitions_and_control_topics_one() -> None:
    specs = {spec.topic: spec for spec in r.topic_specs(Settings(topics=Topics(partitions=16, prefix="p")))}
    by_user = {spec.partitions for name, spec in specs.items() if spec.key == "user_id" and not name.endswith(".dlq")}
    assert by_user == {16}
    assert specs["p.observations.v1"].partitions == 16
    for name in ("catalog", "campaigns", "ad-stats", "counters", "models", "privacy"):
        spec = specs[f"p.{name}.v1"]
        assert (spec.partitions, spec.config["cleanup.policy"]) == (1, "compact")
        assert "retention.ms" not in spec.config


def test_dead_letter_topics_belong_to_topics_that_are_read() -> None:
    names = {spec.topic for spec in r.topic_specs(Settings()) if spec.topic.endswith(".dlq")}
    assert "marquee.events.v1.dlq" in names
    assert "marquee.slates.v1.dlq" not in names


def test_the_broker_takes_an_event_of_the_greatest_size() -> None:
    specs = {spec.topic: spec for spec in r.topic_specs(Settings())}
    assert int(specs["marquee.events.v1"].config["max.message.bytes"]) > Settings().events.max_bytes


def test_headers_are_those_of_cloudevents_in_binary_mode() -> None:
    passed = echo("t", 3, 9, [("traceparent", b"00-aa-bb-01"), ("secret", b"x")])
    headers = event_headers("id", "marquee.slate.v1", "/marquee", 1_750_000_000_123, passed)
    assert headers == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"id"),
        ("ce_type", b"marquee.slate.v1"),
        ("ce_source", b"/marquee"),
        ("ce_time", b"2025-06-15T15:06:40.123Z"),
        ("content-type", b"application/json"),
        ("marquee-input", b"t/3/9"),
        ("traceparent", b"00-aa-bb-01"),
    ]
    assert read_headers(headers) == (b"/marquee\0id", False)


@pytest.mark.parametrize("kind", [b"application/cloudevents+json", b"Application/CloudEvents+JSON; charset=utf-8"])
def test_structured_mode_is_known_by_its_media_type_in_any_case(kind: bytes) -> None:
    assert read_headers([("content-type", kind)]) == (None, True)
    assert read_headers([("content-type", b"application/json")]) == (None, False)


def test_an_envelope_gives_its_data_and_identity() -> None:
    assert open_envelope(b'{"id":"1","source":"/a","data":{"x": [1]}}') == (b'{"x": [1]}', b"/a\x001")
    assert open_envelope(b'{"data_base64":"e30="}') == (b"{}", None)


def test_an_identity_needs_an_id_and_the_last_header_counts() -> None:
    assert read_headers([("ce_source", b"/a")]) == (None, False)
    assert read_headers([("ce_id", b"1"), ("ce_id", b"2")]) == (b"\x002", False)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_unexpected(data: bytes) -> None:
    for _, decoder in EXAMPLES.values():
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            decoder(data)
