"""What each leaf means, by example; the index and the evaluator give the same answer to every one."""

import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.ads.predicates import (
    ALWAYS,
    ANY_LEAST,
    ANY_MOST,
    And,
    Between,
    DayPart,
    Domain,
    In,
    Known,
    Near,
    Not,
    Opportunity,
    Or,
    Predicate,
    Prefix,
    Saw,
    except_for,
    fold,
    holds,
    met,
)  # fmt: skip
from ranking.ads.targeting import Targeting
from ranking.errors import TargetingRefused
from tests.fuzzing import fuzz

NOW_MS = 1_750_000_000_000
NOW_S = NOW_MS // 1000
BERLIN = (52.52, 13.405)
ADULT = Between("content_rating", 17, ANY_MOST)


def at(**known: object) -> Opportunity:
    return Opportunity(now_ms=NOW_MS, **known)


def words(**known: list[str]) -> Opportunity:
    return at(words={name.replace("kv_", "kv."): said for name, said in known.items()})


def seen(ago_s: int) -> Opportunity:
    return at(seen={5: NOW_S - ago_s})


GOLDEN: list[tuple[Predicate, Opportunity, bool]] = [
    (ALWAYS, at(), True),
    (Or(()), at(), False),
    (In.of("country", "US", "ca"), words(country=["Us"]), True),
    (In.of("country", "US", "ca"), words(country=["mx"]), False),
    (In.of("country", "US"), at(), False),
    (Not(In.of("country", "US")), at(), True),
    (Not(In.of("country", "US")), words(country=[]), True),
    (except_for(In.of("country", "US")), at(), False),
    (except_for(In.of("country", "US")), words(country=[]), True),
    (except_for(In.of("country", "US")), words(country=["ca"]), True),
    (except_for(In.of("country", "US")), words(country=["us"]), False),
    (In.of("country"), words(country=["us"]), False),
    (Not(In.of("country")), words(country=["us"]), True),
    (Not(Not(Not(In.of("country", "us")))), words(country=["us"]), False),
    (And((In.of("genre", "drama"), In.of("genre", "crime"))), words(genre=["crime", "drama"]), True),
    (And((In.of("genre", "drama"), In.of("genre", "crime"))), words(genre=["crime"]), False),
    (And((In.of("genre", "drama"), Not(In.of("genre", "crime")))), words(genre=["crime", "drama"]), False),
    (In.of("city", "ZÜRICH"), words(city=["Zu\u0308rich"]), True),
    (In.of("kv.street", "straße"), words(kv_street=["STRASSE"]), True),
    (In.of("kv.mood", "😀"), words(kv_mood=["😀"]), True),
    (In.of("kv.mood", "\ud800"), words(kv_mood=["\ud800"]), True),
    (Not(In.of("kv.sport", "golf")), words(kv_section=["golf"]), True),
    (And((In.of("kv.a", "1", "2"), In.of("kv.b", "1"))), words(kv_a=["2"], kv_b=["1"]), True),
    (And((In.of("kv.a", "1", "2"), In.of("kv.b", "1"))), words(kv_a=["2"], kv_b=["2"]), False),
    (In.of("segment", "s63"), words(segment=[f"s{n}" for n in range(64)]), True),
    (Prefix("tagid", "home/"), words(tagid=["HOME/top"]), True),
    (Prefix("tagid", "home/"), words(tagid=["home"]), False),
    (Prefix("tagid", "home"), words(tagid=["home"]), True),
    (Prefix("tagid", "home"), words(tagid=["at-home"]), False),
    (Domain("domain", "news.example"), words(domain=["News.Example"]), True),
    (Domain("domain", "news.example"), words(domain=["a.news.example"]), True),
    (Domain("domain", "news.example"), words(domain=["fakenews.example"]), False),
    (Domain("domain", "news.example"), words(domain=["example"]), False),
    (Between("content_len", 60, 120), at(numbers={"content_len": 60}), True),
    (Between("content_len", 60, 120), at(numbers={"content_len": 120}), True),
    (Between("content_len", 60, 120), at(numbers={"content_len": 121}), False),
    (Between("content_len", ANY_LEAST, 120), at(numbers={"content_len": -5}), True),
    (Between("content_len", ANY_LEAST, 120), at(), False),
    (ADULT, at(numbers={"content_rating": 2**63}), False),
    (Known("content_rating"), at(numbers={"content_rating": 2**63}), False),
    (Not(ADULT), at(), True),
    (except_for(ADULT), at(), False),
    (except_for(ADULT), at(numbers={"content_rating": 12}), True),
    (Near(*BERLIN, 30), at(place=(52.3906, 13.0645)), True),
    (Near(*BERLIN, 26), at(place=(52.3906, 13.0645)), False),
    (Near(0, 179.99, 3), at(place=(0, -179.99)), True),
    (Near(90, 0, 1), at(place=(90, 123)), True),
    (Near(89.9, 0, 30), at(place=(89.9, 180)), True),
    (Near(70, 10, 100), at(place=(70, 12.6)), True),
    (Near(0, -180, 2), at(place=(0, 180)), True),
    (Near(-0.001, 0.001, 1), at(place=(0.001, -0.001)), True),
    (Near(0, 0, 20_016), at(place=(0, 180)), True),
    (Near(*BERLIN, 20_040), at(place=(math.nan, 0)), False),
    (Near(*BERLIN, 20_040), at(place=(0, 181)), False),
    (Known("geo"), at(place=(0, 181)), False),
    (except_for(Near(*BERLIN, 30)), at(), False),
    (except_for(Near(*BERLIN, 30)), at(place=(0, 0)), True),
    (Saw("item", "film", 60, 5), seen(60), True),
    (Saw("item", "film", 60, 5), seen(61), False),
    (Saw("item", "film", 60, 5), seen(-2), True),
    (Saw("item", "film", 60, 6), seen(1), False),
    (Not(Saw("item", "film", 60, 5)), seen(61), True),
    (Not(Saw("item", "film", 60, 5)), at(), True),
    (except_for(Saw("item", "film", 60, 5)), at(), False),
    (except_for(Saw("item", "film", 60, 5)), at(seen={}), True),
    (Known("history"), at(seen={}), True),
    (Known("utcoffset"), at(utcoffset=0), True),
    (Known("utcoffset"), at(utcoffset=1_441), False),
    (Known("kv.a"), words(kv_a=[]), True),
    (Known("kv.a"), words(kv_b=["a"]), False),
    (DayPart(0), at(utcoffset=0), False),
    (DayPart(2**168 - 1), at(), False),
    (DayPart(2**168 - 1), at(utcoffset=0), True),
    (DayPart(2**168 - 1, "Europe/Berlin"), at(), True),
]


@pytest.mark.parametrize(("predicate", "asked", "answer"), GOLDEN)
def test_a_leaf_means_what_it_says(predicate: Predicate, asked: Opportunity, answer: bool) -> None:
    index = Targeting()
    index.put(0, predicate)
    assert holds(predicate, asked) is answer
    assert bool(index.snapshot().match([asked])[0, 0]) is answer


@fuzz
@given(st.text())
def test_fuzz_a_folded_word_is_folded_and_of_one_case(word: str) -> None:
    assert fold(fold(word)) == fold(word)
    assert fold(unicodedata.normalize("NFC", word)) == fold(unicodedata.normalize("NFD", word)) == fold(word)


def test_the_leaves_that_are_as_wanted_are_told_with_what_was_wanted() -> None:
    country, horror, rated = In.of("country", "us"), In.of("genre", "horror"), Between("content_rating", 0, 12)
    wanted = And((country, Not(Or((horror, Not(rated))))))
    assert list(met(wanted, words(country=["US"], genre=["HORROR"]))) == [(country, True)]
    assert list(met(wanted, words(genre=["drama"]))) == [(horror, False)]


def test_where_a_predicate_holds_some_leaf_is_as_wanted() -> None:
    for predicate, asked, answer in GOLDEN:
        if answer and predicate != ALWAYS:
            assert list(met(predicate, asked))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Between("age", 1, 2), "attribute is 'age'; allowed: content_len, "),
        (lambda: Between("w", 2, 1), r"w is \(2, 1\); allowed: min up to max"),
        (lambda: Between("w", 0, 2**63), "w is "),
        (lambda: Saw("item", "a", 60, 0), "key is 0; allowed: 1 to"),
        (lambda: DayPart(1, "Mars/Base"), "zone is 'Mars/Base'; allowed: a name of the time-zone database"),
    ],
)
def test_a_leaf_that_could_stop_a_batch_cannot_be_made(made, said: str) -> None:
    with pytest.raises(TargetingRefused, match=said):
        made()
