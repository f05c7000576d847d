import json

import pytest

from embeddings.events import Source
from embeddings.item_columns import FOREVER_S
from streams.contract.catalogue_records import CatalogueFacts, read_catalogue
from streams.contract.consent import Judge
from streams.contract.deadletters import Code, DeadLetter
from streams.contract.parsing import Rules
from tests.streams.builders import NOW_MS, Raw

CATALOG = Source("catalog", 0)
RULES = Rules(judge=Judge(0))


def read(*values: tuple[bytes | None, bytes | None]) -> tuple[list[CatalogueFacts], list[str], list[DeadLetter]]:
    """A fetch of (key, value) pairs."""
    return read_catalogue(CATALOG, [Raw(offset, value, key) for offset, (key, value) in enumerate(values)], RULES)


def names(kept: list[CatalogueFacts]) -> list[str]:
    return [item.facts.name for item in kept]


def test_of_the_records_of_an_item_the_last_counts() -> None:
    kept, removed, dead = read(
        (b"m1", b'{"item_id":"m1","title":"old"}'),
        (b"m2", None),
        (b"m2", b'{"title":"B","categories":["x"],"year":1999}'),
        (b"m3", b'{"item_id":"m3"}'),
        (b"m3", None),
        (b"m4", b"{"),
        (b"other", b'{"item_id":"m1","title":"new"}'),
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
    times = json.dumps({"available_from": NOW_MS + 500, "available_until": NOW_MS + 1_500}).encode()
    kept, _, _ = read((b"a", times), (b"b", b'{"item_id":"b","available_from":0}'))
    limited, free = (item.facts for item in kept)
    assert (limited.available_from_s, limited.available_until_s) == (NOW_MS // 1000 + 1, NOW_MS // 1000 + 1)
    assert (free.available_from_s, free.available_until_s) == (0, FOREVER_S)
    assert free.added_s == NOW_MS // 1000


@pytest.mark.parametrize("field", ["available_from", "available_until"])
def test_availability_in_seconds_would_hide_an_item_or_show_it_for_ever(field: str) -> None:
    _, _, dead = read((b"a", json.dumps({field: NOW_MS // 1000}).encode()))
    assert [letter.code for letter in dead] == [Code.seconds]
    assert field in dead[0].detail


@pytest.mark.parametrize(
    ("said", "languages"),
    [
        ({}, ()),
        ({"language": "pt-BR"}, ("pt",)),
        ({"language": "Deutsch"}, ()),
        ({"language": "ja", "languages": ["de", "EN-us", "zh-Hant-TW"]}, ("de", "en", "zh")),
        ({"language": "de", "languages": None}, ("de",)),
        ({"languages": ["zxx"]}, ()),
        ({"languages": ["und", "iw"]}, ("he",)),
    ],
)
def test_an_item_can_be_followed_in_the_languages_that_it_says(
    said: dict[str, object], languages: tuple[str, ...]
) -> None:
    kept, _, dead = read((b"a", json.dumps({"title": "A"} | said).encode()))
    assert not dead
    assert kept[0].facts.languages == languages


@pytest.mark.parametrize(
    "tag", ["German", "de_DE", "d", "", "de-", "de-123456789", "x-de", "de\n", "*", "de,en", 4, None]
)
def test_a_tag_that_is_none_is_refused_by_name(tag: object) -> None:
    kept, removed, (letter,) = read((b"a", json.dumps({"title": "A", "languages": ["en", tag]}).encode()))
    assert (kept, removed, letter.code) == ([], [], Code.malformed)
    assert "languages" in letter.detail
    assert "German" not in letter.detail


def test_an_item_is_as_old_as_its_record_says_if_a_clock_can_say_that() -> None:
    records = [
        Raw(n, b'{"title":"A"}', b"a%d" % n, timestamp=at) for n, at in enumerate((NOW_MS, 5, -1, NOW_MS * 1000))
    ]
    kept, _, _ = read_catalogue(CATALOG, records, RULES)
    assert [item.facts.added_s for item in kept] == [NOW_MS // 1000, 1, 1, 1]


def test_a_record_that_names_no_item_is_dead_lettered() -> None:
    titled = b'{"title":"A"}'
    kept, removed, dead = read((None, titled), (b"", None), (b"\xff", titled), (b"null", None), (b"ok", b'{"year":-4}'))
    codes = [Code.missing_field, Code.missing_field, Code.bad_utf8, Code.missing_field]
    assert [letter.code for letter in dead] == codes
    assert [(item.facts.name, item.facts.year) for item in kept] == [("ok", 0)]
    assert removed == []


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (b"{}", ""),
        (b'{"id":"m1","name":"Film"}', ""),
        (b'{"type":"delete","data":{"item_id":"m1"}}', ""),
        (b'{"item_id":null,"title":null}', ""),
        (b'{"schema":{"type":"struct"},"payload":{"item_id":"m1"}}', "schemas.enable=false"),
        (b'{"schema":null,"payload":null}', "schemas.enable=false"),
        (b'{"before":{"item_id":"m1"},"after":null,"op":"d"}', "ExtractNewRecordState"),
        (b'{"specversion":"1.0","id":"1","data":{"item_id":"m1"}}', "content-type"),
        (b'{"item_id":"m1","before":{"item_id":"m1"},"after":null}', "ExtractNewRecordState"),
        (b'{"item_id":"m1","title":"A","before":null,"after":{"title":"A"},"op":"c"}', "ExtractNewRecordState"),
        (b'{"item_id":"m1","before":{"title":"A"},"after":null,"__op":"d"}', "ExtractNewRecordState"),
        (b'{"item_id":"m1","schema":{},"payload":null}', "schemas.enable=false"),
        (b'{"__deleted":"false"}', ""),
        (b'{"deleted":false,"__op":"u","op":"c","__deleted":false}', ""),
    ],
)
def test_a_record_without_any_field_of_an_item_is_no_item(value: bytes, advice: str) -> None:
    kept, removed, (letter,) = read((b"m1", value))
    assert (kept, removed, letter.code) == ([], [], Code.missing_field)
    assert advice in letter.detail


@pytest.mark.parametrize(
    "key",
    [
        b'"m1"',
        b'{"id":"m1"}',
        b'["m1"]',
        b'{"schema":{"type":"string"},"payload":"m1"}',
        b'\0\0\0\0*"m1"',
        b"\0\0\0\0*\x04m1",
        b"\0\0\0\0\0\0\0*",
        b"Struct{id=m1}",
        b"{id=m1, tenant=2}",
        b' "m1"',
        b'\n{"id":"m1"}\n',
    ],
)
def test_a_key_that_a_serialiser_wrapped_is_told_and_removes_nothing(key: bytes) -> None:
    for value in (None, b'{"title":"A"}'):
        kept, removed, (letter,) = read((key, value))
        assert (kept, removed, letter.code) == ([], [], Code.malformed)
        assert "key.converter" in letter.detail
        assert "m1" not in letter.detail


def test_an_item_whose_key_is_another_is_removed_by_that_key() -> None:
    """The topic holds one record a key: what stands under it is gone when the key is."""
    aliases: dict[bytes, str] = {}

    def then(key: bytes, value: bytes | None) -> tuple[list[str], list[str]]:
        kept, removed, dead = read_catalogue(CATALOG, [Raw(0, value, key)], RULES, aliases)
        assert not dead
        return names(kept), removed

    assert then(b'"m1"', b'{"item_id":"m1"}') == (["m1"], [])
    assert then(b"row-7", b'{"item_id":"m2"}') == (["m2"], [])
    assert then(b"row-7", b'{"item_id":"m3"}') == (["m3"], ["m2"])
    assert then(b'"m1"', None) == ([], ["m1"])
    assert then(b"row-7", b'{"__deleted":"true","title":"T"}') == ([], ["m3"])
    assert not aliases


@pytest.mark.parametrize(
    "gone",
    [
        *(None, b"", b"null", b" null ", b'{"__deleted":"true"}', b'{"__deleted":true,"year":1}'),
        *(b'{"__deleted":"True","title":"A"}', b'{"__deleted":1,"title":"A"}', b'{"__deleted":"1","title":"A"}'),
        *(b'{"deleted":true}', b'{"item_id":"m1","deleted":true,"title":"A"}', b'{"deleted":"t"}', b'{"deleted":1}'),
        *(b'{"__op":"d"}', b'{"__op":"d","__deleted":"false","title":"A"}', b'{"op":"DELETE","item_id":"m1"}'),
        *(b'{"__deleted":"Yes"}', b'{"deleted":null,"__op":"d"}'),
    ],
)
def test_what_means_gone_removes(gone: bytes | None) -> None:
    assert read((b"m1", b'{"title":"A"}'), (b"m1", gone)) == ([], ["m1"], [])


@pytest.mark.parametrize("word", ["false", "f", "0", "no", "", False, 0, None])
def test_what_says_that_it_is_there_is_kept(word: object) -> None:
    value = json.dumps({"title": "A", "deleted": word, "__deleted": word, "op": "u", "__op": "r"}).encode()
    kept, removed, dead = read((b"m1", value))
    assert (names(kept), removed, dead) == (["m1"], [], [])


@pytest.mark.parametrize("word", ["perhaps", "2026-01-01T00:00:00Z", NOW_MS, {"by": "me"}, [True]])
def test_a_flag_that_says_neither_is_told(word: object) -> None:
    kept, removed, (letter,) = read((b"m1", json.dumps({"title": "A", "deleted": word}).encode()))
    assert (kept, removed, letter.code) == ([], [], Code.malformed)
    assert "neither true nor false" in letter.detail


def test_a_null_member_reads_as_one_that_is_absent() -> None:
    fields = ("title", "text", "categories", "creators", "year", "territories", "available_until", "embedding")
    nulls = json.dumps({"item_id": "n1"} | dict.fromkeys(fields)).encode()
    kept, _, (letter,) = read((b"n1", nulls), (b"n2", b'{"item_id":null,"title":"Two","categories":[null]}'))
    assert names(kept) == ["n1"]
    assert (letter.offset, letter.code) == (1, Code.malformed)


def test_what_nobody_rated_is_told_from_what_is_for_all_ages() -> None:
    said = [b"null", b'"G"', b'" "']
    kept, _, _ = read(*((b"m%d" % n, b'{"title":"A","rating":%s}' % one) for n, one in enumerate(said)))
    assert [(item.facts.age, item.facts.rated) for item in kept] == [(0, False), (0, True), (0, False)]
