r"""What is posted over HTTP, as the records that Kafka would have delivered: CloudEvents in any of its modes, or JSON.

>>> body = b'[{"type":"play","user_id":"u","item_id":"i","event_time":1767225600000}]'
>>> [record.offset for record in posted("application/json", {}, body, now_ms=1767225600000, most=10)]
[0]
>>> posted("application/json", {"ce-id": "1", "ce-source": "/a%20b"}, b"{}", 0, 1)[0].headers
[('ce_id', b'1'), ('ce_source', b'/a b')]
>>> field_of("Expected `str`, got `int` - at `$.context.country`"), field_of("event_time is too far ahead")
('context.country', 'event_time')
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
_STRUCTURED = (("content-type", EVENT.encode()),)
_FIELD = re.compile(r"`\$\.([^`]+)`|field `(\w+)`|\b(event_time|item_id|user_id|value)\b")
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


class _Key(msgspec.Struct):
    partitionkey: str | None = None


_split = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_key = msgspec.json.Decoder(_Key).decode


def posted(media: str, headers: Mapping[str, str], body: bytes, now_ms: int, most: int) -> list[Posted]:
    """The records of a body, in order.

    Args:
        media: its media type, one of `MEDIA_TYPES`.
        headers: of the request, names in lower case.
        body: as it came.
        now_ms: publish time of all of them.
        most: of them.

    Raises:
        Unreadable: a list that is none. Nothing of it was taken.
        TooMany: see there.
    """
    if media == EVENT:
        return [_structured(0, body, now_ms)]
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
        return [_structured(n, bytes(value), now_ms) for n, value in enumerate(values)]
    return [Posted(n, now_ms, None, bytes(value)) for n, value in enumerate(values)]


def _binary(headers: Mapping[str, str], body: bytes, now_ms: int) -> Posted:
    """CloudEvents in headers: `ce-id` here is `ce_id` there, percent-encoded here and not there."""
    told = {name[3:]: unquote(value) for name, value in headers.items() if name.startswith("ce-")}
    key = told.pop(PARTITION_KEY, None)
    if TRACEPARENT in headers:
        told |= {TRACEPARENT: headers[TRACEPARENT]}
    kept = [(name if name == TRACEPARENT else f"ce_{name}", _bytes(value)) for name, value in told.items()]
    return Posted(0, now_ms, _bytes(key) if key else None, body, kept)


def _bytes(header: str) -> bytes:
    """A header's value as it came, whatever bytes these are."""
    return header.encode("utf-8", "surrogateescape")


def _structured(offset: int, value: bytes, now_ms: int) -> Posted:
    try:
        key = _decode_key(value).partitionkey
    except (ValueError, RecursionError):  # whoever reads the record says what is wrong with it
        key = None
    return Posted(offset, now_ms, key.encode() if key else None, value, _STRUCTURED)


def named(body: bytes, request_id: str) -> bytes:
    """A request that has no name, with one. What is no object stays as it is.

    >>> named(b' {"n": 3}', "r"), named(b"{ }", "r")
    (b'{"request_id":"r","n": 3}', b'{"request_id":"r"}')
    """
    inside = body.strip()[1:].lstrip()
    if not body.lstrip().startswith(b"{"):
        return body
    return b'{"request_id":"%s"%s%s' % (request_id.encode(), b"" if inside == b"}" else b",", inside)


def field_of(detail: str) -> str | None:
    """The field that the reason of a dead letter names."""
    if detail in _MISSING:
        return _MISSING[detail]
    found = _FIELD.search(detail)
    return next(filter(None, found.groups()), None) if found else None


def refusals(dead: Sequence[tuple[int, str, str]]) -> tuple[Refused, ...]:
    """Refused events by their places, codes and reasons."""
    return tuple(Refused(index, code, detail, field_of(detail)) for index, code, detail in dead)
