"""Targeting as records write it; an error names the field, the value and what is allowed."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.ads.conjunctions import disjuncts
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
    Prefix,
    Saw,
    except_for,
    holds,
)  # fmt: skip
from ranking.ads.targeting import Targeting
from ranking.ads.wire import MAX_DEPTH, MAX_LEAVES, MAX_WORDS, parse, to_json
from ranking.errors import TargetingRefused
from tests.fuzzing import VALUES, fuzz, objects
from tests.ranking.ads.asked_for import a_predicate

ALL_HOURS = 2**168 - 1


def key_of(kind: str, name: str) -> int:
    return {"item": 1, "category": 2}[kind] * 1_000 + len(name)


def nested(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"country": "us"}
    for _ in range(levels):
        inner = {"not": inner}
    return inner


@pytest.mark.parametrize(
    ("said", "means"),
    [
        (None, ALWAYS),
        ({}, ALWAYS),
        ({"country": "US"}, In.of("country", "us")),
        ({"country": ["US", "us", "CA"]}, In.of("country", "us", "ca")),
        ({"country": "US", "os": "iOS"}, And((In.of("country", "us"), In.of("os", "ios")))),
        ({"or": [{"country": "US"}, {"os": "iOS"}]}, Or((In.of("country", "us"), In.of("os", "ios")))),
        ({"and": [{"genre": "a"}, {"genre": "b"}]}, And((In.of("genre", "a"), In.of("genre", "b")))),
        ({"not": {"country": "US"}}, Not(In.of("country", "us"))),
        ({"known_not": {"genre": "horror"}}, And((Known("genre"), Not(In.of("genre", "horror"))))),
        ({"known": ["geo", "kv.A"]}, And((Known("geo"), Known("kv.a")))),
        ({"known": "history"}, Known("history")),
        ({"tagid": {"prefix": "Home/"}}, Prefix("tagid", "home/")),
        ({"domain": {"domain": ["a.example", "b.example"]}}, Or((Domain("domain", "a.example"),
                                                                  Domain("domain", "b.example")))),
        ({"keyvalues": {"A": ["1", "2"], "b": "x"}}, And((In.of("kv.a", "1", "2"), In.of("kv.b", "x")))),
        ({"content_rating": {"max": 16}}, Between("content_rating", ANY_LEAST, 16)),
        ({"content_rating": {"min": 16}}, Between("content_rating", 16, ANY_MOST)),
        ({"w": 640}, Between("w", 640, 640)),
        ({"near": {"lat": 52, "lon": 13.4, "km": 5}}, Near(52.0, 13.4, 5.0)),
        ({"saw": {"item": "m1", "within": "7d"}}, Saw("item", "m1", 604_800, 1_002)),
        ({"not": {"saw": {"category": "cars", "within": "90s"}}}, Not(Saw("category", "cars", 90, 2_004))),
        ({"dayparts": [{}]}, DayPart(ALL_HOURS, "Europe/Paris")),
        ({"dayparts": [{"days": ["mon"], "from": 1, "until": 3}, {"days": ["mon"], "from": 9, "until": 10}]},
         DayPart(0b1000000110, "Europe/Paris")),
        ({"dayparts": [{"days": ["tue"], "until": 1, "zone": "UTC"}]}, DayPart(1 << 24, "UTC", fixed=True)),
    ],
)  # fmt: skip
def test_targeting_is_read(said: object, means: object) -> None:
    assert parse(said, zone="Europe/Paris", key_of=key_of) == means


@pytest.mark.parametrize(
    ("said", "field", "allowed"),
    [
        ([], "targeting", "an object"),
        ("us", "targeting", "an object"),
        ({"county": "US"}, "targeting.county", "and, or, not, known_not, known, keyvalues, near, saw, dayparts, "),
        ({"country": []}, "targeting.country", f"a list of 1 to {MAX_WORDS} words"),
        ({"country": [1]}, "targeting.country", "a word"),
        ({"country": [" us"]}, "targeting.country", "without spaces around it"),
        ({"country": ["x" * 129]}, "targeting.country", "1 to 128 characters"),
        ({"segment": ["s"] * (MAX_WORDS + 1)}, "targeting.segment", "at most 10000 words"),
        ({"and": []}, "targeting.and", "a list with at least one object"),
        ({"or": [{"os": "a"}, {"os": ""}]}, "targeting.or[1].os", "1 to 128 characters"),
        ({"not": []}, "targeting.not", "an object"),
        ({"keyvalues": {"a b": "c"}}, "targeting.keyvalues", "keys of 1 to 64 letters"),
        ({"keyvalues": {"a": None}}, "targeting.keyvalues.a", "a word"),
        ({"keyvalues": {f"k{n}": "c" for n in range(MAX_LEAVES + 1)}}, "targeting.keyvalues", "at most 256 leaves"),
        ({"tagid": {"suffix": "x"}}, "targeting.tagid", '{"prefix": …}'),
        ({"tagid": {"prefix": [f"p{n}" for n in range(MAX_LEAVES + 1)]}}, "targeting.tagid", "at most 256 leaves"),
        ({"w": "640"}, "targeting.w", "a whole number"),
        ({"w": True}, "targeting.w", "a whole number"),
        ({"w": {"min": 3, "max": 2}}, "targeting.w", "min up to max"),
        ({"w": {"max": 2**63}}, "targeting.w", "min up to max"),
        ({"w": {"least": 2}}, "targeting.w", "one or both of them"),
        ({"near": {"lat": 91, "lon": 0, "km": 1}}, "targeting.near", "lat -90 to 90"),
        ({"near": {"lat": 0, "lon": 0, "km": 0}}, "targeting.near", "km above 0"),
        ({"near": {"lat": 0, "lon": 0, "km": float("nan")}}, "targeting.near", "km above 0"),
        ({"saw": {"item": "a", "within": "367d"}}, "targeting.saw", "at most 366d"),
        ({"saw": {"item": "a", "within": 60}}, "targeting.saw", "a time such as 90s"),
        ({"saw": {"item": "a", "category": "b", "within": "1d"}}, "targeting.saw", '"item" or "category"'),
        ({"known": "age"}, "targeting.known", "country, region"),
        ({"dayparts": [{"days": ["monday"]}]}, "targeting.dayparts[0].days", "mon, tue"),
        ({"dayparts": [{"from": 24}]}, "targeting.dayparts[0]", "from 0 to 23"),
        ({"dayparts": [{"from": 5, "until": 5}]}, "targeting.dayparts[0]", "not both the same"),
        ({"dayparts": [{"zone": "Mars/Base"}]}, "targeting.dayparts[0].zone", "such as Europe/Berlin"),
        ({"dayparts": [{"zone": "../../etc/passwd"}]}, "targeting.dayparts[0].zone", "such as Europe/Berlin"),
        (nested(MAX_DEPTH), "targeting" + ".not" * MAX_DEPTH, "at most 8 objects in each other"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named_with_what_is_allowed(said: object, field: str, allowed: str) -> None:
    with pytest.raises(TargetingRefused) as refused:
        parse(said, key_of=key_of)
    assert refused.value.field == field
    assert allowed in refused.value.allowed
    assert str(refused.value).startswith(f"{field} is ")


def test_a_zone_of_the_campaign_that_nobody_knows_is_refused() -> None:
    with pytest.raises(TargetingRefused, match=r"line_items\[2\].targeting: zone is ''; allowed: a name of"):
        parse({}, field="line_items[2].targeting", zone="")


def test_day_parts_beside_targeting_are_asked_for_as_well() -> None:
    beside = {"field": "line_items[1].targeting", "zone": "Europe/Paris"}
    night = DayPart(1, "Europe/Paris")
    assert parse({"os": "a"}, dayparts=[{"days": ["mon"], "until": 1}], **beside) == And((In.of("os", "a"), night))
    assert parse(None, dayparts=[{"days": ["mon"], "until": 1}], **beside) == And((ALWAYS, night))
    with pytest.raises(TargetingRefused, match=r"line_items\[1\].dayparts\[0\].days is \['x'\]; allowed: mon, "):
        parse({"os": "a"}, dayparts=[{"days": ["x"]}], **beside)


def test_targeting_that_multiplies_out_too_far_is_refused_by_its_name() -> None:
    either = [{"or": [{"w": n}, {"h": n}]} for n in range(9)]
    with pytest.raises(TargetingRefused, match=r"line_items\[1\].targeting is 'more than 256 conjunctions'"):
        parse({"and": either}, field="line_items[1].targeting")


def test_what_was_seen_is_refused_where_no_history_is_kept() -> None:
    with pytest.raises(TargetingRefused, match="no history is kept here"):
        parse({"saw": {"item": "a", "within": "1d"}})


def test_the_deepest_that_is_allowed_is_read() -> None:
    assert holds(parse(nested(MAX_DEPTH - 1)), Opportunity(now_ms=0)) is True


@fuzz
@given(st.integers())
def test_fuzz_what_is_written_reads_as_the_same(seed: int) -> None:
    predicate = a_predicate(random.Random(seed), depth=2)
    try:
        again = parse(to_json(predicate), key_of=lambda _, __: 7)
    except TargetingRefused:
        return  # nothing on the wire is empty: a set of no words, an OR of nothing
    assert to_json(again) == to_json(predicate)


@fuzz
@given(
    st.recursive(
        objects(
            country=st.just("us") | VALUES, genre=st.lists(st.text()), w=st.integers(), near=VALUES, known=st.text(),
            keyvalues=VALUES, dayparts=st.lists(objects(days=st.just(["mon"]), zone=st.text())), saw=VALUES,
        ),
        lambda inner: objects(**{"and": st.lists(inner), "or": st.lists(inner), "not": inner, "known_not": inner}),
        max_leaves=6,
    )
)  # fmt: skip
def test_fuzz_whatever_is_said_is_read_or_refused(said: object) -> None:
    try:
        predicate = parse(said, key_of=key_of)
    except TargetingRefused as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert refused.field.startswith("targeting")
        assert len(str(refused)) < 1_000
        return
    index = Targeting()
    index.put(0, predicate)
    asked = Opportunity(now_ms=0, words={"country": ["us"]})
    assert bool(index.snapshot().match([asked])[0, 0]) is holds(predicate, asked)


def test_a_strong_not_asks_for_everything_that_it_names() -> None:
    said = parse({"known_not": {"genre": "horror", "content_rating": {"min": 17}}})
    assert said == except_for(And((In.of("genre", "horror"), Between("content_rating", 17, ANY_MOST))))
    assert len(disjuncts(said)) == 2
