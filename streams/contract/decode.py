"""A fetch of raw records becomes columns: the first stage, `decode`.

Whole lists are decoded at once; only a partition in which something raised is read record by record, so that one bad
record costs its neighbours nothing but that. Event time is compared with the record's publish time, not with this
machine's clock, so that a replay of the log reads as the first pass did. Where a record says no publish time, or one
that no clock in milliseconds shows, its event time stands for it; only there does this machine's clock bound both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import mode
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh32_intdigest as _xxh32

from embeddings.events import Action, EventBatch, Fate, Source
from embeddings.ids import ITEM_MASK, NO_ITEM, item_id, murmur2
from embeddings.jit import kernel
from streams.contract.cloudevents import Headers, open_envelope, read_headers
from streams.contract.consent import CONSENT_LEARN
from streams.contract.deadletters import MOST_HEADER_BYTES, REROUTED, Code, DeadLetter, header_bytes, was_sent_home
from streams.contract.fields import LAST_KEPT_MS
from streams.contract.messages import Outgoing, RawRecord
from streams.contract.parsing import FUTURE, SECONDS, Rules, Unreadable, name_in_key, read_one
from streams.contract.records import Event, decode_event
from streams.contract.serialisers import all_fit, unfit

Part = tuple[Source, Sequence[RawRecord]]

_RATING = 255
_CODES = {action.name: int(action) for action in Action} | {"rating": _RATING}
_LAST_ITEM_ACTION = int(max(action for action in Action if action < Action.impression))
_DISLIKE, _PLAY = int(Action.dislike), int(Action.play)
_UNREADABLE = (ValueError, TypeError, RecursionError, Unreadable)
_UNKNOWN_TYPE, _UNCONSENTED = int(Fate.unknown_type), int(Fate.unconsented)


class Misrouted(NamedTuple):
    """A record in a partition that is not its user's, and the record to publish so that it reaches the right one.

    `left` where it was foreign when it was read first, and so was published then.
    """

    source: Source
    offset: int
    left: bool
    outgoing: Outgoing


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What a fetch held: B readable events as columns, and what was put aside.

    `events` holds the records themselves, one per row, for what is rare: slate_id, slot, context. `names` maps the
    batch's item ids to item names. `published_ms_B` is the publish time, to which event times ahead of it were set;
    `records` are the raw records of the rows, of which `misdated` had a publish time
    that cannot be one, or is far ahead of this machine's clock.
    """

    batch: EventBatch
    events: list[Event]
    names: dict[int, str]
    records: list[RawRecord]
    published_ms_B: NDArray[np.int64]
    dead: list[DeadLetter]
    misrouted: list[Misrouted]
    misdated: int

    @property
    def aside(self) -> list[tuple[Source, int, Fate]]:
        """Source, offset and fate of the records that have no row."""
        dead = [(letter.source, letter.offset, Fate.dead_lettered) for letter in self.dead]
        return dead + [(record.source, record.offset, Fate.misrouted) for record in self.misrouted]

    def code_of(self, source: Source) -> str:
        """The code of most dead letters of a partition that has any."""
        return mode(letter.code for letter in self.dead if letter.source == source)


_UNFIT = ITEM_MASK + 1


class _ItemIds(dict[str | None, int]):
    """Item names to ids, remembered for the last 200,000 names; no name is no item, one that is unfit is `_UNFIT`."""

    def __missing__(self, name: str | None) -> int:
        if len(self) >= 200_000:
            self.clear()
        found = self[name] = NO_ITEM if not name else _UNFIT if unfit(name) else item_id(name)
        return found


_item_ids = _ItemIds()


def decode(parts: Sequence[Part], rules: Rules, now_ms: int) -> Decoded:
    """Read a fetch: `parts` are distinct input partitions, each with its records in offset order.

    Args:
        parts: Input partitions with their records.
        rules: Limits, consent, partition counts.
        now_ms: Wall clock; an event is not believed to be later where the record has no publish time.
    """
    dead: list[DeadLetter] = []
    rows = _Rows.of(parts, rules, dead)
    columns = _columns(rows, rules, now_ms)
    wrong_B, misdated = columns.code_B != _FINE, columns.misdated
    misrouted: list[Misrouted] = []
    if wrong_B.any():
        for row in np.flatnonzero(wrong_B).tolist():
            _put_aside(rows, row, columns.code_B[row], rules, dead, misrouted)
        dead.sort(key=lambda letter: (letter.source, letter.offset))
        rows = rows.kept(np.flatnonzero(~wrong_B))
        columns = _columns(rows, rules, now_ms)
    names = dict(zip(columns.batch.item_B.tolist(), rows.item_names, strict=True))
    names.pop(NO_ITEM, None)
    return Decoded(
        batch=columns.batch,
        events=rows.events,
        names={ident: name for ident, name in names.items() if name},
        records=rows.records,
        published_ms_B=columns.published_ms_B,
        dead=dead,
        misrouted=misrouted,
        misdated=misdated,
    )


_FINE, _FUTURE, _SECONDS, _NO_ITEM, _WRAPPED, _NO_VALUE, _MISROUTED = range(7)
_WRONG = {
    _FUTURE: (Code.future, FUTURE),
    _SECONDS: (Code.seconds, f"event_time {SECONDS}"),
    _WRAPPED: (
        Code.malformed,
        "user_id or item_id is no plain id, but what a serialiser made of one or left in it",
    ),
    _NO_ITEM: (Code.missing_field, "item_id is missing"),
    _NO_VALUE: (Code.missing_field, "a rating without a value"),
}


@dataclass(slots=True)
class _Rows:
    """Decoded records side by side, before they are columns."""

    sources: tuple[Source, ...]
    source_B: NDArray[np.int32]
    records: list[RawRecord]
    events: list[Event]
    users: list[str]
    identities: list[bytes | None]

    @classmethod
    def of(cls, parts: Sequence[Part], rules: Rules, dead: list[DeadLetter]) -> "_Rows":
        """All at once; partition by partition where that raises."""
        sources, counts = tuple(source for source, _ in parts), [len(records) for _, records in parts]
        flat = [record for _, records in parts for record in records]
        try:
            events, users, identities = _read_all(flat, rules)
        except _UNREADABLE:
            read = [_read_part(source, records, rules, dead) for source, records in parts]
            counts = [len(records) for records, *_ in read]
            flat, events, users, identities = (list(chain.from_iterable(column)) for column in zip(*read, strict=True))
        return cls(sources, np.repeat(np.arange(len(parts), dtype=np.int32), counts), flat, events, users, identities)

    @property
    def item_names(self) -> list[str | None]:
        return [event.item_id for event in self.events]

    def kept(self, rows: NDArray[np.intp]) -> "_Rows":
        chosen = rows.tolist()
        return _Rows(
            self.sources,
            self.source_B[rows],
            [self.records[row] for row in chosen],
            [self.events[row] for row in chosen],
            [self.users[row] for row in chosen],
            [self.identities[row] for row in chosen],
        )


def _read_part(
    source: Source, records: Sequence[RawRecord], rules: Rules, dead: list[DeadLetter]
) -> tuple[list[RawRecord], list[Event], list[str], list[bytes | None]]:
    """The readable records of a partition and what is in them."""
    try:
        return list(records), *_read_all(records, rules)
    except _UNREADABLE:
        return _read_each(source, records, rules, dead)


def _read_all(records: Sequence[RawRecord], rules: Rules) -> tuple[list[Event], list[str], list[bytes | None]]:
    """All records at once; raises anything if one of them is not as it should be."""
    if not records:
        return [], [], []
    values: list[bytes] = [record.value for record in records]  # type: ignore[misc]  # len(None) raises
    identities: list[bytes | None] = [None] * len(values)
    length_B = np.array(list(map(len, values)))
    if length_B.max() > rules.max_bytes or _may_be_deep(b"".join(values), length_B, rules.max_depth):
        raise ValueError
    headers = [record.headers for record in records]
    if any(headers):
        _open(headers, values, identities)
    events = list(map(decode_event, values))
    named = [event.user_id for event in events]
    if all(named):
        return events, cast(list[str], named), identities
    return events, [user or name_in_key(record) for record, user in zip(records, named, strict=True)], identities


def _may_be_deep(joined: bytes, length_B: NDArray[np.int64], limit: int) -> bool:
    """Does any of the joined records open more brackets than may be nested? `[` and `{` differ in one bit."""
    opens = np.flatnonzero((np.frombuffer(joined, np.uint8) | 0x20) == ord("{"))
    record_of = length_B.cumsum().searchsorted(opens, "right")
    return bool((record_of[limit:] == record_of[:-limit]).any())


def _open(headers: list[Headers], values: list[bytes], identities: list[bytes | None]) -> None:
    """Take identities from the headers, and records out of their envelopes, in place."""
    for row, of_record in enumerate(headers):
        if of_record:
            identities[row], structured = read_headers(of_record)
            if structured:
                values[row], inner = open_envelope(values[row])
                identities[row] = inner or identities[row]


def _read_each(
    source: Source, records: Sequence[RawRecord], rules: Rules, dead: list[DeadLetter]
) -> tuple[list[RawRecord], list[Event], list[str], list[bytes | None]]:
    """The readable records of a partition; the others are added to `dead`."""
    events, users, identities, kept = [], [], [], []
    for record in records:
        try:
            event, identity = read_one(record, decode_event, rules)
            user = event.user_id or name_in_key(record)
        except Unreadable as error:
            dead.append(DeadLetter(source, record.offset, record, error.code, error.detail))
            continue
        events.append(event)
        users.append(user)
        identities.append(identity)
        kept.append(record)
    return kept, events, users, identities


@dataclass(frozen=True, slots=True)
class _Columns:
    batch: EventBatch
    code_B: NDArray[np.uint8]
    published_ms_B: NDArray[np.int64]
    misdated: int


def _columns(rows: _Rows, rules: Rules, now_ms: int) -> _Columns:
    events = rows.events
    seen: dict[str, int] = {}
    user_B = np.array([seen.setdefault(user, len(seen)) for user in rows.users], np.int32)
    item_B = np.array([_item_ids[event.item_id] for event in events], np.uint64)
    if not all_fit(seen):
        item_B[np.array([unfit(user) is not None for user in seen])[user_B]] = _UNFIT
    action_B = np.array([_CODES.get(event.type, 0) for event in events], np.uint8)
    value_B = np.array([event.value for event in events], np.float32)
    time_ms_B = np.array([event.event_time for event in events], np.int64)
    published_ms_B = np.array([record.timestamp for record in rows.records], np.int64)
    consent_B = _consents(events, rules)
    code_B, refused_B, misdated = _judge(
        *(item_B, action_B, value_B, time_ms_B, published_ms_B, consent_B, _foreign(rows, tuple(seen), user_B, rules)),
        *(now_ms, rules.first_ms, rules.max_future_ms, float(rules.dislike_at_most)),
    )
    batch = EventBatch(
        user_ids=tuple(seen),
        sources=rows.sources,
        user_B=user_B,
        item_B=item_B,
        action_B=action_B,
        value_B=value_B,
        time_s_B=time_ms_B // 1000,
        source_B=rows.source_B,
        offset_B=np.array([record.offset for record in rows.records], np.int64),
        dedupe_B=_dedupe(rows),
        consent_B=consent_B,
        refused_B=refused_B,
    )
    return _Columns(batch, code_B, published_ms_B, misdated)


@kernel
def _judge(
    item_B: NDArray[np.uint64],
    action_B: NDArray[np.uint8],
    value_B: NDArray[np.float32],
    time_ms_B: NDArray[np.int64],
    published_ms_B: NDArray[np.int64],
    consent_B: NDArray[np.uint8],
    foreign_B: NDArray[np.bool_],
    now_ms: int,
    first_ms: int,
    max_future_ms: int,
    dislike_at_most: float,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int]:
    """What is wrong with each row, why it must not be applied, and how many are misdated.

    In place: event times are clamped to the publish time, for which event time or now stands where it is none, ratings
    become plays or dislikes, values that are not numbers become 0.
    """
    rows, misdated = len(item_B), 0
    code_B, refused_B = np.zeros(rows, np.uint8), np.zeros(rows, np.uint8)
    for r in range(rows):
        if not first_ms <= published_ms_B[r] <= LAST_KEPT_MS:
            published_ms_B[r] = min(time_ms_B[r], now_ms)
            misdated += 1
        elif published_ms_B[r] - now_ms > max_future_ms:
            misdated += 1
        early = time_ms_B[r] < first_ms
        ahead_ms = time_ms_B[r] - published_ms_B[r]
        time_ms_B[r] = min(time_ms_B[r], published_ms_B[r])
        action, missing = action_B[r], np.isnan(value_B[r])
        if ahead_ms > max_future_ms:
            code_B[r] = _FUTURE
        elif action == _RATING and missing:
            code_B[r] = _NO_VALUE
        elif item_B[r] == NO_ITEM and (0 < action <= _LAST_ITEM_ACTION or action == _RATING):
            code_B[r] = _NO_ITEM
        elif item_B[r] == _UNFIT:
            code_B[r] = _WRAPPED
        elif early:
            code_B[r] = _SECONDS
        elif foreign_B[r]:
            code_B[r] = _MISROUTED
        if action == _RATING:
            action_B[r] = _DISLIKE if value_B[r] <= dislike_at_most else _PLAY
        if action == 0:
            refused_B[r] = _UNKNOWN_TYPE
        elif (consent_B[r] & CONSENT_LEARN) != CONSENT_LEARN:
            refused_B[r] = _UNCONSENTED
        if missing:
            value_B[r] = 0
    return code_B, refused_B, misdated


def _foreign(rows: _Rows, users: tuple[str, ...], user_B: NDArray[np.int32], rules: Rules) -> NDArray[np.bool_]:
    """Rows in a partition that is not murmur2's for their user, or was not when they were read first."""
    counts = [rules.partitions.get(source.topic, 0) for source in rows.sources]
    if not any(counts) or not users:
        return np.zeros(len(user_B), np.bool_)
    hash_B = murmur2([user.encode() for user in users])[user_B]
    count_B = np.array(counts, np.uint32)[rows.source_B]
    here_B = np.array([source.partition for source in rows.sources], np.uint32)[rows.source_B]
    foreign_B: NDArray[np.bool_] = (count_B > 0) & (hash_B % np.maximum(count_B, 1) != here_B)
    for s in [s for s, source in enumerate(rows.sources) if rules.homes.changed(source)]:
        row_R = np.flatnonzero(rows.source_B == s)
        offset_R = np.array([rows.records[row].offset for row in row_R.tolist()], np.int64)
        foreign_B[row_R] |= rules.homes.left(rows.sources[s], offset_R, hash_B[row_R])
    return foreign_B


def _consents(events: list[Event], rules: Rules) -> NDArray[np.uint8]:
    consents = [event.consent for event in events]
    if consents.count(None) == len(consents):
        return np.full(len(consents), rules.judge.default, np.uint8)
    return np.array([rules.judge.bits(consent) for consent in consents], np.uint8)


def _dedupe(rows: _Rows) -> NDArray[np.uint32]:
    """32-bit hashes of `ce_source` NUL `ce_id`, else of `event_id`; 0 where a record has neither."""
    idents = [
        identity or (event.event_id.encode() if event.event_id else b"")
        for identity, event in zip(rows.identities, rows.events, strict=True)
    ]
    return np.array([(_xxh32(ident) or 1) if ident else 0 for ident in idents], np.uint32)


def _put_aside(
    rows: _Rows, row: int, code: int, rules: Rules, dead: list[DeadLetter], misrouted: list[Misrouted]
) -> None:
    record, source = rows.records[row], rows.sources[rows.source_B[row]]
    if code != _MISROUTED:
        dead.append(DeadLetter(source, record.offset, record, *_WRONG[int(code)]))
    elif was_sent_home(record.headers, rules.partitions[source.topic]):
        dead.append(DeadLetter(source, record.offset, record, Code.misrouted, "in a foreign partition a second time"))
    elif header_bytes(record.headers) > MOST_HEADER_BYTES:
        said = f"in a foreign partition with more than {MOST_HEADER_BYTES} bytes of headers"
        dead.append(DeadLetter(source, record.offset, record, Code.misrouted, said))
    else:
        count, user = rules.partitions[source.topic], rows.users[row].encode()
        headers = [*record.headers, (REROUTED, f"{source.partition}/{count}".encode())]
        if not (rows.identities[row] or rows.events[row].event_id):
            headers += _identity(source, record.offset)
        hashed = int(murmur2([user])[0])
        outgoing = Outgoing(source.topic, user, record.value, headers, hashed % count)
        left = bool(rules.homes.left(source, np.array([record.offset]), np.array([hashed]))[0])
        misrouted.append(Misrouted(source, record.offset, left, outgoing))


def _identity(source: Source, offset: int) -> list[tuple[str, bytes]]:
    """What a nameless record is called from now on: killed at the wrong moment, it is published a second time."""
    return [("ce_source", f"{source.topic}/{source.partition}".encode()), ("ce_id", b"%d" % offset)]
