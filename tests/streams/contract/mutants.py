"""Records with one thing wrong, and what Marquee's own reading makes of a record."""

import json
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from embeddings.events import CONSENT_ALL, Fate, Source
from streams.contract import records
from streams.contract.campaign_records import read_campaigns
from streams.contract.catalogue_records import read_catalogue
from streams.contract.consent import Judge
from streams.contract.decode import decode
from streams.contract.parsing import Rules, Unreadable, moment_ms, read, read_one, user_of
from streams.contract.schemas import WRITTEN_BY_OTHERS
from streams.settings import TopicName
from tests.streams.builders import NOW_MS, Raw

GOLDEN = Path(__file__).parent / "golden"
RULES = Rules(judge=Judge(CONSENT_ALL))
#: Instead of a member: other types, out of every range, too long, words that nobody knows.
ODD_VALUES = (
    None, True, False, 0, 1, -1, 7, 1.5, 10**9, 10**18, -(10**20), 1e39, "", "x", "USD", "a/b", "x" * 129, "x" * 513,
    [], [None], ["x"], [1], ["x"] * 65, {}, {"x": None}, {"x": 1}, [{}],
)  # fmt: skip
#: A campaign that says most of what one can say; that of the golden file has targeting of before there was any.
CAMPAIGN: dict[str, Any] = {
    "campaign_id": "spring", "advertiser": "rail", "status": "active", "time_zone": "Europe/Berlin", "currency": "EUR",
    "budget_micros": 10**9, "order_id": "o1", "name": "Spring", "adomain": ["rail.example"], "labels": ["rail"],
    "caps": [{"count": 3, "time_unit": "day", "per": 2, "level": "campaign", "min_gap_s": 60}],
    "line_items": [
        {
            "id": "fares", "type": "standard", "status": "active", "bid_type": "cpm", "bid_micros": 6_000_000,
            "goal": {"kind": "impressions", "quantity": 1000, "per": "lifetime"}, "delivery": "even",
            "flights": [{"from": NOW_MS, "until": NOW_MS + 10**9}], "targeting": {"country": ["DE"]},
            "rotation": "weighted", "priority": 8, "deal": {"id": "d1", "at": 2, "guar": True},
            "creatives": [{"crid": "b", "format": "banner", "w": 300, "h": 250, "approved": True, "weight": 2}],
        }
    ],
}  # fmt: skip
Path_ = tuple[str | int, ...]


def golden(topic: TopicName) -> dict[str, Any]:
    """The bytes of version 1, as values; of a campaign, one that says more."""
    if topic == "campaigns":
        return deepcopy(CAMPAIGN)
    name = {"requests": "requests.imp"}.get(topic, topic.replace("_", "-"))
    value: dict[str, Any] = json.loads((GOLDEN / f"{name}.v1.json").read_text())
    return value


def places(value: Any, at: Path_ = ()) -> Iterator[Path_]:
    """Every member and element, however deep."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, member in inner:
        yield (*at, name)
        yield from places(member, (*at, name))


def changed(value: Any, at: Path_, odd: Any) -> Any:
    """A copy with another value at a place."""
    made = deepcopy(value)
    _holder(made, at)[at[-1]] = odd
    return made


def without(value: Any, at: Path_) -> Any:
    """A copy that lacks a place."""
    made = deepcopy(value)
    del _holder(made, at)[at[-1]]
    return made


def _holder(value: Any, at: Path_) -> Any:
    for name in at[:-1]:
        value = value[name]
    return value


def mutants(value: Any) -> Iterator[tuple[Path_, Any, Any]]:
    """A place, what is there instead, and the whole."""
    for at in places(value):
        yield at, "nothing", without(value, at)
        for odd in ODD_VALUES:
            yield at, odd, changed(value, at, odd)


def why_they_differ(topic: TopicName, at: Path_, odd: Any, by_schema: bool) -> str | None:
    """What a schema does not say, or says more strictly; docs/contract.md has the list."""
    if by_schema and isinstance(odd, float) and odd.is_integer():
        return "an integer written with a point or an exponent is one to JSON Schema, and none to us"
    if (
        not by_schema
        and topic not in WRITTEN_BY_OTHERS
        and None in (odd, *(odd.values() if isinstance(odd, dict) else ()))
    ):
        return "what we publish has no nulls there; a reader of ours takes one for a member that is absent"
    of_campaigns = {"time_zone", "targeting", "adomain", "goal", "flights", "w", "h"}
    if by_schema and topic == "campaigns" and of_campaigns.intersection(at):
        return "a campaign's names, targeting, and what its members say together are told by its reader alone"
    return None


def accepted(topic: TopicName, value: Any) -> bool:
    """Does Marquee take a record for one? It may be late or lack consent; it is no dead letter and no unknown type."""
    raw = Raw(0, json.dumps(value).encode(), b"k")
    return _READERS[topic](raw)


def _event(raw: Raw) -> bool:
    decoded = decode([(Source("events", 0), [raw])], RULES, NOW_MS)
    return not decoded.dead and decoded.batch.refused_B.tolist() != [Fate.unknown_type]


def _request(raw: Raw) -> bool:
    good, _ = read(Source("requests", 0), [raw], records.decode_request, RULES)
    try:
        for record, request in good:
            assert request is not None
            user_of(record, request.user_id)
            moment_ms(request.event_time, raw.timestamp, RULES)
    except Unreadable:
        return False
    return bool(good)


def _readable(decoder: Callable[[bytes], Any]) -> Callable[[Raw], bool]:
    def reads(raw: Raw) -> bool:
        try:
            read_one(raw, decoder, RULES)
        except Unreadable:
            return False
        return True

    return reads


_READERS: Mapping[TopicName, Callable[[Raw], bool]] = {
    "events": _event,
    "requests": _request,
    "catalog": lambda raw: not read_catalogue(Source("catalog", 0), [raw], RULES)[2],
    "campaigns": lambda raw: not read_campaigns(Source("campaigns", 0), [raw], RULES)[2],
    "privacy": _readable(records.decode_privacy),
    "slates": _readable(records.decode_slate),
    "ads": _readable(records.decode_ad),
    "ad_stats": _readable(records.decode_ad_stats),
    "traces": _readable(records.decode_trace),
    "counters": _readable(records.decode_counter),
    "models": _readable(records.decode_model),
}
