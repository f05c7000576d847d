from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.lab.fields import LONGEST, UNITS, Unusable, convert

AT_S = 1_767_225_600
anything: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["$date", "$oid", "$numberLong", "$numberDouble", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@pytest.mark.parametrize(
    ("written", "ms", "unit"),
    [
        (AT_S, AT_S * 1000, "seconds"),
        (f" {AT_S}.25 ", AT_S * 1000 + 250, "seconds"),
        (1.7672256e9, AT_S * 1000, "seconds"),
        ("1.767225600E9", AT_S * 1000, "seconds"),
        (str(AT_S * 10**3 + 1), AT_S * 1000 + 1, "milliseconds"),
        (AT_S * 10**6, AT_S * 1000, "microseconds"),
        (str(AT_S * 10**9 + 999), AT_S * 1000, "nanoseconds"),
        (0, 0, "seconds"),
        ("2026-01-01", AT_S * 1000, "calendar times"),
        ("2026-01-01 00:00:00.5 ", AT_S * 1000 + 500, "calendar times"),
        ("2026-01-01T01:00:00+01:00", AT_S * 1000, "calendar times"),
        ("2026-01-01 00:00:00 UTC", AT_S * 1000, "calendar times"),
        ("20260101T000000Z", AT_S * 1000, "calendar times"),
        ("2026-01-01T00:00:00.123456789Z", AT_S * 1000 + 123, "calendar times"),
        ({"$date": "2026-01-01T00:00:00.069Z"}, AT_S * 1000 + 69, "calendar times"),
        ({"$date": {"$numberLong": str(AT_S * 1000)}}, AT_S * 1000, "calendar times"),
        ({"$date": 5}, 5, "calendar times"),
        ({"$numberLong": str(AT_S)}, AT_S * 1000, "seconds"),
        (None, 0, ""),
        ("", 0, ""),
    ],
)
def test_a_time_is_read_in_its_unit(written: Any, ms: int, unit: str) -> None:
    assert convert("u", "i", None, written)[3:] == (ms, unit)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("n/a", "timestamp is 'n/a'; seconds to nanoseconds since 1970, or ISO 8601"),
        ("01/01/2026 00:00", "ISO 8601"),
        ("NULL", "timestamp is 'NULL'"),
        ("1_767_225_600", "timestamp is"),
        ("1767225600,5", "timestamp is"),
        ("１７６７２２５６００", "timestamp is"),
        (True, "timestamp is True"),
        (float("inf"), "timestamp is inf"),
        (float("nan"), "timestamp is nan"),
        ("1e400", "timestamp is '1e400'"),
        (10**20, "timestamp is 1000"),
        (-1, "timestamp is -1, before 1970"),
        ("-0.5", "before 1970"),
        ("1969-12-31", "before 1970"),
        ({"$date": {"$numberLong": "-1"}}, "before 1970"),
        ({"$date": 10**18}, "after the year 9999"),
        ("20260101", "looks like a date"),
        (20260101120000, "looks like a date"),
        ("1.76723E+09", "a spreadsheet shortens"),
        ({"$timestamp": {"t": 1, "i": 1}}, r"timestamp is an object \{'\$timestamp'"),
        ([1], r"timestamp is an array \[1\]"),
    ],
)
def test_what_is_no_time_is_named_with_what_is_wanted(written: Any, said: str) -> None:
    with pytest.raises(Unusable, match=said):
        convert("u", "i", None, written)


@pytest.mark.parametrize(
    "name",
    ["00042", "7.0", "a,b", 'say"hi"', "..", "100%", "ü-日本-😀", "two\nlines", " padded", "x" * LONGEST, "Nina"],
)
def test_an_id_is_kept_as_it_is(name: str) -> None:
    assert convert(name, name, 1, AT_S)[:2] == (name, name)


def test_an_id_may_be_a_whole_number_or_an_object_id() -> None:
    assert convert(7, {"$oid": "00ff"}, 1, AT_S)[:2] == ("7", "00ff")
    assert convert({"$numberLong": "7"}, 2**70, 1, AT_S)[:2] == ("7", str(2**70))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (None, "is missing"),
        ("", "is '', which is empty"),
        ("  ", "which is empty"),
        (True, "is True; text or a whole number is wanted"),
        (7.0, "is 7.0; text or a whole number is wanted"),
        ({"id": 1}, "is an object"),
        (["a"], "is an array"),
        ("x" * (LONGEST + 1), "has 513 characters; at most 512"),
        ("bob\ud83d", "half a character"),
        ('{"id":"m2"}', "JSON text"),
        ('"u2"', "JSON text"),
        ('{"id":"m', "a piece of JSON text"),
        ("Struct{id=m}", "a printed structure"),
        ("\ufeffm", "text with a byte order mark"),
        ("m\0", "control characters"),
        ("None", "as a missing value is printed"),
        ("\\N", "as a missing value is printed"),
        ("1.23457E+15", "as a spreadsheet shortens"),
    ],
)
def test_what_is_no_id_is_named_with_what_is_wanted(name: Any, said: str) -> None:
    for field, ids in (("user_id", (name, "i")), ("item_id", ("u", name))):
        with pytest.raises(Unusable, match=f"{field} .*{said}"):
            convert(*ids, 1, AT_S)


def test_a_rating_is_a_finite_number_or_nothing() -> None:
    written = [4, "4.5", " 3 ", "-1", {"$numberInt": "4"}, {"$numberDouble": "2.5"}, None, ""]
    assert [convert("u", "i", rating, AT_S)[2] for rating in written] == [4, 4.5, 3, -1, 4, 2.5, 0, 0]
    for wrong in ("NULL", "good", "4,5", "nan", float("inf"), 3.1e38, "1e39", 10**400, True, [4], {"$numberInt": []}):
        with pytest.raises(Unusable, match=r"rating is .*; a finite number is wanted"):
            convert("u", "i", wrong, AT_S)


@given(anything, anything, anything, anything)
def test_whatever_a_field_holds_is_read_or_refused_on_one_line(user: Any, item: Any, rating: Any, time: Any) -> None:
    said = ""
    try:
        user, item, rating, time_ms, unit = convert(user, item, rating, time)
    except Unusable as error:
        said = str(error)
    if said:
        assert said.isprintable()
        assert said.startswith(("user_id is ", "item_id is ", "rating is ", "timestamp is "))
    else:
        assert user.encode()
        assert item.encode()
        assert abs(rating) <= 3e38
        assert time_ms >= 0
        assert unit in UNITS
