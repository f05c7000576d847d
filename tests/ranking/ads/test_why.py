"""Why this ad: the line item's words, and nothing that only the person's would tell."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.ads.campaigns import Creative
from ranking.ads.predicates import ANY_MOST, And, Between, DayPart, Domain, In, Near, Not, Opportunity, Or, Prefix, Saw
from ranking.ads.why import MOST_LEAVES, matched, said, transparency

HERE = Opportunity(
    now_ms=1_750_000_000_000, words={"country": ("DE",), "segment": ("secret", "cars")}, numbers={"content_len": 5_400},
    place=(52.5, 13.4), utcoffset=0, seen={7: 1_749_999_000},
)  # fmt: skip


def weekend(*hours: int) -> int:
    return sum(1 << (day * 24 + hour) for day in (5, 6) for hour in hours)


@pytest.mark.parametrize(
    ("leaf", "words", "opposite"),
    [
        (In.of("country", "us"), "country is us", "country is not us"),
        (In.of("kv.section", "a", "b"), "section is one of a, b", "section is not one of a, b"),
        (In.of("country", *"abcdefg"), "country is one of a, b, c, d, e and 2 more", None),
        (Prefix("tagid", "home_"), "tagid begins with home_", "tagid does not begin with home_"),
        (Domain("domain", "a.example"), "domain is a.example or below it", "domain is not a.example or below it"),
        (Between("w", 300, 300), "w is 300", "w is not 300"),
        (Between("content_len", 60, ANY_MOST), "content_len is at least 60", None),
        (Between("content_len", 60, 90), "content_len is from 60 to 90", None),
        (Near(52.52, 13.4, 5), "within 5 km of 52.52, 13.4", "not within 5 km of 52.52, 13.4"),
        (DayPart(weekend(*range(18, 24), 2)), "Sat, Sun 2-3, 18-24", "not Sat, Sun 2-3, 18-24"),
        (Saw("category", "noir", 3_600, 1), "took category noir in the last 1 hour", None),
    ],
)
def test_leaves_are_told_in_the_words_of_the_line_item(leaf: Any, words: str, opposite: str | None) -> None:
    assert said(leaf) == words
    assert opposite is None or said(leaf, wanted=False) == opposite


def test_only_what_matched_is_told() -> None:
    wanted = And((Or((In.of("country", "de", "at"), In.of("os", "ios"))), Not(In.of("genre", "horror"))))
    assert matched(wanted, HERE) == ("country is one of at, de", "genre is not horror")
    assert matched(And(()), HERE) == ()


LEAVES = st.one_of(
    st.builds(lambda words: In.of("segment", *words), st.lists(st.sampled_from(["cars", "travel"]), min_size=1)),
    st.just(Between("content_len", 60, ANY_MOST)),
    st.just(Near(52.0, 13.0, 500)),
    st.just(Saw("item", "m1", 10**7, 7)),
)


@given(st.lists(LEAVES, min_size=1, max_size=4).map(tuple), st.booleans())
def test_nothing_of_the_profile_is_told_beyond_what_was_asked(leaves: tuple[Any, ...], either: bool) -> None:
    told = " ".join(matched((Or if either else And)(leaves), HERE))
    assert "secret" not in told
    assert "5400" not in told
    assert "52.5" not in told
    assert "DE" not in told


def test_a_long_story_is_cut() -> None:
    many = And(tuple(Not(In.of("country", f"x{n}")) for n in range(40)))
    assert len(matched(many, HERE)) == MOST_LEAVES


def test_transparency_is_the_creatives_own() -> None:
    plain = Creative(key="k", crid="c", approved=True)
    assert transparency(plain) == {}
    told = ({"domain": "a.example", "dsaparams": [1]},)
    full = Creative(key="k", crid="c", approved=True, behalf="Acme", paid="Agency", transparency=told)
    assert transparency(full) == {"behalf": "Acme", "paid": "Agency", "transparency": told}
