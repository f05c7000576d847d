r"""What other people's serialisers wrap around ids and values, recognised so that a dead letter says what to set.

>>> unfit('{"id":"m2"}')
'JSON text'
>>> unfit('say "hi"') is None
True
>>> wrapped(b'{"schema":{},"payload":{}}')
"Kafka Connect's envelope: set value.converter.schemas.enable=false"
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

#: First letters of ids that are looked at more closely.
_STARTS = frozenset('{["\0S')
#: How Java prints a key of several fields.
_PRINTED = re.compile(r"(?:Struct)?\{\w+=.*\}", re.DOTALL)
_CONNECT = "org.apache.kafka.connect"
PLAIN_KEY = f"write plain strings (key.converter={_CONNECT}.storage.StringConverter)"

_BEGINNINGS = (
    (
        b"\0",
        f"a schema registry's magic byte in front: write plain JSON (value.converter={_CONNECT}.json.JsonConverter)",
    ),
    (b'"', f"JSON inside a JSON string: write it as it is (value.converter={_CONNECT}.storage.StringConverter)"),
    (b"\xef\xbb\xbf", "begins with a byte order mark: write UTF-8 without"),
    (b"\x1f\x8b", "begins as gzip does: let the producer compress (compression.type)"),
)
_ENVELOPES = (
    ({"schema", "payload"}, "Kafka Connect's envelope: set value.converter.schemas.enable=false"),
    ({"before", "after"}, "a change event: unwrap it (transforms.unwrap.type with ExtractNewRecordState)"),
    ({"specversion", "data"}, "a CloudEvent: content-type application/cloudevents+json is missing"),
)


def unfit(name: str) -> str | None:
    """What a serialiser made of an id; None where it is a plain one. A name is never empty."""
    if name.lstrip()[:1] not in _STARTS:
        return None
    if name[0] == "\0":
        return "a number in binary, or behind a schema registry's magic byte"
    if _PRINTED.fullmatch(name.strip()):
        return "a printed structure of fields"
    try:
        msgspec.json.decode(name)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return "JSON text"


def all_fit(names: Iterable[str]) -> bool:
    """Are all of many ids plain ones? Quick where none holds a letter that an unfit one has."""
    together = "".join(names)
    return not any(letter in together for letter in '{["\0') or not any(map(unfit, names))


def wrapped(value: bytes) -> str | None:
    """What a serialiser put around a value, and what to set; None where nothing is recognised."""
    for beginning, said in _BEGINNINGS:
        if value.startswith(beginning):
            return said
    try:
        names = msgspec.json.decode(value, type=dict[str, msgspec.Raw]).keys()
    except (ValueError, RecursionError):
        return None
    return next((said for wanted, said in _ENVELOPES if wanted <= names), None)


def removes(value: bytes | None) -> bool:
    """Does a value on a compacted topic remove its key? Null does, and what writers without nulls write instead."""
    return value is None or (len(value) < 16 and value.strip() in (b"", b"null"))


def decode_bare(decoder: Callable[[bytes], T], value: bytes) -> T:
    """What a decoder makes of a record; a member that is null reads as one that is absent.

    Raises:
        msgspec.MsgspecError, ValueError, RecursionError: what the decoder raises. The record is dead-lettered.
    """
    try:
        return decoder(value)
    except msgspec.ValidationError:
        if b"null" not in value or (bare := _without_nulls(value)) is None:
            raise
    return decoder(bare)


def _without_nulls(value: bytes) -> bytes | None:
    """A JSON text without its null members; None where it cannot be written again."""
    try:
        return msgspec.json.encode(_present(msgspec.json.decode(value)))
    except (ValueError, OverflowError, RecursionError):
        return None


def _present(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _present(member) for name, member in value.items() if member is not None}
    return [_present(member) for member in value] if isinstance(value, list) else value
