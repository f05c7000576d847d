"""What a foreign validator makes of records by our schemas is what our own reading makes of them, but where it says."""

from collections.abc import Callable
from itertools import product
from typing import Any

import jsonschema_rs
import pytest

from streams.contract.schema_rules import AD_TYPES, EVENT_TYPES
from streams.contract.schemas import DIALECT, RECORD_OF, components, document
from streams.settings import TopicName
from tests.streams.contract.mutants import accepted, golden, mutants, why_they_differ

TOPICS = list(RECORD_OF)


def valid(topic: TopicName) -> Callable[[Any], bool]:
    return jsonschema_rs.validator_for(document(topic)).is_valid


@pytest.mark.parametrize("topic", TOPICS)
def test_a_schema_is_one_of_its_dialect_and_takes_the_golden_record(topic: TopicName) -> None:
    schema = document(topic)
    assert schema["$schema"] == DIALECT
    jsonschema_rs.meta.validate(schema)
    assert valid(topic)(golden(topic))
    assert accepted(topic, golden(topic))


@pytest.mark.slow
@pytest.mark.parametrize("topic", TOPICS)
def test_mutants_are_refused_by_the_schema_where_our_reading_refuses_them(topic: TopicName) -> None:
    by_schema, refused, differ = valid(topic), 0, []
    for at, odd, mutant in mutants(golden(topic)):
        theirs, ours = by_schema(mutant), accepted(topic, mutant)
        refused += not theirs and not ours
        if theirs != ours and why_they_differ(topic, at, odd, theirs) is None:
            differ.append((at, odd, theirs, ours))
    assert not differ
    assert refused > 50


@pytest.mark.parametrize("topic", TOPICS)
def test_a_record_without_what_it_must_have_is_refused(topic: TopicName) -> None:
    whole = golden(topic)
    for field in document(topic)["required"]:
        assert not valid(topic)({name: value for name, value in whole.items() if name != field}), field


def test_an_event_says_what_its_type_needs_in_the_schema_as_in_the_decoder() -> None:
    by_schema = valid("events")
    absent = object()
    members = {
        "item_id": (absent, "m1", "", None),
        "decision_id": (absent, "d1", "", None),
        "value": (absent, 3.5, None),
    }
    for kind, *said in product((*EVENT_TYPES, "teleport", ""), *members.values()):
        event = {"type": kind, "event_time": 1_750_000_000_000, "user_id": "u1"}
        event |= {name: value for name, value in zip(members, said, strict=True) if value is not absent}
        assert by_schema(event) == accepted("events", event), event


def test_an_event_of_an_ad_says_of_which_in_the_schema_as_in_the_decoder() -> None:
    by_schema = valid("events")
    named = ({}, {"decision_id": "d1"}, {"decision_id": ""})
    places = ({}, {"slate_id": "s1", "slot": 0}, {"slate_id": "s1"}, {"slate_id": "", "slot": 2}, {"slot": None})
    flags = ({}, *({"ad": ad} for ad in (True, 1, False, 0, None)))
    for kind, ad, name, place in product((*AD_TYPES, "play", "teleport"), flags, named, places):
        event = {"type": kind, "event_time": 1_750_000_000_000, "user_id": "u1", "item_id": "m1", **ad, **name, **place}
        assert by_schema(event) == accepted("events", event), event


def test_closed_words_are_refused_and_open_ones_are_not() -> None:
    assert not valid("campaigns")(golden("campaigns") | {"status": "asleep"})
    assert not valid("events")(golden("events") | {"type": "teleport"})
    assert valid("slates")(golden("slates") | {"trigger": "moon"})
    assert valid("slates")(golden("slates") | {"added": {"later": [1]}})


#: What no schema of a value can say: each is valid by it, and a dead letter to us.
BEYOND: dict[str, tuple[TopicName, dict[str, Any]]] = {
    "an id that a serialiser made": ("events", {"user_id": '{"id":"u1"}'}),
    "a time ahead of the record's own": ("events", {"event_time": 1_850_000_000_000}),
    "an item of nothing but defaults": ("catalog", {"title": ""}),
    "a flag that is neither true nor false": ("catalog", {"deleted": "tomorrow"}),
    "an integer with a point": ("requests", {"n": 10.0}),
}


@pytest.mark.parametrize("what", BEYOND)
def test_what_a_schema_cannot_say_is_told_by_the_reader(what: str) -> None:
    topic, said = BEYOND[what]
    record = said if topic == "catalog" else golden(topic) | said
    assert valid(topic)(record)
    assert not accepted(topic, record)


def test_references_go_where_a_document_keeps_its_records() -> None:
    (event, slate), parts = components([RECORD_OF["events"], RECORD_OF["slates"]], "#/components/schemas/{name}")
    assert (event["$ref"], slate["$ref"]) == ("#/components/schemas/Event", "#/components/schemas/Slate")
    assert parts["Slate"]["properties"]["ads"]["items"] == {"$ref": "#/components/schemas/AdDecision"}
    assert {"Event", "Context", "Consent", "Slate", "SlateItem", "AdDecision"} == set(parts)
