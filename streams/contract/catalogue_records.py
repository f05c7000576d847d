"""Catalogue records as item facts."""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import structs

from embeddings.eligibility import age_of, language_of
from embeddings.events import Source
from embeddings.item_columns import FOREVER_S
from embeddings.items import ItemFacts
from streams.contract.deadletters import Code, DeadLetter
from streams.contract.messages import RawRecord
from streams.contract.parsing import SECONDS, Rules, Unreadable, published_ms, read, user_of
from streams.contract.records import Item, decode_item
from streams.contract.serialisers import enveloped, wrapped


class CatalogueFacts(NamedTuple):
    """An item's facts and the record they came with."""

    facts: ItemFacts
    source: Source
    record: RawRecord


def read_catalogue(
    source: Source, records: Sequence[RawRecord], rules: Rules, aliases: dict[bytes, str] | None = None
) -> tuple[list[CatalogueFacts], list[str], list[DeadLetter]]:
    """The last word on each item of a fetch: facts, names of removed items, and what could not be read.

    `item_id` may be left to the key. `aliases` are the keys of items that are called otherwise; a null under such a key
    removes the item it brought. It is kept up to date.
    """
    good, dead = read(source, records, decode_item, rules, compacted=True)
    aliases = {} if aliases is None else aliases
    latest: dict[str, CatalogueFacts | None] = {}
    for record, item in good:
        try:
            if around := enveloped(record.value or b""):
                raise Unreadable(Code.missing_field, f"no item, but {around}")
            if item is None or item.gone:
                latest[_removed(record, item, aliases)] = None
            else:
                name, facts = _kept(record, item, rules)
                if before := _renamed(record.key or b"", name, aliases):
                    latest[before] = None
                latest[name] = CatalogueFacts(facts, source, record)
        except Unreadable as error:
            dead.append(DeadLetter(source, record.offset, record, error.code, error.detail))
    kept = [facts for facts in latest.values() if facts is not None]
    return kept, [name for name, facts in latest.items() if facts is None], dead


def _removed(record: RawRecord, item: Item | None, aliases: dict[bytes, str]) -> str:
    return aliases.pop(record.key or b"", None) or user_of(record, item.item_id if item else None)


def _renamed(key: bytes, name: str, aliases: dict[bytes, str]) -> str:
    """Take down what a key's item is called; returns what the item was called that the key had before, if another."""
    before = aliases.pop(key, name)
    if key and key != name.encode():
        aliases[key] = name
    return "" if before == name else before


def _kept(record: RawRecord, item: Item, rules: Rules) -> tuple[str, ItemFacts]:
    """An item's name and facts.

    Raises:
        Unreadable: It is no item or may be none, names none, or its times are no milliseconds. Dead-letter it.
    """
    if item.gone is None:
        raise Unreadable(Code.malformed, "deleted is neither true nor false: is the item gone? null removes one")
    named = item.item_id or item.title
    if not named and structs.replace(item, row_deleted=None, deleted=None, row_op=None, op=None) == _NOTHING:
        around = wrapped(record.value or b"")
        raise Unreadable(Code.missing_field, f"no field of an item; {around}" if around else "no field of an item")
    name = user_of(record, item.item_id)
    for which, time_ms in (("available_from", item.available_from), ("available_until", item.available_until)):
        if 0 < (time_ms or 0) < rules.first_ms:
            raise Unreadable(Code.seconds, f"{which} {SECONDS}")
    return name, facts_of(item, name, published_ms(record, rules, 0) // 1000)


_NOTHING = Item()


def facts_of(item: Item, name: str, added_s: int) -> ItemFacts:
    """What ranking needs of a catalogue record. Limits of availability are whole seconds inside those given.

    An item that does not say in which languages it can be followed can be in the one that it is in.
    """
    tags = item.languages or (item.language,)
    return ItemFacts(
        name=name,
        title=item.title,
        categories=item.categories,
        makers=(*((item.series,) if item.series else ()), *item.creators),
        language=item.language or "",
        year=item.year if item.year is not None and 0 < item.year < 10_000 else 0,
        available_from_s=-(-(item.available_from or 0) // 1000),
        available_until_s=FOREVER_S if item.available_until is None else item.available_until // 1000,
        added_s=max(added_s, 1),
        territories=item.territories or (),
        surfaces=item.surfaces or (),
        languages=tuple(language for tag in tags if (language := language_of(tag))),
        age=age_of(item.rating),
        hidden=bool(item.hidden or item.blocked),
        length_s=max(item.duration_s or 0.0, 0.0),
        rated=bool(item.rating and item.rating.strip()),
    )
