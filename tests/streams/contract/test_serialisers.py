import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.events import CONSENT_ALL, Source
from streams.contract.catalogue_records import read_catalogue
from streams.contract.consent import Judge
from streams.contract.deadletters import Code
from streams.contract.decode import decode
from streams.contract.parsing import Rules, Unreadable, read, user_of
from streams.contract.records import decode_request
from streams.contract.serialisers import all_fit, unfit
from tests.fuzzing import fuzz
from tests.streams.builders import NOW_MS, Raw

RULES = Rules(judge=Judge(CONSENT_ALL))
MARKED = ["\ufeffu1", "u\ufeff1"]
CONTROLLED = ["u1\n", "u1\r", "\ru1", "\x07", "\x1b[0m", "u\x7f", "u\x85", *(chr(c) for c in range(32) if c != 9)]
PRINTED = [
    *("Struct{id=m1}", "Struct{}", "Struct{id=m1", "Struct{a.id=1,b={c=2}}", "{id=m1", "{tenant-id=2, id=m1}"),
    *("[B@6d06d69c", "[Ljava.lang.String;@1b", "[object Object]", "b'u1'", 'b"u1"'),
]
PIECES = ['{"id":"m1', '{"id', "{", "[", '["m1', "[1,2", '"m1', '"m\\"1', 'm1"}', '1"]', 'id":"m1', ' {"id":', "[{"]
BINARY = [
    number.decode()
    for width, values in ((">q", range(3)), ("<q", (1, 77)), (">i", (1, 65_536)), ("<i", (7, 300_000)), (">h", (5,)))
    for number in (struct.pack(width, value) for value in values)
    if number.isascii()
]
FINE = [
    *('say "hi"', '"hello" she said', "[rec]", "{3F2504E0-4F89-11D3}", "tab\tinside", "two\nlines", "00042", "a|b"),
    *("..", "100%", "ü-日本-😀", "a b", "o'brien", "b'", "x=1", "{x}", "a\u200db", "null and void", "u:1", "7"),
]


@pytest.mark.parametrize("name", [*MARKED, *CONTROLLED, *PRINTED, *PIECES, *BINARY])
def test_what_a_serialiser_left_is_no_id_wherever_it_stands(name: str) -> None:
    assert unfit(name)
    assert not all_fit(["u1", name])
    assert not all_fit(["u1"] * 200 + [name])
    good = {"type": "play", "event_time": NOW_MS, "user_id": "u1", "item_id": "m1"}
    events = [
        Raw(0, json.dumps(good | {"user_id": name}).encode()),
        Raw(1, json.dumps(good | {"item_id": name}).encode()),
        Raw(2, json.dumps(good | {"user_id": None}).encode(), name.encode()),
        Raw(3, json.dumps(good).encode(), name.encode()),
    ]
    decoded = decode([(Source("events", 0), events)], RULES, NOW_MS)
    assert [(letter.offset, letter.code) for letter in decoded.dead] == [(n, Code.malformed) for n in range(3)]
    assert decoded.batch.user_ids == ("u1",)
    items = [Raw(0, json.dumps({"item_id": name}).encode()), Raw(1, b'{"title":"A"}', name.encode())]
    kept, removed, dead = read_catalogue(Source("catalog", 0), [*items, Raw(2, None, name.encode())], RULES)
    assert (kept, removed, [letter.code for letter in dead]) == ([], [], [Code.malformed] * 3)
    asked = Raw(0, json.dumps({"request_id": "r", "user_id": name}).encode())
    (_, request), *_ = read(Source("requests", 0), [asked], decode_request, RULES)[0]
    assert request is not None
    with pytest.raises(Unreadable, match=r"the id is .*, not a plain one"):
        user_of(asked, request.user_id)


@pytest.mark.parametrize("name", FINE)
def test_plain_ids_may_look_odd(name: str) -> None:
    assert unfit(name) is None
    assert all_fit(["u1", name])
    assert all_fit(["u1"] * 200 + [name])


@given(st.text(min_size=1, max_size=20), st.sampled_from([*MARKED, *PIECES, "\n", "\0"]))
@fuzz
def test_fuzz_many_are_judged_as_each_is(name: str, odd: str) -> None:
    for some in ([name], [name, odd], [name + odd], [odd + name]):
        assert all_fit(some) == (not any(map(unfit, some)))


@given(
    st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda of: st.dictionaries(st.text(max_size=5), of))
)
@fuzz
def test_fuzz_no_beginning_of_an_object_is_an_id(content: object) -> None:
    whole = json.dumps({"id": content})
    assert all(unfit(whole[:length]) for length in range(1, len(whole) + 1))
