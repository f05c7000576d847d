"""JSON Schema of the records: what their types say, and what reading asks beyond (`streams.contract.schema_rules`).

The dialect is 2020-12 in keywords that AsyncAPI 3 and OpenAPI 3.1 have too. Members nobody knows are allowed
everywhere. Of records that others write, a member that may be absent may be null.

>>> (ref,), parts = components([Event], ref_template="#/components/schemas/{name}")
>>> ref, parts["Event"]["required"]
({'$ref': '#/components/schemas/Event'}, ['type', 'event_time'])
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec

from streams.contract.ad_records import AdDecision, AdStats
from streams.contract.campaigns import Campaign
from streams.contract.fields import Record
from streams.contract.records import Counter, Event, Item, ModelManifest, Privacy, Request, Slate, Trace
from streams.contract.schema_rules import OF_MEMBERS, OF_RECORDS, event_forms
from streams.settings import TopicName

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: What is on each topic; `observations` are packed columns of Marquee's own.
RECORD_OF: Mapping[TopicName, type[Record]] = {
    "events": Event,
    "requests": Request,
    "catalog": Item,
    "campaigns": Campaign,
    "privacy": Privacy,
    "slates": Slate,
    "ads": AdDecision,
    "ad_stats": AdStats,
    "traces": Trace,
    "counters": Counter,
    "models": ModelManifest,
}
#: Topics that others write and Marquee reads. Whoever reads `privacy` may be either.
WRITTEN_BY_OTHERS: frozenset[TopicName] = frozenset({"events", "requests", "catalog", "campaigns", "privacy"})
#: Words that such a member may have; a reader takes one that it does not know for `unknown`.
_KNOWN_WORDS: Mapping[tuple[str, str], Sequence[str]] = {
    ("Slate", "trigger"): ("event", "request"),
    ("Slate", "degraded"): ("cached", "popular", "contextual"),
    ("Privacy", "action"): ("forget", "export", "receipt", "block"),
}


def components(types: Sequence[type], ref_template: str = "#/$defs/{name}") -> tuple[list[Schema], dict[str, Schema]]:
    """Schemas of types and of all records in them: what refers to each type, and the records by name.

    Args:
        types: records, or any types that msgspec knows.
        ref_template: where a document keeps them; `{name}` is the record's.
    """
    refs, parts = msgspec.json.schema_components(types, ref_template=ref_template)
    return [_plain(ref) for ref in refs], {name: _whole(name, part) for name, part in parts.items()}


def document(topic: TopicName, version: int = 1) -> Schema:
    """The schema of a topic's records as a document of its own."""
    record = RECORD_OF[topic]
    _, parts = components([record])
    own = parts.pop(record.__name__)
    named = {"$schema": DIALECT, "$id": f"urn:marquee:{topic.replace('_', '-')}.v{version}"}
    return named | own | ({"$defs": parts} if parts else {})


def event_title(words: str) -> str:
    """What generated types are called: `click of an ad` is `ClickOfAnAdEvent`."""
    return "".join(word.capitalize() for word in words.replace("_", " ").split()) + "Event"


def event_of(kind: str, event: Schema) -> Schema:
    """The schema of events of one type, whole: generators of code do not merge it out of all types' alternatives.

    Args:
        kind: one of `schema_rules.EVENT_TYPES`.
        event: the schema of `Event`, as `components` has it.

    >>> (ref,), parts = components([Event])
    >>> event_of("play", parts["Event"])["title"], len(event_of("click", parts["Event"])["oneOf"])
    ('PlayEvent', 3)
    """
    forms = [_form(event, form) for form in event_forms(kind)]
    return forms[0] if len(forms) == 1 else {"title": event_title(kind), "oneOf": forms}


def _form(event: Schema, form: Mapping[str, Any]) -> Schema:
    said, members = form["properties"], event["properties"]
    narrow = {name: _as_said(members[name], keywords) for name, keywords in said.items()}
    return {
        "title": event_title(form["title"]),
        "type": "object",
        "properties": {**members, **narrow},
        "required": list(dict.fromkeys([*event["required"], *form["required"]])),
    }


def _as_said(member: Schema, keywords: Mapping[str, Any]) -> Schema:
    """A member's schema, of the branch or branches that keywords leave."""
    if "const" in keywords:
        return {"type": "string", **keywords}
    if "enum" in keywords:
        return dict(keywords)
    said = [branch for branch in member["anyOf"] if branch["type"] != "null"]
    if "not" in keywords:
        return {"anyOf": said, **keywords}
    return {**next(branch for branch in said if branch["type"] == keywords["type"]), **keywords}


def _whole(name: str, part: Schema) -> Schema:
    """A record's schema with what reading asks beyond its type."""
    record, schema = _records().get(name, Record), _plain(part)
    beyond, of_members = dict(OF_RECORDS.get(record, {})), OF_MEMBERS.get(record, {})
    schema["required"] = [*schema.get("required", ()), *beyond.pop("required", ())]
    for field, member in schema["properties"].items():
        _narrow(member, {**of_members.get(field, {}), **_words_of(name, field)})
        if name in _read() and field not in schema["required"]:
            schema["properties"][field] = _nullable(member)
    return {**schema, **beyond}


def _words_of(name: str, field: str) -> Schema:
    words = _KNOWN_WORDS.get((name, field))
    return {"examples": list(words)} if words else {}


def _narrow(member: Schema, keywords: Mapping[str, Any]) -> None:
    """Add keywords to a member's schema: to what it is where it is not null."""
    branches = [branch for branch in member.get("anyOf", ()) if branch != {"type": "null"}]
    for schema in branches or [member]:
        schema.update(keywords)


def _nullable(member: Schema) -> Schema:
    """A member that may be null as well; values of a map that may be null are such members too."""
    if not member.keys() - {"default", "description", "title"}:
        return member
    for branch in member.get("anyOf", (member,)):
        if branch.get("additionalProperties"):
            branch["additionalProperties"] = _nullable(branch["additionalProperties"])
    if {"type": "null"} in member.get("anyOf", ()):
        return member
    if "anyOf" in member:
        return member | {"anyOf": [*member["anyOf"], {"type": "null"}]}
    around = {key: member[key] for key in ("default",) if key in member}
    return {"anyOf": [{key: value for key, value in member.items() if key not in around}, {"type": "null"}], **around}


def _plain(node: Any) -> Any:
    """Without Python's ways: indented descriptions, and the end of a text in patterns."""
    if isinstance(node, list):
        return [_plain(each) for each in node]
    if not isinstance(node, dict):
        return node
    made = {key: _plain(value) for key, value in node.items()}
    if isinstance(made.get("description"), str):
        made["description"] = inspect.cleandoc(made["description"])
    if isinstance(made.get("pattern"), str):
        made["pattern"] = made["pattern"].replace(r"\Z", "$")
    return made


@cache
def _records() -> Mapping[str, type[Record]]:
    """Every record of the contract by its name."""
    return {record.__name__: record for record in _subclasses(Record)}


def _subclasses(of: type[Record]) -> Iterator[type[Record]]:
    for record in of.__subclasses__():
        yield record
        yield from _subclasses(record)


@cache
def _read() -> frozenset[str]:
    """The names of records that others write, and of those in them."""
    _, parts = msgspec.json.schema_components([RECORD_OF[topic] for topic in WRITTEN_BY_OTHERS])
    return frozenset(parts)
