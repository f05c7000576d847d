"""Pages as they are laid and as they go out: whatever wins and whatever stands there, the surface's rules hold."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.eligibility import Viewer
from embeddings.events import CONSENT_ALL
from ranking.ads.gates import MEDIUM
from ranking.ads.joint import MOST_ADS
from streams.ad_surfaces import SurfaceAds
from streams.contract.ad_records import AdDecision
from streams.contract.records import Request, encode
from streams.serving.ad_decisions import Decision, at_rate
from streams.serving.ad_pages import Surface, seats, unasked, weights
from streams.serving.ad_requests import AskRules
from streams.serving.ad_values import AdAsk
from streams.serving.policies import Policies
from streams.serving.slates import Trigger
from streams.settings import Settings
from tests.fuzzing import thorough
from tests.streams.builders import EVENTS, NOW_MS, small


def an_ask(said: SurfaceAds, size: int, request_id: str | None = None) -> AdAsk | None:
    config: Settings = small(ads={"surfaces": {"home": said.model_dump()}}, slates={"size": 200, "candidates": 200})
    policy = Policies.of(config).on("home")
    trigger = Trigger(
        user_id="ann", source=EVENTS, offset=7, event_ms=NOW_MS, published_ms=NOW_MS, viewer=Viewer(surface="home"),
        policy=policy, size=size, request_id=request_id,
    )  # fmt: skip
    return Surface.of(config)["home"].ask(Request(request_id="r"), trigger, CONSENT_ALL, AskRules.of(config, b"s"))


def a_decision(place: int, creative: str) -> Decision:
    record = AdDecision(decision_id=f"d{place}", filled=True, position=place, creative=creative)
    return Decision(record, encode(record), "filled")


def test_a_page_asks_for_as_many_ads_as_its_rules_let_stand_and_names_all_of_its_places() -> None:
    ask = an_ask(SurfaceAds(show_rate=0.2, ad_load_max=0.5, first_slot=2, min_gap=3, tagid="feed", floor_micros=10), 20)
    assert ask is not None
    (place,) = ask.places
    assert (len(place.imp_ids), len(place.decision_ids), place.show_rate) == (5, 20, 0.2)
    assert (place.tagid, place.floor_micros, place.exp_s) == ("feed", 1, 300)
    assert len(set(place.decision_ids)) == 20


def test_a_long_page_asks_for_no_more_ads_than_are_laid() -> None:
    ask = an_ask(SurfaceAds(show_rate=0.2, ad_load_max=0.5, min_gap=0), 200)
    assert ask is not None
    assert len(ask.places[0].imp_ids) == MOST_ADS


def test_a_slate_that_was_asked_for_has_its_own_show_rate_and_one_too_short_asks_for_nothing() -> None:
    asked = an_ask(SurfaceAds(show_rate=0.2, asked_show_rate=0.9), 20, "r1")
    assert asked is not None
    assert (asked.places[0].show_rate, asked.request_id) == (0.9, "r1")
    assert an_ask(SurfaceAds(show_rate=0.2, ad_load_max=0.2), 4) is None
    assert an_ask(SurfaceAds(show_rate=0.2), 201) is None
    assert an_ask(SurfaceAds(show_rate=0.2, ad_load_max=1, first_slot=9), 8) is None


def test_what_was_decided_before_being_unknown_bars_pages_alone() -> None:
    page = an_ask(SurfaceAds(show_rate=0.2), 20)
    assert page is not None
    places = tuple(replace(place, page=None) for place in page.places)
    assert [ask.refused for ask in unasked([page, replace(page, places=places)])] == [1, 0]


def test_places_further_down_are_looked_at_less() -> None:
    assert weights(3).round(4).tolist() == [1.0, 0.6309, 0.5]


def test_an_amount_is_reserved_as_often_as_it_is_expected_to_be_owed_rounded_up() -> None:
    assert at_rate(np.array([1_000, 999, 7, 0]), np.array([0.5, 1.0, 0.1, 0.3])).tolist() == [500, 999, 1, 0]


@thorough(60)
@given(
    places=st.sets(st.integers(0, 9), max_size=4),
    own=st.lists(st.sampled_from([0, 1, 2, None]), min_size=10, max_size=10),
    risks=st.lists(st.integers(0, 2), max_size=10),
    collapse=st.booleans(),
)
def test_whatever_was_decided_a_page_has_everything_once_in_order_and_no_ad_beside_what_it_must_not(
    places: set[int], own: list[int | None], risks: list[int], collapse: bool
) -> None:
    said = SurfaceAds(
        show_rate=1, ad_load_max=0.4, first_slot=1, min_gap=1, unfilled="collapse" if collapse else "organic"
    )
    ask = an_ask(said, 10)
    assert ask is not None
    risk_of = {f"c{n}": risk for n, risk in enumerate(own) if risk is not None}
    decisions = [a_decision(place, f"c{place}") for place in places]
    page = seats(ask, decisions, np.array(risks, np.uint8), len(risks), risk_of)
    assert page is not None
    shown = [decision.record.position for decision in page.shown]
    at = page.place_N.tolist()
    assert sorted({*at, *shown}) == sorted([*at, *shown]) and max([0, *at]) < 10  # noqa: PT018
    assert at == sorted(at)
    room = 10 - (len(ask.places[0].imp_ids) if collapse else len(shown))
    assert len(at) == min(len(risks), max(room, 0), 10 - len(shown))
    for place in shown:
        assert place is not None
        before = sum(n < place for n in at)
        beside = risks[max(before - 1, 0) : before + 1]
        assert all((own[place] or 0) <= risk <= MEDIUM for risk in beside)
    fine = [d for d in decisions if own[d.record.position or 0] == 0]
    if all(risk <= MEDIUM for risk in risks) and len(fine) == len(decisions):
        assert len(shown) == len(places)  # nothing is left out without a reason


@pytest.mark.parametrize(("places", "room"), [(0, 0), (1, 0), (4, 1), (8, 2), (20, 5), (200, 50)])
def test_room_is_never_more_than_the_load(places: int, room: int) -> None:
    assert SurfaceAds(show_rate=1).room(places) == room
