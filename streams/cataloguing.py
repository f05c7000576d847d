"""Catalogue records as item facts."""

from collections.abc import Sequence
from typing import NamedTuple

from embeddings.events import Source
from embeddings.items import FOREVER_S, ItemFacts
from streams.deadletters import Code, DeadLetter
from streams.reading import Rules, read
from streams.records import Item, RawRecord, decode_item


class CatalogueFacts(NamedTuple):
    """An item's facts and the record they came with."""

    facts: ItemFacts
    source: Source
    record: RawRecord


def read_catalogue(
    source: Source, records: Sequence[RawRecord], rules: Rules
) -> tuple[list[CatalogueFacts], list[str], list[DeadLetter]]:
    """The last word on each item of a fetch: facts, names of removed items, and what could not be read."""
    good, dead = read(source, records, decode_item, rules, compacted=True)
    latest: dict[str, CatalogueFacts | None] = {}
    for record, item in good:
        name = (item.item_id if item else "") or (record.key or b"").decode("utf-8", "replace")
        if not name:
            dead.append(DeadLetter(source, record.offset, record, Code.missing_field, "neither item_id nor a key"))
            continue
        latest[name] = CatalogueFacts(_facts(name, item, record), source, record) if item else None
    kept = [facts for facts in latest.values() if facts is not None]
    return kept, [name for name, facts in latest.items() if facts is None], dead


def _facts(name: str, item: Item, record: RawRecord) -> ItemFacts:
    return ItemFacts(
        name=name,
        title=item.title,
        categories=item.categories,
        year=item.year or 0,
        available_from_s=(item.available_from or 0) // 1000,
        available_until_s=item.available_until // 1000 if item.available_until is not None else FOREVER_S,
        added_s=max(record.timestamp // 1000, 1),
    )
