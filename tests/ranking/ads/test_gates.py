"""Gates are closed unless something opens them."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ranking.ads.campaigns import BidType, Campaign, Creative, LineItem, Status, Type
from ranking.ads.gates import HIGH, LOW, MEDIUM, SENSITIVE, audience, gate, risk, sensitivity, without
from ranking.ads.inventory import House, Inventory
from ranking.ads.losses import Loss
from ranking.ads.selection import Fits, Slot, Slots, fitting

NOW_MS = 1_750_000_000_000


def creative(crid: str = "cr", **more: Any) -> Creative:
    said: dict[str, Any] = {"approved": True, "format": "banner", "adomain": ("a.example",)}
    return Creative(key=crid, crid=crid, **said | more)


def house_of(*groups: tuple[Creative, ...]) -> House:
    lines = tuple(
        LineItem(
            key=f"c/{n}", id=str(n), campaign_id="c", advertiser="acme", type=Type.price_priority, priority=12,
            status=Status.active, bid_type=BidType.cpm, bid_micros=1_000, currency="USD", time_zone="UTC",
            creatives=creatives,
        )
        for n, creatives in enumerate(groups)
    )  # fmt: skip
    inventory = Inventory()
    campaign = Campaign(
        id="c", advertiser="acme", order_id=None, name="c", status=Status.active, currency="USD", time_zone="UTC",
        budget_micros=None, daily_budget_micros=None, line_items=lines,
    )  # fmt: skip
    inventory.put(campaign)
    return inventory.snapshot()


def fit(house: House, slot: Slot) -> Fits:
    rows = np.arange(house.rows, dtype=np.int32)
    return fitting(house, Slots.of([slot], house), np.array([0, house.rows]), rows, NOW_MS)


@pytest.mark.parametrize(("ads", "store", "coppa", "lmt", "personalised"), list(product([False, True], repeat=5)))
def test_every_flag_only_takes_away(ads: bool, store: bool, coppa: bool, lmt: bool, personalised: bool) -> None:
    made = gate(ads=ads, store=store, coppa=coppa, lmt=lmt, personalised=personalised)
    assert made.personal == (ads and store and not coppa and not lmt and personalised)
    assert made.counted == (store and not coppa)
    assert made.refused == 0


def test_no_ad_at_all_for_children_is_the_houses_choice() -> None:
    assert gate(ads=True, store=True, coppa=True, children=False).refused == Loss.no_consent
    assert gate(ads=True, store=True, children=False).refused == 0


@pytest.mark.parametrize(("limit", "content", "age"), [(None, None, 254), (16, None, 16), (16, 12, 12), (None, 255, 0)])
def test_an_audience_is_as_old_as_the_strictest_says(limit: int | None, content: int | None, age: int) -> None:
    assert audience(limit, content=content) == age
    assert audience(limit, content=content, coppa=True) == min(age, 12)


@pytest.mark.parametrize(
    ("said", "off"),
    [
        ({}, False),
        ({"cat": ("IAB2",)}, False),
        ({"cat": ("IAB2", "IAB7-1")}, True),
        ({"cat": ("IAB23-5",)}, True),
        ({"cat": ("IAB14",)}, False),  # society is not dating
        ({"cat": ("IAB14-1",)}, True),
        ({"cat": ("705",), "cattax": 3}, True),  # lies below health services
        ({"cat": ("714",), "cattax": 3}, False),
        ({"cat": ("705",), "cattax": 7}, True),  # nobody here can judge it
        ({"categories": ("Gambling",)}, True),
        ({"categories": ("cars",)}, False),
    ],
)
def test_sensitive_kinds_are_off_by_default(said: dict[str, Any], off: bool) -> None:
    assert sensitivity()(creative(**said)) == off


@pytest.mark.parametrize(
    ("said", "allowed"),
    [
        ({"cat": ("IAB7-1",)}, "health"),
        ({"cat": ("IAB7-1",)}, "1:IAB7-1"),
        ({"cat": ("IAB7-1",)}, "1:IAB7"),
        ({"cat": ("705",), "cattax": 3}, "3:696"),
        ({"cat": ("705",), "cattax": 7}, "cattax:7"),
        ({"categories": ("gambling",)}, "gambling"),
    ],
)
def test_a_house_opts_into_a_kind_and_no_other(said: dict[str, Any], allowed: str) -> None:
    both = [creative(**said), creative(cat=("IAB23",))]
    assert list(map(sensitivity([allowed]), both)) == [False, True]


def sensitive(house: House) -> NDArray[np.bool_]:
    """Which creatives are off by default."""
    return np.array(list(map(sensitivity(), house.creatives)))


@pytest.mark.parametrize("word", ["guns", "illegal"])
def test_a_kind_that_is_none_or_that_nobody_may_allow_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=f"sensitive: '{word}'; allowed: adult, alcohol"):
        sensitivity([word])


def test_every_sensitive_category_names_a_taxonomy_that_is_judged() -> None:
    assert {category.partition(":")[0] for kind in SENSITIVE.values() for category in kind} == {"1", "3"}


def test_a_line_item_shows_what_is_left_of_its_creatives() -> None:
    house = house_of(
        (creative("a"), creative("b", cat=("IAB25-3",))), (creative("c", cat=("IAB25-3",)),), (creative("d"),)
    )
    fits = without(fit(house, Slot()), sensitive(house), Loss.category_excluded)
    assert fits.creative_N.tolist() == [0, 3]
    assert fits.code_M.tolist() == [0, Loss.category_excluded, 0]
    assert fits.start_M1.tolist() == [0, 1, 1, 2]


def test_what_was_turned_away_before_keeps_its_reason_and_what_nobody_judged_is_barred() -> None:
    house = house_of((creative("a", approved=False),), (creative("b"),))
    fits = without(fit(house, Slot()), np.zeros(1, np.bool_), Loss.category_excluded)
    assert fits.code_M.tolist() == [Loss.creative_pending, Loss.category_excluded]


CREATIVES = st.lists(
    st.builds(
        lambda **said: creative(**said),
        approved=st.booleans(), adomain=st.sampled_from([("a.example",), ("shop.b.example",)]),
        attr=st.sampled_from([(), (3,)]),
        cat=st.lists(st.sampled_from(["IAB2", "IAB7-39", "IAB25-3", "IAB1-5"]), max_size=2).map(tuple),
        cattax=st.sampled_from([1, 3]), age=st.sampled_from([None, 6, 16, 255]),
    ),
    min_size=1, max_size=3,
).map(tuple)  # fmt: skip
BLOCKS = st.lists(
    st.sampled_from(["adv:b.example", "adv:a.example", "cat:1:IAB7", "cat:1:IAB2", "cattax:3", "attr:3"]), max_size=3
)


@settings(deadline=None)  # the first example compiles
@given(st.lists(CREATIVES, min_size=1, max_size=4), BLOCKS, st.integers(0, 18))
def test_what_is_blocked_unapproved_sensitive_or_rated_too_high_never_fits(
    groups: list[tuple[Creative, ...]], blocked: list[str], limit: int
) -> None:
    house = house_of(*groups)
    slot = Slot(blocked=tuple(blocked), age_limit=limit)
    fits = without(fit(house, slot), sensitive(house), Loss.category_excluded)
    for at in fits.creative_N.tolist():
        shown = house.creatives[at]
        assert shown.approved
        assert (shown.age or 0) <= limit
        assert not sensitivity()(shown)
        assert not (shown.adomain == ("shop.b.example",) and "adv:b.example" in blocked)
        assert not (shown.adomain == ("a.example",) and "adv:a.example" in blocked)
        assert not (shown.attr and "attr:3" in blocked)
        assert not (shown.cattax == 1 and "IAB2" in shown.cat and "cat:1:IAB2" in blocked)
        assert not (shown.cattax == 3 and shown.cat and "cattax:3" in blocked)
    assert ((fits.code_M == 0) == (np.diff(fits.start_M1) > 0)).all()


def test_what_nobody_rated_is_a_medium_risk() -> None:
    ages, rated = np.array([0, 12, 13, 17, 0, 255], np.uint8), np.array([1, 1, 1, 1, 0, 1], np.bool_)
    assert risk(ages, rated).tolist() == [LOW, LOW, MEDIUM, HIGH, MEDIUM, MEDIUM]
