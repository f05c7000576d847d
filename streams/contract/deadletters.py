"""What becomes of a record nobody can use: it is kept, byte for byte, with the reason, on `<topic>.dlq`.

Codes are a closed list. Late, unconsented, erased and rate-limited records are counted fates, never dead letters. No
header holds any part of a payload: the reason names a field and a place, not a value. A campaign is about nobody; there
the value is named too.

>>> sorted(set(Code) - set(MEANING))
[]
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from embeddings.events import Source
from streams.contract.cloudevents import SMALL_BYTES, Headers, header, small, stub
from streams.contract.messages import Outgoing, RawRecord


class Code(StrEnum):
    """Why a record was dead-lettered."""

    malformed = "malformed"
    bad_utf8 = "bad_utf8"
    too_large = "too_large"
    too_deep = "too_deep"
    missing_field = "missing_field"
    null_value = "null_value"
    nan = "nan"
    future = "future"
    seconds = "seconds"
    misrouted = "misrouted"
    id_collision = "id_collision"
    unknown_topic = "unknown_topic"
    invalid = "invalid"
    handler_error = "handler_error"


MEANING: Mapping[Code, str] = {
    Code.malformed: "not JSON, not an object, or a field of the wrong type or length",
    Code.bad_utf8: "text that is not UTF-8",
    Code.too_large: "more bytes than `events.max_bytes`; the dead letter holds size and sha256 instead of the value",
    Code.too_deep: "more nested objects and lists than `events.max_depth`",
    Code.missing_field: "a field without which the record means nothing is absent",
    Code.null_value: "a null value on a topic where null removes nothing",
    Code.nan: "a number that is not finite, or too large for a 32-bit float",
    Code.future: "event time further ahead of the record's publish time than `events.max_future_ms`",
    Code.seconds: "event time before March 1973: it looks like seconds, and is read as milliseconds",
    Code.misrouted: "in a partition that is not murmur2's, after it was re-published once",
    Code.id_collision: "an item whose 40-bit id another item has",
    Code.unknown_topic: "a request whose `reply_to` names a topic that the brokers do not have",
    Code.invalid: "a campaign that cannot be served as it is; the reason names field, value and what is allowed",
    Code.handler_error: "readable, but failed for an unknown reason in every try",
}

_CONNECT = "__connect.errors."
TOPIC, PARTITION, OFFSET = f"{_CONNECT}topic", f"{_CONNECT}partition", f"{_CONNECT}offset"
STAGE, CLASS, MESSAGE = f"{_CONNECT}stage", f"{_CONNECT}class.name", f"{_CONNECT}exception.message"
CODE = "marquee.code"
#: Names what is not kept whole: key, value, headers.
CUT = "marquee.cut"
ATTEMPTS = "marquee.attempts"
#: Set on a record that was published again to the partition of its user; it is not published a second time.
REROUTED = "marquee-rerouted"
_OURS = frozenset({TOPIC, PARTITION, OFFSET, STAGE, CLASS, MESSAGE, CODE})
_NUMBER = re.compile(r"[0-9]{1,18}")
#: A compressed batch may hold keys and headers of any size. What is larger is not kept whole: with the largest value a
#: dead letter still fits into its topic, which has 1 MiB of room beside it.
MOST_KEY_BYTES, MOST_HEADER_BYTES = 65_536, 131_072
_ANY_BYTES = 1 << 31
_MOST_HEADERS, _SURELY_BYTES = 64, 65_536


class NotReplayable(Exception):
    """A record of a dead-letter topic cannot go back to where it came from. It stays; the others go on."""


class DeadLetter(NamedTuple):
    """A record that cannot be used, where it stood, and why; `detail` names no value."""

    source: Source
    offset: int
    record: RawRecord
    code: Code
    detail: str


def dead_letter_record(letter: DeadLetter, topic: str, stage: str = "decode") -> Outgoing:
    """The record for a dead-letter topic: the original with error headers after its own.

    Size and sha256 stand for a value that is `too_large`, and for a key or headers that no topic takes. Where a topic
    takes less than the settings say, they stand for all that is not small.
    """
    record, large = letter.record, letter.code is Code.too_large
    whole = _letter(letter, topic, stage, MOST_KEY_BYTES, -1 if large else _ANY_BYTES, MOST_HEADER_BYTES)
    if len(whole.key or b"") + len(whole.value or b"") + header_bytes(record.headers) <= _SURELY_BYTES:
        return whole
    return whole._replace(smaller=_letter(letter, topic, stage, SMALL_BYTES, -1 if large else SMALL_BYTES, SMALL_BYTES))


def _letter(letter: DeadLetter, topic: str, stage: str, key_bytes: int, value_bytes: int, in_headers: int) -> Outgoing:
    record, cut = letter.record, []
    key, value, headers = record.key, record.value, record.headers
    if key is not None and len(key) > key_bytes:
        key = stub(key)
        cut.append("key")
    if value is not None and len(value) > value_bytes:
        value = stub(value)
        cut.append("value")
    if header_bytes(headers) > in_headers:
        headers = [(name, small(said)) for name, said in headers if len(name) <= SMALL_BYTES][:_MOST_HEADERS]
        cut.append("headers")
    reason = {
        TOPIC: letter.source.topic,
        PARTITION: str(letter.source.partition),
        OFFSET: str(letter.offset),
        STAGE: stage,
        CLASS: f"marquee.{letter.code}",
        MESSAGE: letter.detail,
        CODE: letter.code.value,
    }
    if cut:
        reason[CUT] = " ".join(cut)
    whole = [*headers, *((name, text.encode()) for name, text in reason.items())]
    if attempts_of(record.headers) == 0:
        whole.append((ATTEMPTS, b"0"))
    return Outgoing(topic, key, value, whole)


def header_bytes(headers: Headers) -> int:
    """What headers take, with 16 bytes around each."""
    return sum(len(name) + len(value or b"") + 16 for name, value in headers) if headers else 0


def replay_record(record: RawRecord) -> Outgoing:
    """The original of a dead letter, to be published where it came from; counts one more attempt.

    Its own headers, `ce_id` among them, come back unchanged, so that a second effect is still recognised as one.

    Raises:
        NotReplayable: Not a dead letter of ours, or its value was too large to keep. It stays where it is.
    """
    about = Reason.of(record)
    own = _own_headers(record)
    if cut := header(record.headers[len(own) :], CUT):
        raise NotReplayable(f"it was too large to keep whole: {cut.decode('utf-8', 'replace')}")
    if about.code == Code.too_large:
        raise NotReplayable("its value was too large to keep")
    kept = [(name, value) for name, value in own if name not in (ATTEMPTS, REROUTED)]
    attempts = str(attempts_of(record.headers) + 1).encode()
    partition = about.source.partition if record.key is None else None
    return Outgoing(about.source.topic, record.key, record.value, [*kept, (ATTEMPTS, attempts)], partition)


@dataclass(frozen=True, slots=True)
class Reason:
    """What the error headers of a dead letter say."""

    source: Source
    offset: int
    code: str
    stage: str
    detail: str
    attempts: int

    @classmethod
    def of(cls, record: RawRecord) -> "Reason":
        """Read the error headers.

        Raises:
            NotReplayable: They are missing: something else wrote this record.
        """
        about = {name: value.decode("utf-8", "replace") for name, value in record.headers if value and name in _OURS}
        if len(about) < len(_OURS) or not (_NUMBER.fullmatch(about[PARTITION]) and _NUMBER.fullmatch(about[OFFSET])):
            raise NotReplayable("not a dead letter: its error headers are missing")
        source = Source(about[TOPIC], int(about[PARTITION]))
        attempts = attempts_of(record.headers)
        return cls(source, int(about[OFFSET]), about[CODE], about[STAGE], about[MESSAGE], attempts)


def attempts_of(headers: Headers) -> int:
    """How often a record was replayed."""
    for name, value in headers:
        if name == ATTEMPTS and value and _NUMBER.fullmatch(value.decode("latin-1")):
            return int(value)
    return 0


def _own_headers(record: RawRecord) -> Headers:
    """The original's headers: those before the last block of error headers, which begins with the topic."""
    names = [name for name, _ in record.headers]
    return record.headers[: len(names) - 1 - names[::-1].index(TOPIC)]


def was_sent_home(headers: Headers, count: int) -> bool:
    """Was a record sent to where it belongs by this count of partitions? A topic that grew since has another."""
    sent = [(value or b"").partition(b"/")[2] for name, value in headers if name == REROUTED]
    return any(by in (b"", b"%d" % count) for by in sent)
