"""A fetch of raw records becomes columns: the first stage, `decode`.

Whole lists are decoded at once; only a partition in which something raised is read record by record, so that one bad
record costs its neighbours nothing but that. Event time is compared with the record's publish time, not with this
machine's clock, so that a replay of the log reads as the first pass did. Where a record says no publish time, or one
that no clock in milliseconds shows, its event time stands for it; only there does this machine's clock bound both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mode
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.events import EventBatch, Fate, Source
from embeddings.ids import NO_ITEM, murmur2
from streams.contract.deadletters import MOST_HEADER_BYTES, REROUTED, Code, DeadLetter, header_bytes, was_sent_home
from streams.contract.event_columns import Wrong, columns_of
from streams.contract.event_rows import Part, Rows
from streams.contract.messages import Outgoing, RawRecord
from streams.contract.parsing import FUTURE, SECONDS, Rules
from streams.contract.records import Event


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


def decode(parts: Sequence[Part], rules: Rules, now_ms: int) -> Decoded:
    """Read a fetch: `parts` are distinct input partitions, each with its records in offset order.

    Args:
        parts: Input partitions with their records.
        rules: Limits, consent, partition counts.
        now_ms: Wall clock; an event is not believed to be later where the record has no publish time.
    """
    dead: list[DeadLetter] = []
    rows = Rows.of(parts, rules, dead)
    columns = columns_of(rows, rules, now_ms)
    wrong_B, misdated = columns.wrong_B != Wrong.fine, columns.misdated
    misrouted: list[Misrouted] = []
    if wrong_B.any():
        for row in np.flatnonzero(wrong_B).tolist():
            _put_aside(rows, row, columns.wrong_B[row], rules, dead, misrouted)
        dead.sort(key=lambda letter: (letter.source, letter.offset))
        rows = rows.kept(np.flatnonzero(~wrong_B))
        columns = columns_of(rows, rules, now_ms)
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


_WRONG = {
    Wrong.future: (Code.future, FUTURE),
    Wrong.seconds: (Code.seconds, f"event_time {SECONDS}"),
    Wrong.wrapped: (
        Code.malformed,
        "user_id or item_id is no plain id, but what a serialiser made of one or left in it",
    ),
    Wrong.no_item: (Code.missing_field, "item_id is missing"),
    Wrong.no_value: (Code.missing_field, "a rating without a value"),
    Wrong.no_decision: (Code.missing_field, "ad is set, and neither decision_id nor slate_id with slot is"),
}


def _put_aside(
    rows: Rows, row: int, code: int, rules: Rules, dead: list[DeadLetter], misrouted: list[Misrouted]
) -> None:
    record, source = rows.records[row], rows.sources[rows.source_B[row]]
    if code != Wrong.misrouted:
        dead.append(DeadLetter(source, record.offset, record, *_WRONG[Wrong(code)]))
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
