"""What a request asks of ads: places, floors, blocks, and what may be known of whom."""

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.eligibility import Viewer
from embeddings.events import CONSENT_ADS, CONSENT_ALL, CONSENT_STORE, Source
from embeddings.spend import decision_id
from ranking.ads.auction import MOST_MICROS, At
from ranking.ads.currencies import Currencies
from ranking.ads.losses import Loss
from ranking.ads.predicates import And, In, holds, known
from streams.contract.consent import NOTHING, Judge
from streams.contract.records import Request, decode_request
from streams.serving.ad_requests import AskRules, ad_ask, deadline_ms, narrowed
from streams.serving.ad_values import AdAsk, AdPlace
from streams.serving.policies import Policies
from streams.serving.slates import Trigger
from streams.serving.viewers import viewer_of
from streams.settings import Settings
from tests.streams.builders import NOW_MS

RATES = Currencies(version="1", micros={"EUR": 1_000_000, "USD": 1_083_412})
RULES = AskRules(currency="USD", rates=RATES, secret=b"pepper")
POLICY = Policies.of(Settings()).on("home")


def request(*imps: Mapping[str, Any], **more: Any) -> Request:
    return decode_request(msgspec.json.encode({"request_id": "r", "imp": list(imps)} | more))


def trigger(asked: Request, user: str = "ann", offset: int = 7, **more: Any) -> Trigger:
    viewer = viewer_of(asked.context, asked.surface or "home")
    said: dict[str, Any] = {"viewer": viewer, "event_ms": NOW_MS, "published_ms": NOW_MS, "request_id": "r"}
    return Trigger(user_id=user, source=Source("requests", 3), offset=offset, policy=POLICY, size=5, **said | more)


def ask(asked: Request, bits: int = CONSENT_ALL, rules: AskRules = RULES, **more: Any) -> AdAsk:
    made = ad_ask(asked, trigger(asked, **more), bits, rules)
    assert made is not None
    return made


def place(*imps: Mapping[str, Any], bits: int = CONSENT_ALL, **more: Any) -> AdPlace:
    [made] = ask(request(*imps, **more), bits).places
    return made


def test_a_request_without_imps_asks_for_nothing() -> None:
    asked = request()
    assert ad_ask(asked, trigger(asked), CONSENT_ALL, RULES) is None


def test_imps_that_differ_only_in_their_ids_are_one_auction_of_several_slots() -> None:
    made = ask(request({"id": "1", "tagid": "a"}, {"id": "2", "tagid": "b"}, {"id": "3", "tagid": "a"}))
    assert [(each.imp_ids, each.tagid) for each in made.places] == [(("1", "3"), "a"), (("2",), "b")]
    assert made.places[0].decision_ids == tuple(decision_id("requests", 3, 7, name) for name in "13")


def test_the_same_id_twice_is_one_place_and_one_refusal() -> None:
    made = ask(request({"id": "1"}, {"id": "1", "tagid": "x"}))
    [refused], [kept] = made.unfilled, made.places
    assert (refused.reason, refused.imp_id, kept.imp_ids) == ("duplicate", "1", ("1",))
    assert refused.decision_id != kept.decision_ids[0]


def test_no_slot_is_called_as_the_second_of_another_name() -> None:
    made = ask(request({"id": "1"}, {"id": "1"}, {"id": "1\x001"}))
    names = [one.decision_id for one in made.unfilled] + [name for place in made.places for name in place.decision_ids]
    assert len(set(names)) == len(names) == 3


def test_a_floor_in_an_unknown_currency_leaves_only_that_imp_unfilled() -> None:
    made = ask(request({"id": "1", "bidfloor": 1, "bidfloorcur": "XTS"}, {"id": "2", "bidfloorcur": "XTS"}))
    assert [(each.imp_id, each.reason, each.nbr) for each in made.unfilled] == [("1", "currency", 2)]
    assert [(each.imp_ids, each.floor_micros) for each in made.places] == [(("2",), 0)]


def test_prices_in_a_currency_that_nobody_asked_for_are_not_made() -> None:
    made = ask(request({"id": "1"}, cur=["EUR", "GBP"]))
    assert not made.places
    assert [each.reason for each in made.unfilled] == ["currency"]
    assert ask(request({"id": "1"}, cur=["EUR", "usd"])).places


@given(st.decimals(0, 100_000, places=7, allow_nan=False), st.sampled_from(["USD", "EUR"]))
def test_floors_are_exact_and_rounded_up_once(cpm: Decimal, currency: str) -> None:
    made = place({"id": "1", "bidfloor": float(cpm), "bidfloorcur": currency, "video": {"mincpmpersec": float(cpm)}})
    exact = Decimal(repr(float(cpm))) * 1_000 * (1 if currency == "USD" else Decimal("1.083412"))
    assert made.floor_micros == made.per_second_micros == int(exact.to_integral_value(ROUND_CEILING))


@pytest.mark.parametrize(("said", "floor"), [(0.1 + 0.2, 301), (-1, 0), (3e38, MOST_MICROS + 1), (0.0000001, 1)])
def test_odd_floors_are_what_they_say(said: float, floor: int) -> None:
    assert place({"id": "1", "bidfloor": said}).floor_micros == floor


def test_deals_have_floors_of_their_own_and_one_of_unknown_money_is_not_offered() -> None:
    deals = [
        {"id": "a", "bidfloor": 2.5},
        {"id": "b", "bidfloor": 1, "bidfloorcur": "eur"},
        {"id": "c", "bidfloor": 1, "bidfloorcur": "XTS"},
    ]
    made = place({"id": "1", "pmp": {"private_auction": 1, "deals": deals}})
    assert {name: offer.floor_micros for name, offer in made.offers.items()} == {"a": 2_500, "b": 1_084}
    assert (made.slot.deals, made.slot.deals_only) == (("a", "b"), True)


@pytest.mark.parametrize(("said", "at"), [(None, 2), (1, 1), (2, 2), (3, 2), (501, 2)])
def test_the_rule_of_price_is_the_requests(said: int | None, at: int) -> None:
    assert place({"id": "1"}, at=said).at == At(at)


def test_what_fits_is_what_the_slot_says() -> None:
    banner = {"format": [{"w": 300, "h": 250}, {"w": 320, "h": 50}], "mimes": ["image/png"]}
    made = place({"id": "1", "banner": banner, "exp": 30}).slot
    assert (made.formats, made.sizes, made.mimes) == (("banner",), ((300, 250), (320, 50)), ("image/png",))
    video = {"w": 1280, "h": 720, "minduration": 5, "maxduration": 30, "mimes": ["video/mp4"]}
    made = place({"id": "1", "video": video}).slot
    assert (made.formats, made.sizes, made.seconds) == (("video",), (), (5, 30))
    assert place({"id": "1"}).slot.formats == ("banner", "video", "audio", "native")


def test_blocks_of_request_slot_and_format_add_up_and_speak_of_one_taxonomy() -> None:
    imp = {"id": "1", "bcat": ["1007"], "badv": ["www.Rival.example"], "battr": [1], "video": {"battr": [3]}}
    blocked = place(imp, bcat=["1001"], cattax=3, badv=["b.example"], battr=[13]).slot.blocked
    assert {word for word in blocked if not word.startswith("cattax:")} == {
        "cat:3:1001", "cat:3:1007", "adv:rival.example", "adv:b.example", "attr:1", "attr:3", "attr:13",
    }  # fmt: skip
    assert "cattax:1" in blocked
    assert "cattax:3" not in blocked
    assert not place({"id": "1"}).slot.blocked


@pytest.mark.parametrize(
    ("limit", "rating", "coppa", "age"),
    [
        (None, None, 0, 254),
        (16, None, 0, 16),
        (None, "12", 0, 12),
        (16, "PG-13", 0, 13),
        (6, "18", 0, 6),
        (None, "who knows", 0, 0),
        (None, "18", 1, 12),
        (None, None, 1, 12),
    ],
)
def test_the_audience_limits_what_may_be_rated(limit: int | None, rating: str | None, coppa: int, age: int) -> None:
    context = {} if limit is None else {"age_limit": limit}
    site = {"content": {"contentrating": rating}}
    assert place({"id": "1"}, context=context, site=site, regs={"coppa": coppa}).slot.age_limit == age


CONTEXT: dict[str, Any] = {
    "context": {"country": "DE", "device": "tv", "language": "de-AT", "utcoffset": 60},
    "device": {"devicetype": 3, "os": "tvOS", "geo": {"city": "Wien", "utcoffset": 120, "lat": 48.2, "lon": 16.4}},
    "site": {
        "domain": "films.example", "keywords": "thriller, noir",
        "content": {"genre": "Drama, Crime", "cat": ["IAB1-5"], "len": 5_400, "language": "en", "contentrating": "16"},
    },
    "keyvalues": {"Section": "film", "tier": ["gold"]},
}  # fmt: skip
USER = {"data": [{"segment": [{"id": "cars"}, {"name": "Travel"}]}]}


def test_an_opportunity_says_what_request_context_and_slot_say() -> None:
    banner = {"w": 300, "h": 250}
    made = place({"id": "1", "tagid": "top", "banner": banner, "keyvalues": {"tier": "x"}}, user=USER, **CONTEXT)
    said = made.opportunity
    assert dict(said.words) == {
        "country": ("DE",), "city": ("Wien",), "devicetype": ("tv", "3", "ctv"), "os": ("tvOS",),
        "language": ("de-AT", "de"), "surface": ("home",), "domain": ("films.example",), "genre": ("Drama", "Crime"),
        "cat": ("IAB1-5", "IAB1"), "content_language": ("en",), "segment": ("cars", "Travel"), "tagid": ("top",),
        "format": ("banner",),
        "kv.section": ("film",), "kv.tier": ("gold", "x"), "kv.keywords": ("thriller", "noir"),
    }  # fmt: skip
    assert dict(said.numbers) == {"content_len": 5_400, "content_rating": 16, "w": 300, "h": 250}
    assert (said.place, said.utcoffset, said.now_ms) == ((48.2, 16.4), 60, NOW_MS)
    assert holds(And((In.of("devicetype", "CTV"), In.of("kv.section", "Film"))), said)


def test_what_nobody_says_is_unknown() -> None:
    said = place({"id": "1"}).opportunity
    unknown = ("country", "genre", "segment", "tagid", "format", "content_rating", "geo", "utcoffset", "kv.keywords")
    assert not [name for name in unknown if known(name, said)]


def test_without_the_right_to_the_profile_nothing_of_the_person_is_known() -> None:
    made = ask(request({"id": "1"}, user=USER, **CONTEXT), CONSENT_STORE)
    [one] = made.places
    assert not made.personal
    assert not known("segment", one.opportunity)
    assert not known("geo", one.opportunity)
    assert known("city", one.opportunity)
    assert made.person


@pytest.mark.parametrize(
    ("bits", "more", "personal", "counted"),
    [
        (CONSENT_ALL, {}, True, True),
        (CONSENT_ALL & ~CONSENT_ADS, {}, False, True),
        (CONSENT_ADS, {}, False, False),
        (NOTHING, {}, False, False),
        (CONSENT_ALL, {"personalised": False}, False, True),
        (CONSENT_ALL, {"device": {"lmt": 1}}, False, True),
        (CONSENT_ALL, {"regs": {"coppa": 1}}, False, False),
        (CONSENT_ALL, {"consent": {"coppa": 1}}, False, False),
    ],
)
def test_gates_fail_closed(bits: int, more: dict[str, Any], personal: bool, counted: bool) -> None:
    made = ask(request({"id": "1"}, **more), bits)
    assert (made.personal, bool(made.person), made.refused) == (personal, counted, 0)


def test_a_house_that_shows_children_no_ads_refuses_them() -> None:
    strict = AskRules(currency="USD", rates=RATES, secret=b"pepper", children=False)
    asked = request({"id": "1"}, regs={"coppa": 1})
    assert ask(asked, CONSENT_ALL, strict).refused == Loss.no_consent
    assert ask(asked, CONSENT_ALL).refused == 0


def test_stored_consent_only_takes_away() -> None:
    made = ask(request({"id": "1"}, user=USER, **CONTEXT))
    assert narrowed(made, CONSENT_ALL) == made
    assert narrowed(made, CONSENT_STORE) == ask(request({"id": "1"}, user=USER, **CONTEXT), CONSENT_STORE)
    assert narrowed(made, NOTHING) == ask(request({"id": "1"}, user=USER, **CONTEXT), NOTHING)
    denied = ask(request({"id": "1"}, user=USER, **CONTEXT), NOTHING)
    assert narrowed(denied, CONSENT_ALL) == denied


def test_people_are_hashed_under_the_houses_secret() -> None:
    asked = request({"id": "1"})
    other = AskRules(currency="USD", rates=RATES, secret=b"salt")
    people = {ask(asked).person, ask(asked, user="bob").person, ask(asked, rules=other).person}
    assert len(people) == 3
    assert ask(asked).person == ask(asked, offset=8).person
    assert "pepper" not in repr(RULES)
    assert ask(asked, rules=AskRules(currency="USD", rates=RATES, secret=b"")).person == ""


def test_a_deadline_is_the_requests_then_openrtbs_then_the_houses() -> None:
    assert deadline_ms(request(deadline_ms=80, tmax=90), 1_000, 200) == 1_080
    assert deadline_ms(request(tmax=90), 1_000, 200) == 1_090
    assert deadline_ms(request(), 1_000, 200) == 1_200


WORDS = st.text(max_size=6)
PEOPLE = st.fixed_dictionaries(
    {},
    optional={
        "user": st.fixed_dictionaries(
            {}, optional={"id": WORDS, "eids": st.just([{"source": "a"}]), "data": st.just(USER["data"])}
        ),
    },
)
IMPS = st.lists(
    st.fixed_dictionaries(
        {"id": st.sampled_from("123")},
        optional={
            "tagid": WORDS, "bidfloor": st.floats(0, 10), "video": st.just({"maxduration": 30}),
            "keyvalues": st.just({"a": "b"}),
            "banner": st.just({"w": 300, "h": 250}), "bcat": st.lists(st.sampled_from(["IAB7", "IAB25"]), max_size=2),
        },
    ),
    min_size=1, max_size=4,
)  # fmt: skip


def anonymous(made: AdAsk) -> dict[str, Any]:
    """An ask without ids."""
    return {
        name: getattr(made, name) for name in ("personal", "context", "now_ms", "deadline_ms", "refused", "person")
    } | {"places": [msgspec.to_builtins(each) | {"decision_ids": None} for each in made.places]}


@given(
    IMPS, PEOPLE, PEOPLE, st.sampled_from([NOTHING, CONSENT_ADS]), st.tuples(st.floats(-90, 90), st.floats(-180, 180))
)
def test_without_consent_different_people_in_one_context_ask_for_the_same(
    imps: list[dict[str, Any]], ann: dict[str, Any], bob: dict[str, Any], bits: int, where: tuple[float, float]
) -> None:
    here = {"device": {"devicetype": 3, "geo": {"city": "Wien", "lat": where[0], "lon": where[1]}}}
    there = {"device": {"devicetype": 3, "geo": {"city": "Wien"}}}
    first = ask(request(*imps, **ann, **here), bits, user="ann", offset=1)
    second = ask(request(*imps, **bob, **there), bits, user="bob", offset=2)
    assert anonymous(first) == anonymous(second)


def test_the_judge_and_the_gates_agree_on_a_child() -> None:
    asked = request({"id": "1"}, regs={"coppa": 1}, consent={"gdpr": 0})
    made = ask(asked, Judge(CONSENT_ALL).of_request(asked))
    assert (made.personal, made.person) == (False, "")


def test_a_viewer_whose_country_is_not_said_is_nowhere() -> None:
    asked = request({"id": "1"})
    [one] = ask(asked, viewer=Viewer(surface="tv")).places
    assert dict(one.opportunity.words) == {"surface": ("tv",)}
