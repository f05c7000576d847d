r"""CloudEvents 1.0 on Kafka: binary mode in headers, structured mode in the value, and what is passed through.

>>> headers = event_headers("id-1", "marquee.slate.v1", "/marquee", time_ms=0)
>>> dict(headers)["ce_time"]
b'1970-01-01T00:00:00.000Z'
>>> read_headers(headers)
(b'/marquee\x00id-1', False)
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from streams.contract.serialisers import decode_bare

Headers = Sequence[tuple[str, bytes]]
JSON = b"application/json"
STRUCTURED = b"application/cloudevents"
TRACEPARENT = "traceparent"
INPUT = "marquee-input"
#: Longer headers are not repeated as they are.
SMALL_BYTES = 1_024


_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-|\Z)")
"""W3C Trace Context, level 1: version, trace, span, flags; later versions may say more behind them."""


class TraceContext(NamedTuple):
    """What a record's `traceparent` names: a trace and a span in hexadecimal, and whether these are kept anywhere."""

    trace_id: str
    span_id: str
    sampled: bool


class Envelope(msgspec.Struct):
    """A record in structured mode. `data` stays bytes until the topic's own decoder reads it."""

    id: str = ""
    source: str = ""
    data: msgspec.Raw = msgspec.Raw()
    data_base64: str | None = None

    def payload(self) -> bytes:
        """The record inside."""
        return base64.b64decode(self.data_base64, validate=True) if self.data_base64 else bytes(self.data)


class Stub(msgspec.Struct):
    """Stands for bytes that were too many to keep."""

    size_bytes: int
    sha256: str


_decode_envelope = msgspec.json.Decoder(Envelope).decode


def header(headers: Headers, name: str) -> bytes | None:
    """The last header of that name, as Kafka's own readers take it; None without one."""
    found = None
    for key, value in headers:
        if key == name:
            found = value
    return found


def stub(value: bytes) -> bytes:
    """Size and hash of a value, in place of it."""
    return msgspec.json.encode(Stub(len(value), hashlib.sha256(value).hexdigest()))


def small(value: bytes) -> bytes:
    """A header's value, or its stub."""
    return stub(value) if value and len(value) > SMALL_BYTES else value


def read_headers(headers: Headers) -> tuple[bytes | None, bool]:
    """A record's identity (`ce_source` NUL `ce_id`, None without a `ce_id`) and: is it in structured mode?

    Media types are case-insensitive; of headers of one name the last counts, as for Kafka's own readers.
    """
    if not headers:
        return None, False
    found = dict(headers)
    kind = found.get("content-type") or found.get("Content-Type")
    ident = found.get("ce_id")
    identity = (found.get("ce_source") or b"") + b"\0" + ident if ident else None
    return identity, kind is not None and kind[:23].lower() == STRUCTURED


def open_envelope(value: bytes) -> tuple[bytes, bytes | None]:
    """The record inside a structured one, and its identity.

    Raises:
        msgspec.MsgspecError: Not an envelope, or an empty one. The record is dead-lettered.
        ValueError: `data_base64` is not base64. The record is dead-lettered as malformed.
    """
    envelope = decode_bare(_decode_envelope, value)
    if not (payload := envelope.payload()):
        raise msgspec.ValidationError("a CloudEvent in structured mode is missing required field `data`")
    return payload, f"{envelope.source}\0{envelope.id}".encode() if envelope.id else None


def event_headers(
    ce_id: str, ce_type: str, ce_source: str, time_ms: int, passed: Iterable[tuple[str, bytes]] = ()
) -> list[tuple[str, bytes]]:
    """Headers of a record that we publish, in binary mode; `passed` are added as they are."""
    time = datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", ce_id.encode()),
        ("ce_type", ce_type.encode()),
        ("ce_source", ce_source.encode()),
        ("ce_time", time.encode()),
        ("content-type", JSON),
        *passed,
    ]


def trace_context(headers: Headers) -> TraceContext | None:
    """The trace that a record belongs to; None where its headers name none that can be read."""
    said = header(headers, TRACEPARENT) if headers else None
    if said is None or (found := _TRACEPARENT.match(said)) is None:
        return None
    return TraceContext(found[1].decode(), found[2].decode(), bool(int(found[3], 16) & 1))


def place_of(topic: str, partition: int, offset: int) -> bytes:
    """Where an input stood in the log, as the header of its answer says it."""
    return f"{topic}/{partition}/{offset}".encode()


def echo(topic: str, partition: int, offset: int, headers: Headers) -> list[tuple[str, bytes]]:
    """What an answer repeats of its input: where it stood in the log, and the trace it belongs to, if that is short."""
    place = (INPUT, place_of(topic, partition, offset))
    trace = header(headers, TRACEPARENT) if headers else None
    return [place] if trace is None else [place, (TRACEPARENT, small(trace))]
