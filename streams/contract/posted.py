r"""What is posted over HTTP, as the records that Kafka would have delivered: CloudEvents in any of its modes, or JSON.

>>> body = b'[{"type":"play","user_id":"u","item_id":"i","event_time":1767225600000}]'
>>> [record.offset for record in posted("application/json", {}, body, now_ms=1767225600000, most=10)]
[0]
>>> posted("application/json", {"ce-id": "1", "ce-source": "/a%20b"}, b"{}", 0, 1)[0].headers
[('ce_id', b'1'), ('ce_source', b'/a b')]
>>> field_of("Expected `str`, got `int` - at `$.context.country`"), field_of("event_time is too far ahead")
('context.country', 'event_time')
>>> field_of("JSON inside a JSON string: set value.converter") is None
True
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote

import msgspec

from streams.contract.cloudevents import TRACEPARENT, Headers
from streams.contract.deadletters import Code
from streams.contract.parsing import Unreadable

JSON, EVENT, BATCH = "application/json", "application/cloudevents+json", "application/cloudevents-batch+json"
MEDIA_TYPES = (JSON, EVENT, BATCH)
"""What bodies of events may be. Browsers do not send one of these to a foreign site without asking it first."""
PARTITION_KEY = "partitionkey"
_ATTRIBUTE = "ce-"
_STRUCTURED = (("content-type", EVENT.encode()),)
_FIELD = re.compile(r"`\$\.([^`]+)`|field `(\w+)`|\b(event_time|item_id|user_id|value)\b(?!\.)")
_MISSING = {"neither an id nor a key": "user_id", "a rating without a value": "value"}


class TooMany(Exception):
    """A body holds more events than `http.max_events`. Nothing of it was taken."""


class Posted(NamedTuple):
    """A record that came over HTTP; see `messages.RawRecord`. `offset` is its place in what came with it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Refused(msgspec.Struct, omit_defaults=True):
    """An event that was not taken: its place in the body, the code that a dead letter would have, and why."""

    index: int
    code: str
    detail: str
    field: str | None = None


class Receipt(msgspec.Struct):
    """What became of posted events: those that are not `refused` are on the topic, on all its in-sync replicas."""

    accepted: int
    refused: tuple[Refused, ...] = ()


class Problem(msgspec.Struct, omit_defaults=True):
    """Why there is no answer; `code` and `field` where a record cannot be read."""

    error: str
    code: str | None = None
    field: str | None = None


class _Attributes(msgspec.Struct):
    partitionkey: str | None = None
    traceparent: str | None = None


_split = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_attributes = msgspec.json.Decoder(_Attributes).decode


def posted(media: str, headers: Mapping[str, str], body: bytes, now_ms: int, most: int) -> list[Posted]:
    """The records of a body, in order.

    Args:
        media: its media type, one of `MEDIA_TYPES`.
        headers: of the request, names in lower case; `traceparent` is that of all records that have none of their own.
        body: as it came.
        now_ms: publish time of all of them.
        most: of them.

    Raises:
        Unreadable: a list that is none, or one that has a single event's headers. Nothing of it was taken.
        TooMany: see there.
    """
    trace = _trace(headers.get(TRACEPARENT))
    if media == EVENT:
        return [_structured(0, body, now_ms, trace)]
    if media != BATCH and not body.lstrip().startswith(b"["):
        return [_binary(headers, body, now_ms)]
    try:
        values = _split(body)
    except RecursionError:
        raise Unreadable(Code.too_deep, "nested too deep to read") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unreadable(Code.malformed, f"the body is no JSON array: {error}") from None
    if len(values) > most:
        raise TooMany(f"{len(values)} events in one body, at most {most}")
    if media == BATCH:
        return [_structured(n, bytes(value), now_ms, trace) for n, value in enumerate(values)]
    if any(name.startswith(_ATTRIBUTE) for name in headers):
        raise Unreadable(Code.malformed, f"headers {_ATTRIBUTE}… are of one event, and the body is a list: {BATCH}")
    return [Posted(n, now_ms, None, bytes(value), trace) for n, value in enumerate(values)]


def _binary(headers: Mapping[str, str], body: bytes, now_ms: int) -> Posted:
    """CloudEvents in headers: `ce-id` here is `ce_id` there, percent-encoded here and not there."""
    told = {name[3:]: unquote(value) for name, value in headers.items() if name.startswith(_ATTRIBUTE)}
    key, trace = told.pop(PARTITION_KEY, None), _trace(told.pop(TRACEPARENT, None) or headers.get(TRACEPARENT))
    kept = [(f"ce_{name}", _bytes(value)) for name, value in told.items()]
    return Posted(0, now_ms, _bytes(key) if key else None, body, [*kept, *trace])


def _trace(parent: str | None) -> Headers:
    return [(TRACEPARENT, _bytes(parent))] if parent else []


def _bytes(header: str) -> bytes:
    """A header's value as it came, whatever bytes these are."""
    return header.encode("utf-8", "surrogateescape")


def _structured(offset: int, value: bytes, now_ms: int, trace: Headers) -> Posted:
    try:
        told = _decode_attributes(value)
    except (ValueError, RecursionError):  # whoever reads the record says what is wrong with it
        told = _Attributes()
    key = told.partitionkey.encode() if told.partitionkey else None
    return Posted(offset, now_ms, key, value, [*_STRUCTURED, *(_trace(told.traceparent) or trace)])


def named(body: bytes, request_id: str) -> bytes:
    """A request that has no name, or null for one, with one: of two members the last counts.

    What is no object stays as it is.

    >>> named(b'{"request_id":null} ', "r"), named(b"{ }", "r"), named(b"[]", "r")
    (b'{"request_id":null,"request_id":"r"}', b'{ "request_id":"r"}', b'[]')
    """
    bare = body.strip()
    if not (bare.startswith(b"{") and bare.endswith(b"}")):
        return body
    inside = bare[:-1]
    return b'%s%s"request_id":"%s"}' % (inside, b"," if inside[1:].strip() else b"", request_id.encode())


def field_of(detail: str) -> str | None:
    """The field that the reason of a dead letter names."""
    if detail in _MISSING:
        return _MISSING[detail]
    found = _FIELD.search(detail)
    return next(filter(None, found.groups()), None) if found else None


def refusals(dead: Sequence[tuple[int, str, str]]) -> tuple[Refused, ...]:
    """Refused events by their places, codes and reasons."""
    return tuple(Refused(index, code, detail, field_of(detail)) for index, code, detail in dead)
