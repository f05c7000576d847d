"""On which terms slots are sold: what is blocked, who may have them, what they must bring, and what a deal costs."""

from typing import Any

import pytest

from tests.streams.builders import small
from tests.streams.serving.test_ads import a_campaign, a_house, a_request, one


@pytest.mark.parametrize("creative", [{}, {"cat": ["5"], "cattax": 501}, {"cat": ["5"], "cattax": 3}])
def test_what_has_no_category_that_block_lists_could_speak_of_is_blocked(creative: dict[str, Any]) -> None:
    house = a_house(a_campaign(creative=creative))
    assert one(house.decisions(a_request(bcat=["IAB25"]))).reasons == ("category_excluded",)
    assert one(house.decisions(a_request(imp={"bcat": ["IAB25"]}))).reasons == ("category_excluded",)


def test_a_creative_without_categories_has_those_of_its_campaign() -> None:
    house = a_house(a_campaign() | {"cat": ["IAB9-5"]})
    assert one(house.decisions(a_request(bcat=["IAB25"]))).filled
    assert one(house.decisions(a_request(bcat=["IAB9"]))).reasons == ("category_excluded",)


def test_of_a_taxonomy_that_nobody_knows_everything_is_blocked() -> None:
    house = a_house(a_campaign(creative={"cat": ["5"], "cattax": 501}), settings=small(ads=ALLOWING))
    assert one(house.decisions(a_request(bcat=["7"], cattax=501))).reasons == ("category_excluded",)
    assert one(house.decisions(a_request(cattax=501))).filled


ALLOWING = {"allow_sensitive": ["cattax:501"]}
BOTH = {"banner": {}, "video": {}}
FLOORS = {"floor_fields": ["format", "tagid"], "floors": ["banner;*=1000000", "video;*=6000000"]}


@pytest.mark.parametrize(
    ("format_", "reasons", "price"), [("banner", (), 1_000), ("video", ("below_floor",), 0), ("native", (), 0)]
)
def test_the_floor_of_a_format_is_that_of_what_fills_the_slot(
    format_: str, reasons: tuple[str, ...], price: int
) -> None:
    house = a_house(a_campaign(creative={"format": format_}), settings=small(ads=FLOORS))
    decision = one(house.decisions(a_request(imp=BOTH | {"native": {}})))
    assert (decision.reasons, decision.price_micros) == (reasons, price)


@pytest.mark.parametrize(
    ("floor", "price", "reasons"),
    [(1.0, 3_000, ()), (3.0, 3_000, ()), (4.0, 0, ("below_deal_floor",))],
)
def test_a_fixed_deal_pays_exactly_its_price_or_is_not_sold(floor: float, price: int, reasons: tuple[str, ...]) -> None:
    house = a_house(a_campaign(deal={"id": "d", "bidfloor_micros": 3_000_000, "at": 3}))
    decision = one(house.decisions(a_request(imp={"pmp": {"deals": [{"id": "d", "bidfloor": floor}]}})))
    assert (decision.price_micros, decision.reasons) == (price, reasons)


@pytest.mark.parametrize(
    ("offer", "reasons"),
    [
        ({"wseat": ["spring"], "wadomain": ["www.Spring.example"]}, ()),
        ({"wadomain": ["example"]}, ()),
        ({"wseat": ["else"]}, ("seat_blocked",)),
        ({"wadomain": ["rival.example"]}, ("advertiser_excluded",)),
    ],
)
def test_a_deal_is_for_the_seats_and_domains_that_it_names(offer: dict[str, Any], reasons: tuple[str, ...]) -> None:
    house = a_house(a_campaign(deal={"id": "d", "bidfloor_micros": 1_000_000, "at": 3}))
    assert one(house.decisions(a_request(imp={"pmp": {"deals": [{"id": "d"} | offer]}}))).reasons == reasons


@pytest.mark.parametrize(
    ("said", "winner"),
    [
        ({"wseat": ["b", "nobody"]}, "b"),
        ({"wseat": ["nobody"]}, None),
        ({"bseat": ["a"]}, "b"),
        ({"wseat": ["a"], "bseat": ["a"]}, None),
        ({"bseat": ["nobody"]}, "a"),
    ],
)
def test_seats_are_let_in_and_kept_out(said: dict[str, Any], winner: str | None) -> None:
    house = a_house(a_campaign("a", bid=6_000_000), a_campaign("b", bid=2_000_000))
    decision = one(house.decisions(a_request(**said)))
    assert decision.campaign_id == winner
    assert winner or decision.reasons == ("seat_blocked",)


def test_an_app_that_is_blocked_is_not_advertised() -> None:
    house = a_house(a_campaign(creative={"bundle": "com.rival"}))
    assert one(house.decisions(a_request(bapp=["com.rival", "com.else"]))).reasons == ("app_excluded",)
    assert one(house.decisions(a_request(bapp=["com.else"]))).filled
