"""Raw records become rows: whole lists are decoded at once, one by one only where that raised something."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

import numpy as np
from numpy.typing import NDArray

from embeddings.events import Source
from streams.contract.cloudevents import Headers, open_envelope, read_headers
from streams.contract.deadletters import DeadLetter
from streams.contract.messages import RawRecord
from streams.contract.parsing import Rules, Unreadable, name_in_key, read_one
from streams.contract.records import Event, decode_event

Part = tuple[Source, Sequence[RawRecord]]
_UNREADABLE = (ValueError, TypeError, RecursionError, Unreadable)


@dataclass(slots=True)
class Rows:
    """Decoded records side by side, before they are columns."""

    sources: tuple[Source, ...]
    source_B: NDArray[np.int32]
    records: list[RawRecord]
    events: list[Event]
    users: list[str]
    identities: list[bytes | None]

    @classmethod
    def of(cls, parts: Sequence[Part], rules: Rules, dead: list[DeadLetter]) -> "Rows":
        """All at once, partition by partition where that raises; what cannot be read is added to `dead`."""
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
        """What each row calls its item."""
        return [event.item_id for event in self.events]

    def kept(self, rows: NDArray[np.intp]) -> "Rows":
        """Some of them."""
        chosen = rows.tolist()
        return Rows(
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
