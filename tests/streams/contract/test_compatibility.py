"""The checker finds what breaks a contract, and passes what does not: itself tried with changes of both kinds."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import jsonschema_rs
import pytest

from streams.contract.compatibility import breaks
from streams.contract.schemas import RECORD_OF, document
from streams.settings import TopicName
from tests.streams.contract.mutants import ODD_VALUES, changed, golden, places, without

Change = Callable[[dict[str, Any]], Any]
NEW_FORM = {"title": "wave", "properties": {"type": {"const": "wave"}}, "required": ["type"]}


def member(name: str, within: str = "") -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A member's schema, where it is not null."""

    def find(schema: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = (schema["$defs"][within] if within else schema)["properties"][name]
        return found.get("anyOf", [found])[0]

    return find


def edit(name: str, within: str = "", **keywords: Any) -> Change:
    return lambda schema: member(name, within)(schema).update(keywords)


BREAKING: dict[str, tuple[TopicName, Change]] = {
    "a member is gone": ("events", lambda s: s["properties"].pop("slot")),
    "a member of a member is gone": ("events", lambda s: s["$defs"]["Context"]["properties"].pop("device")),
    "a member must be there": ("events", lambda s: s["required"].append("user_id")),
    "a new member must be there": ("requests", lambda s: (s["properties"].update(x={}), s["required"].append("x"))),
    "another type": ("events", edit("event_time", type="string")),
    "another type, deep": ("requests", edit("gdpr", "Consent", type="string")),
    "shorter texts": ("events", edit("item_id", maxLength=64)),
    "a smaller range": ("requests", edit("n", maximum=10)),
    "fewer elements": ("catalog", edit("categories", maxItems=3)),
    "a pattern": ("catalog", edit("language", pattern="^[a-z]+$")),
    "closed words": ("requests", edit("surface", enum=["home"])),
    "no null any more": ("events", lambda s: s["properties"]["context"]["anyOf"].pop()),
    "a word less": ("campaigns", lambda s: member("level", "Cap")(s)["enum"].remove("creative")),
    "a type of event less": ("events", lambda s: s["oneOf"].pop(3)),
    "a form that asks more": ("events", lambda s: s["oneOf"][2]["required"].append("value")),
    "a form with a narrower member": ("events", lambda s: s["oneOf"][0]["properties"].update(slot={"type": "string"})),
    "what is published is less sure": ("slates", lambda s: s["required"].remove("user_id")),
    "published numbers are decimal": ("slates", edit("event_ms", type="number")),
    "published texts may be null": ("slates", lambda s: s["properties"].update(policy={"type": ["string", "null"]})),
    "published values are of another type": ("ads", edit("losses", additionalProperties={"type": "string"})),
    "what cannot be compared": ("events", lambda s: s.update(dependentRequired={"slot": ["slate_id"]})),
}  # fmt: skip
HARMLESS: dict[str, tuple[TopicName, Change]] = {
    "a new member": ("events", lambda s: s["properties"].update(mood={"type": "string"})),
    "a new member, deep": ("slates", lambda s: s["$defs"]["SlateItem"]["properties"].update(x={"type": "number"})),
    "a new type of event": ("events", lambda s: s["oneOf"].append(NEW_FORM)),
    "a form asks of a new member": ("events", lambda s: s["oneOf"][0]["properties"].update(mood={"enum": [1]})),
    "a word more, read": ("campaigns", lambda s: member("level", "Cap")(s)["enum"].append("household")),
    "longer texts, read": ("events", edit("item_id", maxLength=1024)),
    "no longer required, read": ("events", lambda s: s["required"].remove("event_time")),
    "numbers for integers, read": ("requests", edit("n", type="number")),
    "other descriptions": ("slates", lambda s: s.update(description="Another.", title="S")),
}  # fmt: skip
FULL = {"slates", "ads"}


@pytest.mark.parametrize("topic", RECORD_OF)
def test_a_schema_does_not_break_itself(topic: TopicName) -> None:
    assert breaks(document(topic), document(topic), full=True) == []


@pytest.mark.parametrize("what", BREAKING)
def test_a_change_that_breaks_is_found(what: str) -> None:
    topic, change = BREAKING[what]
    change(new := deepcopy(document(topic)))
    assert breaks(document(topic), new, full=topic in FULL)


@pytest.mark.parametrize("what", HARMLESS)
def test_a_change_that_breaks_nothing_passes_and_takes_every_record_of_before(what: str) -> None:
    topic, change = HARMLESS[what]
    change(new := deepcopy(document(topic)))
    assert breaks(document(topic), new, full=topic in FULL) == []
    before, now, whole = jsonschema_rs.validator_for(document(topic)), jsonschema_rs.validator_for(new), golden(topic)
    changes = [changed(whole, at, odd) for at in places(whole) for odd in ODD_VALUES]
    written = [
        record for record in (whole, *(without(whole, at) for at in places(whole)), *changes) if before.is_valid(record)
    ]
    assert len(written) > 50
    assert all(map(now.is_valid, written))


def test_what_only_readers_notice_breaks_what_is_published_alone() -> None:
    change = HARMLESS["a word more, read"][1]
    change(new := deepcopy(document("campaigns")))
    assert "household" in " ".join(breaks(document("campaigns"), new, full=True))
    assert "removed" in breaks(new | {"properties": {**new["properties"], "x": {}}}, new, full=False)[0]
