"""One record at a time: limits, envelope, decoding, and the code of what cannot be read.

`decode` reads a whole fetch at once and comes here only for what did not go through; requests and control topics, which
are rare, are read here.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeVar

import msgspec

from embeddings.events import CONSENT_ALL, Source
from streams.configuration import require_consent_default
from streams.contract.cloudevents import open_envelope, read_headers
from streams.contract.consent import NOTHING, Judge
from streams.contract.deadletters import Code, DeadLetter
from streams.contract.fields import FIRST_MS, LAST_KEPT_MS
from streams.contract.homes import Homes
from streams.contract.messages import RawRecord
from streams.contract.serialisers import PLAIN_KEY, decode_bare, removes, unfit, wrapped
from streams.settings import Settings

T = TypeVar("T")
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKET = bytes(each for each in range(256) if each not in b"[]{}")
_OPENS, _SHALLOW = ord("["), 12
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
SECONDS = "is before March 1973, so it looks like seconds; it is in milliseconds"
FUTURE = "event_time is too far ahead of the record's own timestamp, or of the clock where that is none"
_NOT_FINITE = re.compile(rb"[:,\[]\s*[-+]?(?:NaN|Inf)")


class Unreadable(Exception):
    """A record cannot be used. It is dead-lettered with the code; the records around it go on."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is readable, and how it is read.

    `partitions` counts those of each topic keyed by user, absent: unchecked; `homes` knows what they were before.
    `dislike_at_most` is minus infinity where every rating is a play, and `first_ms`, the earliest time that is believed
    of an event or of a record, is 1 where logs count from anywhere, as in `evaluate`.
    """

    judge: Judge
    partitions: dict[str, int] = field(default_factory=dict)
    homes: Homes = field(default_factory=Homes)
    max_bytes: int = 262_144
    max_depth: int = 16
    max_future_ms: int = 86_400_000
    first_ms: int = FIRST_MS
    dislike_at_most: float = 2.0

    @classmethod
    def of(cls, settings: Settings, partitions: dict[str, int]) -> "Rules":
        """The rules that the settings say.

        Raises:
            SettingsError: `consent.default` is not set. Nothing is consumed.
        """
        default = CONSENT_ALL if require_consent_default(settings) == "grant" else NOTHING
        return cls(
            judge=Judge(default, settings.consent.vendor_id),
            partitions=partitions,
            max_bytes=settings.events.max_bytes,
            max_depth=settings.events.max_depth,
            max_future_ms=settings.events.max_future_ms,
            dislike_at_most=settings.events.dislike_at_most,
        )


def read(
    source: Source,
    records: Sequence[RawRecord],
    decoder: Callable[[bytes], T],
    rules: Rules,
    *,
    compacted: bool = False,
) -> tuple[list[tuple[RawRecord, T | None]], list[DeadLetter]]:
    """Records with their contents, and the unreadable ones; None where a compacted topic removes the key."""
    good: list[tuple[RawRecord, T | None]] = []
    dead: list[DeadLetter] = []
    for record in records:
        if compacted and removes(record.value):
            good.append((record, None))
            continue
        try:
            good.append((record, read_one(record, decoder, rules)[0]))
        except Unreadable as error:
            dead.append(DeadLetter(source, record.offset, record, error.code, error.detail))
    return good, dead


def read_one(record: RawRecord, decoder: Callable[[bytes], T], rules: Rules) -> tuple[T, bytes | None]:
    """A record's content and its identity (`ce_source` NUL `ce_id`).

    Raises:
        Unreadable: Dead-letter it.
    """
    value = record.value
    if value is None:
        raise Unreadable(Code.null_value, "the value is null")
    if len(value) > rules.max_bytes:
        raise Unreadable(Code.too_large, f"{len(value)} bytes, at most {rules.max_bytes}")
    if value.count(b"{") + value.count(b"[") > rules.max_depth and depth(value) > rules.max_depth:
        raise Unreadable(Code.too_deep, f"nested deeper than {rules.max_depth}")
    try:
        identity, structured = read_headers(record.headers)
        if structured:
            value, inner = open_envelope(value)
            identity = inner or identity
        return decode_bare(decoder, value), identity
    except (ValueError, RecursionError) as error:
        raise _unreadable(error, value) from None


def user_of(record: RawRecord, named: str | None) -> str:
    """The user (or item) that a record names, or else its key.

    Raises:
        Unreadable: Neither names one, or a serialiser wrapped it. Dead-letter it.
    """
    if not named:
        return name_in_key(record)
    if odd := unfit(named):
        raise Unreadable(Code.malformed, f"the id is {odd}, not a plain one")
    return named


def name_in_key(record: RawRecord) -> str:
    """The user (or item) that a record's key names.

    Raises:
        Unreadable: It names none, or a serialiser wrapped it. Dead-letter it.
    """
    if not record.key or record.key == b"null":
        raise Unreadable(Code.missing_field, "neither an id nor a key")
    if len(record.key) > 512:
        raise Unreadable(Code.malformed, "the key is longer than 512 bytes")
    try:
        name = record.key.decode()
    except UnicodeDecodeError as error:
        raise Unreadable(Code.bad_utf8, f"the key is not UTF-8 at byte {error.start}") from None
    if odd := unfit(name):
        raise Unreadable(Code.malformed, f"the key is {odd}: {PLAIN_KEY}")
    return name


def published_ms(record: RawRecord, rules: Rules, now_ms: int) -> int:
    """When a record was written; now, where its timestamp is missing or none that a clock in milliseconds shows."""
    return record.timestamp if rules.first_ms <= record.timestamp <= LAST_KEPT_MS else now_ms


def moment_ms(time_ms: int | None, published: int, rules: Rules) -> int:
    """A time that a record says itself, not after its publish time, which stands for one that is not said.

    Raises:
        Unreadable: It looks like seconds, or is too far ahead. Dead-letter it.
    """
    if time_ms is None:
        return published
    if time_ms < rules.first_ms:
        raise Unreadable(Code.seconds, f"event_time {SECONDS}")
    if time_ms - published > rules.max_future_ms:
        raise Unreadable(Code.future, FUTURE)
    return min(time_ms, published)


def depth(value: bytes) -> int:
    """How deep objects and lists are nested in a JSON text.

    >>> depth(b'{"a":[1,[2,"[[[["]]}')
    3
    """
    bare = _STRING.sub(b"", value) if b"\\" in value else b"".join(value.split(b'"')[::2])
    brackets = bare.translate(_BRACKETS, _NO_BRACKET)
    rest = brackets
    for deepest in range(_SHALLOW):
        if not rest:
            return deepest
        rest = rest.replace(b"[]", b"")  # the innermost pairs
    return max(accumulate(1 if each == _OPENS else -1 for each in brackets))


def _unreadable(error: Exception, value: bytes) -> Unreadable:
    """The code of what a decoder raised. msgspec's messages name fields and types, never values."""
    said = str(error)
    if isinstance(error, UnicodeDecodeError):
        return Unreadable(Code.bad_utf8, "text that is not UTF-8")
    if isinstance(error, RecursionError):
        return Unreadable(Code.too_deep, "nested too deep to read")
    if not isinstance(error, msgspec.MsgspecError):
        return Unreadable(Code.malformed, "the envelope's data cannot be read")
    if odd := wrapped(value):
        said = f"{said}; {odd}"
    if "missing required field" in said:
        return Unreadable(Code.missing_field, said)
    if said.startswith("Expected `int` <=") and said.endswith("`$.event_time`"):
        return Unreadable(Code.future, "event_time is beyond the year 9999; it is in milliseconds")
    if "out of range" in said or "Expected `float` " in said or _NOT_FINITE.search(value):
        return Unreadable(Code.nan, "a number is not finite or too large")
    return Unreadable(Code.malformed, said)
