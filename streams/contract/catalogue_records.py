"""Catalogue records as item facts."""

from collections.abc import Sequence
from typing import NamedTuple

from embeddings.events import Source
from embeddings.items import FOREVER_S, ItemFacts
from streams.contract.deadletters import DeadLetter
from streams.contract.messages import RawRecord
from streams.contract.parsing import Rules, Unreadable, read, user_of
from streams.contract.records import Item, decode_item


class CatalogueFacts(NamedTuple):
    """An item's facts and the record they came with."""

    facts: ItemFacts
    source: Source
    record: RawRecord


def read_catalogue(
    source: Source, records: Sequence[RawRecord], rules: Rules
) -> tuple[list[CatalogueFacts], list[str], list[DeadLetter]]:
    """The last word on each item of a fetch: facts, names of removed items, and what could not be read.

    `item_id` may be left to the key.
    """
    good, dead = read(source, records, decode_item, rules, compacted=True)
    latest: dict[str, CatalogueFacts | None] = {}
    for record, item in good:
        try:
            name = user_of(record, item.item_id if item else "")
        except Unreadable as error:
            dead.append(DeadLetter(source, record.offset, record, error.code, error.detail))
            continue
        latest[name] = CatalogueFacts(facts_of(item, name, record.timestamp // 1000), source, record) if item else None
    kept = [facts for facts in latest.values() if facts is not None]
    return kept, [name for name, facts in latest.items() if facts is None], dead


def facts_of(item: Item, name: str, added_s: int) -> ItemFacts:
    """What ranking needs of a catalogue record. Limits of availability are whole seconds inside those given."""
    return ItemFacts(
        name=name,
        title=item.title,
        categories=item.categories,
        year=item.year if item.year is not None and 0 < item.year < 10_000 else 0,
        available_from_s=-(-(item.available_from or 0) // 1000),
        available_until_s=FOREVER_S if item.available_until is None else item.available_until // 1000,
        added_s=max(added_s, 1),
    )
