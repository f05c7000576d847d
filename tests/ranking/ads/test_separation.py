"""One ad of a kind on a page: against the plain words of the rule, and with nothing changed where all are apart."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.ads.auction import NEVER, NOBODY, Auction, Sold, sell
from ranking.ads.losses import Loss
from ranking.ads.separation import KindBook, Kinds, sell_apart
from tests.fuzzing import thorough
from tests.ranking.ads.test_gates import creative, house_of

Candidates = list[tuple[int, int, int]]
"""Tier, bid, and the creative shown."""


def auction_of(requests: list[Candidates], slots: list[int], floor: int = 0) -> tuple[Auction, np.ndarray]:
    made = Auction.of([[(tier, bid) for tier, bid, _ in some] for some in requests], reserve=floor)
    creative_C = np.array([shown for some in requests for _, _, shown in some], np.int32)
    line_C = np.arange(len(creative_C), dtype=np.uint64)
    return replace(made, slots_R=np.array(slots, np.int64), line_C=line_C), creative_C


def kinds(*of: set[int]) -> Kinds:
    start = np.cumsum([0, *map(len, of)])
    return Kinds(start, np.array([kind for some in of for kind in sorted(some)], np.int32), 8)


def winners(sold: Sold) -> list[list[int]]:
    return [[c for c in row if c != NOBODY] for row in sold.winner_RS.tolist()]


def test_the_dearer_of_two_winners_of_a_kind_stays_and_the_other_place_is_sold_again() -> None:
    auction, shown = auction_of([[(0, 900, 0), (0, 500, 1)], [(0, 950, 0), (0, 400, 2), (0, 300, 1)]], [1, 1])
    sold = sell_apart(auction, np.zeros(2, np.int64), kinds({0}, {1}, {2}), shown)
    assert winners(sold) == [[1], [2]]
    assert sold.code_C.tolist() == [Loss.separation_block, 0, 0, Loss.outbid, Loss.outbid]
    assert sold.lost_to_C[0] == 2
    assert sold.min_to_win_C[0] == NEVER
    assert sold.price_RS.tolist() == [[0], [sell(auction).price_RS[1, 0]]]


def test_a_later_tier_gives_way_whatever_it_bids() -> None:
    auction, shown = auction_of([[(1, 900, 0)], [(0, 100, 0)]], [1, 1])
    sold = sell_apart(auction, np.zeros(2, np.int64), kinds({0}), shown)
    assert winners(sold) == [[], [1]]


def test_different_pages_may_show_the_same() -> None:
    auction, shown = auction_of([[(0, 900, 0)], [(0, 100, 0)]], [1, 1])
    sold = sell_apart(auction, np.array([0, 1]), kinds({0}), shown)
    assert winners(sold) == [[0], [1]]


def test_kinds_are_advertisers_domains_categories_and_labels() -> None:
    house = house_of(
        (creative("a", cat=("IAB2",)), creative("b", adomain=("b.example",))), (creative("c", cat=("IAB2",)),)
    )
    assert np.diff(KindBook().of(house).start_N1).tolist() == [3, 2, 3]
    only = KindBook(["cat"]).of(house)
    assert (np.diff(only.start_N1).tolist(), only.kind_M.tolist(), only.total) == ([1, 0, 1], [0, 0], 1)
    with pytest.raises(ValueError, match="separation by 'colour'; allowed: advertiser, adomain, cat, label"):
        KindBook(["colour"])


def test_kinds_that_are_nobodys_any_more_are_numbered_anew() -> None:
    book, most = KindBook(["adomain"]), 0
    for day in range(9):
        house = house_of(*((creative(f"{n}", adomain=(f"{day}-{n}.example",)),) for n in range(1_000)))
        found = book.of(house)
        assert len(np.unique(found.kind_M)) == 1_000
        most = max(most, found.total)
    assert most < 5_000


def expected(requests: list[Candidates], slots: list[int], of: list[set[int]], floor: int) -> list[list[int]]:
    """The rule in plain words, for one page."""
    starts = np.cumsum([0, *map(len, requests)])
    barred: set[int] = set()
    flat = [candidate for some in requests for candidate in some]
    while True:
        auction, _ = auction_of(requests, slots, floor)
        barred_C = np.array([Loss.invalid if c in barred else 0 for c in range(len(flat))], np.int16)
        won = winners(sell(replace(auction, barred_C=barred_C)))
        order = sorted((c for row in won for c in row), key=lambda c: (flat[c][0], -flat[c][1]))
        kept: list[int] = []
        turned = False
        for c in order:
            if any(of[flat[c][2]] & of[flat[k][2]] for k in kept):
                turned = True
            else:
                kept.append(c)
        if not turned:
            return won
        for r, row in enumerate(won):
            if set(row) - set(kept):
                barred |= {
                    c for c in range(starts[r], starts[r + 1])
                    if c not in kept and any(of[flat[c][2]] & of[flat[k][2]] for k in kept)
                }  # fmt: skip


CANDIDATES = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 60), st.integers(0, 4)), max_size=6)
KINDS = st.lists(st.sets(st.integers(0, 7), max_size=3), min_size=5, max_size=5)
PAGES = st.lists(st.lists(st.tuples(CANDIDATES, st.integers(0, 3)), min_size=1, max_size=3), min_size=1, max_size=3)


@thorough(200)
@given(PAGES, KINDS, st.integers(0, 20))
def test_pages_are_sold_as_the_rule_says(
    pages: list[list[tuple[Candidates, int]]], of: list[set[int]], floor: int
) -> None:
    places = [(page, candidates, slots) for page, some in enumerate(pages) for candidates, slots in some]
    auction, shown = auction_of([each[1] for each in places], [each[2] for each in places], floor)
    page_R = np.array([each[0] for each in places], np.int64)
    sold = sell_apart(auction, page_R, kinds(*of), shown)
    plain = sell(auction)
    offset = 0
    for page, some in enumerate(pages):
        at = np.flatnonzero(page_R == page)
        requests, slots = [each[0] for each in some], [each[1] for each in some]
        found = [winners(sold)[r] for r in at]
        alone, _ = auction_of(requests, slots, floor)
        assert all(set(row) <= set(range(len(shown))) for row in found)
        names = [c for row in found for c in row]
        kinds_shown = [kind for c in names for kind in of[shown[c]]]
        assert len(kinds_shown) == len(set(kinds_shown))
        if all(np.array_equal(winners(plain)[r], winners(sold)[r]) for r in at):
            assert (sold.price_RS[at] == plain.price_RS[at]).all()
        offset += len(alone.line_C)
    assert offset == len(shown)
    for c in np.flatnonzero(sold.code_C == Loss.separation_block).tolist():
        assert of[shown[c]] & of[shown[sold.lost_to_C[c]]]
        assert sold.code_C[sold.lost_to_C[c]] == 0
    lost = (sold.code_C != Loss.separation_block) & (plain.code_C != 0) & (sold.code_C != 0)
    assert (sold.code_C[lost] == plain.code_C[lost]).all()


@thorough(200)
@given(st.lists(st.tuples(CANDIDATES, st.integers(0, 3)), min_size=1, max_size=3), KINDS, st.integers(0, 20))
def test_one_page_has_the_winners_of_plain_python(
    page: list[tuple[Candidates, int]], of: list[set[int]], floor: int
) -> None:
    requests, slots = [each[0] for each in page], [each[1] for each in page]
    distinct = iter(range(1_000))  # no two scores are equal: ties are the auction's own business
    requests = [[(tier, bid * 1_000 + next(distinct), shown) for tier, bid, shown in some] for some in requests]
    auction, shown = auction_of(requests, slots, floor * 1_000)
    sold = sell_apart(auction, np.zeros(len(page), np.int64), kinds(*of), shown)
    assert winners(sold) == expected(requests, slots, of, floor * 1_000)
