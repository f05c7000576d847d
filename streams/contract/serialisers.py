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
import numpy as np

T = TypeVar("T")

#: Letters of ids that are looked at more closely.
_LETTERS = re.compile(r"""[{["']""")
#: How Java, JavaScript and Python print what is no text.
_PRINTED = re.compile(r"Struct\{|\{[^{}=\"]+=|\[+[A-Z][\w.$]*;?@[0-9a-f]+$|\[object \w+\]$|b'.*'$|b\".*\"$", re.DOTALL)
#: What no plain id begins or ends with, or holds: JSON that was cut at either end.
_CUT = re.compile(
    r"""\{\s*(?:"|$)|\[\s*(?:["{]|-?\d+\s*,|$)|"(?:[^"\\]|\\.)*\\?$|.*"\s*[}\]]$|.*"\s*:\s*["{\[]""", re.DOTALL
)
#: Tabs are left, and ends of lines inside: spreadsheets have them in good ids.
_CONTROL = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|^[\r\n]|[\r\n]\Z")
_MARK = "\ufeff"
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
)
#: The members of an envelope as JSON writes them, and which envelope that is.
_QUOTED = [([f'"{name}"'.encode() for name in sorted(names)], (names, said)) for names, said in _ENVELOPES]
_CLOUDEVENT = ({"specversion", "data"}, "a CloudEvent: content-type application/cloudevents+json is missing")


def unfit(name: str) -> str | None:
    """What a serialiser made of an id; None where it is a plain one. A name is never empty."""
    if _plain(name):
        return None
    if name[0] == "\0":
        return "a number in binary, or behind a schema registry's magic byte"
    if _MARK in name:
        return "text with a byte order mark"
    bare = name.strip()
    if _PRINTED.match(bare):
        return "a printed structure of fields, object or bytes"
    if _is_json(bare):
        return "JSON text"
    if _CUT.match(bare):
        return "a piece of JSON text"
    return "a number in binary, or text with control characters" if _CONTROL.search(name) else None


def all_fit(names: Iterable[str]) -> bool:
    """Are all of many ids plain ones? Quick where none holds a letter that an unfit one has."""
    every = list(names)
    return _plain("".join(every)) or not any(map(unfit, every))


def _plain(text: str) -> bool:
    """Has a text, or several in a row, no letter that an unfit one has?"""
    if _LETTERS.search(text):
        return False
    if len(text) < 256 or not text.isascii():
        return text.isprintable()
    letter_N = np.frombuffer(text.encode(), np.uint8)
    return not bool(((letter_N < ord(" ")) | (letter_N == 0x7F)).any())


def _is_json(text: str) -> bool:
    """Is it an object, a list or a string of JSON? Numbers and words are names like others."""
    try:
        return text[:1] in set('{["') and bool(msgspec.json.decode(text) is not None)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False


def wrapped(value: bytes) -> str | None:
    """What a serialiser put around a value, and what to set; None where nothing is recognised."""
    for beginning, said in _BEGINNINGS:
        if value.startswith(beginning):
            return said
    return _around(value, (*_ENVELOPES, _CLOUDEVENT))


def enveloped(value: bytes) -> str | None:
    """As `wrapped`, of a record that could be read: the envelope around what the record is about."""
    likely = [envelope for (one, other), envelope in _QUOTED if one in value and other in value]
    return _around(value, likely) if likely else None


def _around(value: bytes, envelopes: Iterable[tuple[set[str], str]]) -> str | None:
    try:
        names = msgspec.json.decode(value, type=dict[str, msgspec.Raw]).keys()
    except (ValueError, RecursionError):
        return None
    return next((said for wanted, said in envelopes if wanted <= names), None)


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
