"""What may stand in a slot: against the plain words of the rules, for random houses and slots."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking.ads.campaigns import (
    FOREVER_MS,
    BidType,
    Campaign,
    Creative,
    Deal,
    LineItem,
    Rotation,
    Status,
    Type,
)
from ranking.ads.inventory import FORMATS, House, Inventory, PerLine, carries
from ranking.ads.losses import Loss
from ranking.ads.selection import Fits, Slot, Slots, chosen, fitting

NOW_MS = 1_750_000_000_000


def creative(crid: str = "cr", **more: Any) -> Creative:
    said: dict[str, Any] = {"approved": True, "format": "banner", "adomain": ("a.example",)}
    return Creative(key=crid, crid=crid, **said | more)


def line(id_: str = "l1", **more: Any) -> LineItem:
    said: dict[str, Any] = {
        "key": f"c1/{id_}", "id": id_, "campaign_id": "c1", "advertiser": "acme", "type": Type.price_priority,
        "priority": 12, "status": Status.active, "bid_type": BidType.cpm, "bid_micros": 1_000, "currency": "USD",
        "time_zone": "UTC", "creatives": (creative(),),
    }  # fmt: skip
    return LineItem(**said | more)


def campaign(*lines: LineItem, id_: str = "c1") -> Campaign:
    return Campaign(
        id=id_, advertiser="acme", order_id=None, name=id_, status=Status.active, currency="USD", time_zone="UTC",
        budget_micros=None, daily_budget_micros=None, line_items=lines,
    )  # fmt: skip


def house_of(*lines: LineItem) -> House:
    inventory = Inventory()
    inventory.put(campaign(*lines))
    return inventory.snapshot()


def fit(house: House, *slots: Slot, now_ms: int = NOW_MS) -> Fits:
    """Every line item in every slot."""
    rows = np.tile(np.arange(house.rows, dtype=np.int32), len(slots))
    return fitting(house, Slots.of(slots, house), np.arange(len(slots) + 1) * house.rows, rows, now_ms)


@pytest.mark.parametrize(
    ("slot", "more", "loss"),
    [
        (Slot(), {}, None),
        (Slot(), {"approved": False}, Loss.creative_pending),
        (Slot(formats=("video",)), {}, Loss.wrong_format),
        (Slot(sizes=((300, 250), (728, 90))), {"size": (728, 90)}, None),
        (Slot(sizes=((300, 250),)), {"size": (250, 300)}, Loss.size_not_allowed),
        (Slot(sizes=((300, 250),)), {}, None),
        (Slot(seconds=(5, 15)), {"duration_s": 15}, None),
        (Slot(seconds=(5, 15)), {"duration_s": 16}, Loss.wrong_format),
        (Slot(seconds=(5, 0)), {"duration_s": 4}, Loss.wrong_format),
        (Slot(mimes=("video/mp4",)), {"mimes": ("Video/MP4", "x/y")}, None),
        (Slot(mimes=("video/mp4",)), {"mimes": ("x/y",)}, Loss.wrong_format),
        (Slot(mimes=("video/mp4",)), {}, Loss.wrong_format),
        (Slot(age_limit=12), {"age": 12}, None),
        (Slot(age_limit=12), {"age": 16}, Loss.rating_block),
        (Slot(), {"age": 255}, Loss.rating_block),
        (Slot(blocked=("adv:example",)), {}, Loss.advertiser_excluded),
        (Slot(blocked=("adv:b.example",)), {}, None),
        (Slot(blocked=("cat:1:IAB7",)), {"cat": ("IAB7-39",)}, Loss.category_excluded),
        (Slot(blocked=("cat:1:IAB7-3",)), {"cat": ("IAB7-39",)}, None),
        (Slot(blocked=("cat:1:7",)), {"cat": ("7",), "cattax": 6}, None),
        (Slot(blocked=("cattax:0",)), {}, Loss.category_excluded),
        (Slot(blocked=("attr:3",)), {"attr": (1, 3)}, Loss.creative_filtered),
    ],
)
def test_a_creative_is_turned_away_with_its_reason(slot: Slot, more: dict[str, Any], loss: Loss | None) -> None:
    fits = fit(house_of(line(creatives=(creative(**more),))), slot)
    assert fits.code_M.tolist() == [loss or 0]
    assert len(fits.creative_N) == (loss is None)


@pytest.mark.parametrize(
    ("slot", "more", "loss"),
    [
        (Slot(), {"status": Status.paused}, Loss.invalid),
        (Slot(), {"flights": ((NOW_MS, NOW_MS + 1),)}, None),
        (Slot(), {"flights": ((NOW_MS - 2, NOW_MS), (NOW_MS + 1, FOREVER_MS))}, Loss.expired),
        (Slot(), {"creatives": ()}, Loss.invalid),
        (Slot(), {"deal": Deal(id="d1", floor_micros=1, at=3, guaranteed=False)}, Loss.invalid),
        (Slot(deals=("d2", "d1")), {"deal": Deal(id="d1", floor_micros=1, at=3, guaranteed=False)}, None),
        (Slot(deals=("d2",)), {}, None),
        (Slot(deals=("d2",), deals_only=True), {}, Loss.invalid),
    ],
)
def test_so_is_a_line_item(slot: Slot, more: dict[str, Any], loss: Loss | None) -> None:
    assert fit(house_of(line(**more)), slot).code_M.tolist() == [loss or 0]


def test_the_reason_is_that_of_the_creative_that_came_furthest() -> None:
    some = creative("a", approved=False), creative("b", age=18), creative("c", format="video")
    assert fit(house_of(line(creatives=some)), Slot(formats=("banner",), age_limit=6)).code_M.tolist() == [
        Loss.rating_block
    ]


def test_a_block_holds_for_its_own_slot_alone() -> None:
    house = house_of(line("l1"), line("l2", creatives=(creative(adomain=("b.example",)),)))
    fits = fit(house, Slot(blocked=("adv:a.example",)), Slot(blocked=("adv:b.example",)), Slot())
    excluded = int(Loss.advertiser_excluded)
    assert fits.code_M.tolist() == [excluded, 0, 0, excluded, 0, 0]
    assert np.diff(fits.start_M1).tolist() == [0, 1, 1, 0, 1, 1]


WORDS = st.sampled_from(["a.example", "b.a.example", "c.example", "example"])
CATS = st.sampled_from(["IAB1", "IAB1-2", "IAB2"])
CREATIVES = st.builds(
    creative,
    approved=st.booleans(),
    format=st.sampled_from(FORMATS),
    adomain=st.tuples(WORDS),
    cat=st.tuples(CATS),
    size=st.sampled_from([None, (1, 1), (2, 2)]),
    duration_s=st.sampled_from([None, 5, 10]),
    age=st.sampled_from([0, 12, 18]),
)
SLOTS = st.builds(
    Slot,
    formats=st.lists(st.sampled_from(FORMATS), min_size=1, unique=True).map(tuple),
    sizes=st.lists(st.sampled_from([(1, 1), (2, 2), (3, 3)]), max_size=2).map(tuple),
    seconds=st.sampled_from([(0, 0), (6, 0), (0, 6)]),
    blocked=st.lists(WORDS.map("adv:{}".format) | CATS.map("cat:1:{}".format), max_size=2).map(tuple),
    age_limit=st.sampled_from([6, 12, 254]),
)


def stands(slot: Slot, one: Creative) -> bool:
    """The rules in plain words."""
    least, most = slot.seconds
    return (
        one.approved
        and one.format in slot.formats
        and (not slot.sizes or one.size is None or one.size in slot.sizes)
        and (not one.duration_s or (one.duration_s >= least and (not most or one.duration_s <= most)))
        and (one.age or 0) <= slot.age_limit
        and not set(slot.blocked) & set(carries(one))
    )


@settings(deadline=None)  # the first example compiles
@given(st.lists(st.lists(CREATIVES, max_size=3), min_size=1, max_size=3), st.lists(SLOTS, min_size=1, max_size=3))
def test_what_fits_is_what_the_rules_say(shown: list[list[Creative]], slots: list[Slot]) -> None:
    house = house_of(*(line(f"l{n}", creatives=tuple(some)) for n, some in enumerate(shown)))
    fits = fit(house, *slots)
    found = [
        [house.creatives[c] for c in fits.creative_N[first:last].tolist()]
        for first, last in zip(fits.start_M1[:-1], fits.start_M1[1:], strict=True)
    ]
    assert found == [[one for one in some if stands(slot, one)] for slot in slots for some in shown]
    assert [code == 0 for code in fits.code_M] == [bool(some) for some in found]


@pytest.mark.parametrize(
    ("rotation", "draw", "shown", "crid"),
    [
        (Rotation.optimised, 2, 0, "b"),
        (Rotation.even, 2, 0, "c"),
        (Rotation.even, 3, 0, "a"),
        (Rotation.weighted, 4, 0, "b"),
        (Rotation.weighted, 6, 0, "c"),
        (Rotation.sequential, 2, 0, "c"),
        (Rotation.sequential, 2, 1, "b"),
        (Rotation.sequential, 2, 5, "a"),
    ],
)
def test_one_creative_is_chosen_as_the_rotation_says(rotation: Rotation, draw: int, shown: int, crid: str) -> None:
    some = tuple(creative(c, weight=w, sequence=s) for c, w, s in (("a", 1, 3), ("b", 5, 2), ("c", 1, 1)))
    house = house_of(line(rotation=rotation, creatives=some), line("l2", creatives=()))
    fits, rows = fit(house, Slot()), np.arange(2, dtype=np.int32)
    draws = np.array([draw, draw], np.uint64)
    out_M = chosen(house, fits, rows, draws, np.array([0.1, 0.3, 0.2]), np.array([shown, shown]))
    assert [house.creatives[c].crid if c >= 0 else None for c in out_M.tolist()] == [crid, None]


def test_a_line_item_keeps_its_row_and_a_row_that_is_free_is_given_again() -> None:
    inventory = Inventory()
    first, _ = inventory.put(campaign(line("l1"), line("l2")))
    old = inventory.snapshot()
    again, gone = inventory.put(campaign(line("l2", bid_micros=7)))
    assert {held.id: row for row, held in again.items()} == {"l2": {v.id: k for k, v in first.items()}["l2"]}
    assert gone == set(first) - set(again)
    other, _ = inventory.put(campaign(line("l9", key="c2/l9"), id_="c2"))
    assert set(other) == gone
    new = inventory.snapshot()
    assert [held.id if held else None for held in new.lines] == ["l9", "l2"]
    assert new.line_L["bid_micros"].tolist() == [1_000, 7]
    assert [held.id if held else None for held in old.lines] == ["l1", "l2"]
    assert inventory.stop("c1") == set(again)
    assert inventory.snapshot().line_L["live"].tolist() == [True, False]
    assert inventory.snapshot() is inventory.snapshot()
    assert inventory.stop("never") == set()


def test_of_line_items_that_stay_nothing_is_worked_out_again() -> None:
    made: list[str] = []
    known = PerLine(lambda one: made.append(one.key) or one.key, "")
    a, b, c = (line(name, key=name) for name in "abc")
    assert known.of([None, a, b]) == ["", "a", "b"]
    assert known.of([c, a, None, b]) == ["c", "a", "", "b"]
    assert known.of([c]) == ["c"]
    assert known.of([c, a]) == ["c", "a"]
    assert made == ["a", "b", "c", "b", "a"]
