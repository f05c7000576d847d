"""What reading a record asks beyond the types of its members, as keywords of JSON Schema.

Where a member's own values decide, it is here, drawn from the words that the reading code goes by. What can only be
told by several members together, by the record's key or its timestamp is not: `docs/contract.md` lists it.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from embeddings.events import AD_FORMS, Action
from ranking.ads import campaigns as ads
from ranking.ads.inventory import FORMATS
from streams.contract import campaigns as wire
from streams.contract.fields import FIRST_MS, Record
from streams.contract.records import Event, Item, Request

Keywords = Mapping[str, Any]

RATING = "rating"
#: Types of events: on an item, on a place of a slate, on an ad that was decided for.
ITEM_TYPES = (*(a.name for a in Action if Action.unknown < a < Action.impression), RATING)
SLATE_TYPES = tuple(a.name for a in Action if Action.impression <= a < min(AD_FORMS.values()))
AD_TYPES = tuple(a.name for a in AD_FORMS)

_NAMED: Keywords = {"type": "string", "minLength": 1}
_NO_SECONDS: Keywords = {"not": {"exclusiveMinimum": 0, "exclusiveMaximum": FIRST_MS}}
_ID: Keywords = {"minLength": 1}
_UNSET: Keywords = {"enum": [False, 0, None]}
_UNDECIDED: Keywords = {"enum": ["", None]}
#: Of an event that is of no ad.
_OF_NO_AD: Keywords = {"decision_id": _UNDECIDED, "ad": _UNSET}
#: Of one of an ad that is named by its place on a page.
_BY_PLACE: Keywords = {"ad": {"not": _UNSET}, "slate_id": _NAMED, "slot": {"type": "integer"}}


def _one_of(words: Iterable[str], *more: str, without: str = "") -> Keywords:
    return {"enum": [*more, *(word for word in words if word != without)]}


def _names(words: type[Enum]) -> Iterable[str]:
    return words.__members__


def _on_item(kind: str) -> Keywords:
    said = {"type": {"const": kind}, "item_id": _NAMED, **_OF_NO_AD}
    if kind != RATING:
        return {"title": kind, "properties": said, "required": ["type", "item_id"]}
    rated = said | {"value": {"type": "number"}}
    return {"title": kind, "properties": rated, "required": ["type", "item_id", "value"]}


def _on_slate(kind: str) -> Keywords:
    return {"title": kind, "properties": {"type": {"const": kind}, **_OF_NO_AD}, "required": ["type"]}


def _on_ad(kind: str) -> Keywords:
    said = {"type": {"const": kind}, "decision_id": _NAMED}
    return {"title": f"{kind} of an ad", "properties": said, "required": [*said]}


def _on_ad_of_page(kind: str) -> Keywords:
    said = {"type": {"const": kind}, "decision_id": _UNDECIDED, **_BY_PLACE}
    return {"title": f"{kind} of an ad by its place", "properties": said, "required": ["type", *_BY_PLACE]}


def event_forms(kind: str) -> list[Keywords]:
    """What an event of a type must say besides, one entry for each form that it can have.

    >>> [form["title"] for form in event_forms("complete")]
    ['complete', 'complete of an ad', 'complete of an ad by its place']
    """
    of_ad = [_on_ad(kind), _on_ad_of_page(kind)] if kind in AD_TYPES else []
    return [_on_item(kind) if kind in ITEM_TYPES else _on_slate(kind), *of_ad]


EVENT_TYPES = (*ITEM_TYPES, *SLATE_TYPES)

#: By record and member, as JSON spells it.
OF_MEMBERS: Mapping[type[Record], Mapping[str, Keywords]] = {
    Event: {"event_time": {"minimum": FIRST_MS}},
    Request: {"event_time": {"minimum": FIRST_MS}},
    Item: {"available_from": _NO_SECONDS, "available_until": _NO_SECONDS},
    wire.Campaign: {
        "campaign_id": {"pattern": "^[^/]*$"},
        "advertiser": _ID,
        "status": _one_of(_names(ads.Status)),
        "currency": {"pattern": "^[A-Z]{3}$"},
    },
    wire.LineItem: {
        "id": _ID,
        "status": _one_of(_names(ads.Status)),
        "type": _one_of(_names(ads.Type)),
        "bid_type": _one_of(_names(ads.BidType)),
        "delivery": _one_of(_names(ads.Delivery), ""),
        "pacing": _one_of(_names(ads.Delivery)),
        "rotation": _one_of(_names(ads.Rotation)),
        "flight_from": _NO_SECONDS,
        "flight_until": _NO_SECONDS,
    },
    wire.Flight: {"from": _NO_SECONDS, "until": _NO_SECONDS},
    wire.Goal: {
        "kind": _one_of(_names(ads.GoalKind), without=ads.GoalKind.none.name),
        "per": _one_of(("lifetime", "day")),
    },
    wire.Cap: {"time_unit": _one_of(_names(ads.Unit)), "level": _one_of(_names(ads.Level), "ad")},
    wire.Deal: {"at": {"enum": [1, 2, 3]}},
    wire.Creative: {"crid": _ID, "format": _one_of(FORMATS, "")},
}
#: Of whole records. A type nobody knows is no event: it is refused and counted.
OF_RECORDS: Mapping[type[Record], Keywords] = {
    Event: {"oneOf": [form for kind in EVENT_TYPES for form in event_forms(kind)]},
    Item: {"anyOf": [{"required": [field]} for field in sorted(Item.__struct_encode_fields__)]},
    wire.Campaign: {"required": ["advertiser"]},
}
