from embeddings.events import Source
from embeddings.items import FOREVER_S
from streams.contract.catalogue_records import CatalogueFacts, read_catalogue
from streams.contract.consent import Judge
from streams.contract.deadletters import Code, DeadLetter
from streams.contract.parsing import Rules
from tests.streams.builders import NOW_MS, Raw

CATALOG = Source("catalog", 0)


def read(*values: tuple[bytes | None, bytes | None]) -> tuple[list[CatalogueFacts], list[str], list[DeadLetter]]:
    """A fetch of (key, value) pairs."""
    records = [Raw(offset, value, key) for offset, (key, value) in enumerate(values)]
    return read_catalogue(CATALOG, records, Rules(judge=Judge(0)))


def test_of_the_records_of_an_item_the_last_counts() -> None:
    kept, removed, dead = read(
        (b"m1", b'{"item_id":"m1","title":"old"}'),
        (b"m2", None),
        (b"m2", b'{"title":"B","categories":["x"],"year":1999}'),
        (b"m3", b'{"item_id":"m3"}'),
        (b"m3", None),
        (b"m4", b"{"),
        (b"other", b'{"item_id":"m1","title":"new","available_from":1500,"available_until":2500}'),
    )
    facts = [item.facts for item in kept]
    assert [(item.name, item.title, item.categories, item.year) for item in facts] == [
        ("m1", "new", (), 0),
        ("m2", "B", ("x",), 1999),
    ]
    assert [item.record.offset for item in kept] == [6, 2]
    assert removed == ["m3"]
    assert [(letter.source, letter.offset, letter.code) for letter in dead] == [(CATALOG, 5, Code.malformed)]


def test_availability_is_whole_seconds_inside_what_was_given() -> None:
    kept, _, _ = read((b"a", b'{"available_from":1500,"available_until":2500}'), (b"b", b"{}"))
    limited, free = (item.facts for item in kept)
    assert (limited.available_from_s, limited.available_until_s) == (2, 2)
    assert (free.available_from_s, free.available_until_s) == (0, FOREVER_S)
    assert free.added_s == NOW_MS // 1000


def test_a_record_that_names_no_item_is_dead_lettered() -> None:
    kept, removed, dead = read((None, b"{}"), (b"", None), (b"\xff", b"{}"), (b"ok", b'{"year":-4}'))
    assert [letter.code for letter in dead] == [Code.missing_field, Code.missing_field, Code.bad_utf8]
    assert [(item.facts.name, item.facts.year) for item in kept] == [("ok", 0)]
    assert removed == []
