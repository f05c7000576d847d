"""Pages: as good as the best of all layouts that the rules allow, and never one that they do not."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking.ads.gates import HIGH, LOW, MEDIUM
from ranking.ads.joint import EMPTY, Layout, PageRules, Pages, lay, neighbourly
from ranking.ads.losses import Loss
from ranking.ads.separation import Kinds
from tests.fuzzing import thorough

OPEN = PageRules(ad_load_max=1, min_gap=0, tradeoff=1)
ORGANIC, AD = "organic", "ad"


def listed(laid: Layout, p: int = 0) -> list[tuple[str, int]]:
    """A page from the top."""
    pairs = zip(laid.organic_PT[p].tolist(), laid.ad_PT[p].tolist(), strict=True)
    return [(ORGANIC, o) if o != EMPTY else (AD, a) for o, a in pairs if (o, a) != (EMPTY, EMPTY)]


class Case(NamedTuple):
    """One small page."""

    places: int
    values: list[float]
    revenues: list[int]
    fits: list[list[bool]]
    kinds: list[int]
    rules: PageRules
    weights: list[float]

    def lay(self) -> Layout:
        pages = Pages.of([self.values], [self.revenues], places=self.places)
        fits_PAG = np.array(self.fits, np.bool_).reshape(1, len(self.revenues), -1)
        creatives = np.arange(len(self.revenues), dtype=np.int32)[None]
        pages = pages._replace(fits_PAG=fits_PAG[:, :, : len(self.values) + 1], creative_PA=creatives)
        of = Kinds(np.arange(len(self.kinds) + 1), np.array(self.kinds, np.int32), 8)
        return lay(pages, self.rules, of, np.array(self.weights))

    def room(self) -> int:
        most, items = 0, len(self.values)
        for k in range(self.places + 1):
            if k <= self.rules.ad_load_max * min(self.places, items + k) + 1e-9:
                most = k
        return most

    def items(self) -> int:
        items = min(len(self.values), self.places)
        return min(items, self.places - self.room()) if self.rules.collapse else items

    def standing(self) -> list[int]:
        """Ads that fit somewhere, of each kind the first."""
        found: list[int] = []
        for a in range(len(self.revenues)):
            if any(self.fits[a][: self.items() + 1]) and self.kinds[a] not in [self.kinds[b] for b in found]:
                found.append(a)
        return found

    def worth(self, page: list[tuple[str, int]]) -> float:
        return sum(
            weight * (self.values[n] if what == ORGANIC else self.rules.tradeoff * self.revenues[n])
            for weight, (what, n) in zip(self.weights, page, strict=False)
        )

    def allowed(self) -> Iterator[list[tuple[str, int]]]:
        """Every page that the rules allow: full, or with all organic items on it."""

        def extend(
            page: list[tuple[str, int]], o: int, after: int, since: int, ads: int
        ) -> Iterator[list[tuple[str, int]]]:
            if len(page) == self.places or o == self.items():
                yield page
            if len(page) == self.places:
                return
            if o < self.items():
                yield from extend([*page, (ORGANIC, o)], o + 1, after, since + 1, ads)
            if ads < self.room() and len(page) + 1 >= self.rules.first_slot and since >= self.rules.min_gap:
                for a in self.standing():
                    if a > after and self.fits[a][o]:
                        yield from extend([*page, (AD, a)], o, a, 0, ads + 1)

        yield from extend([], 0, -1, self.rules.min_gap, 0)


CASES = st.builds(
    Case,
    places=st.integers(0, 5),
    values=st.lists(st.integers(0, 9).map(float), max_size=5),
    revenues=st.lists(st.integers(0, 9), min_size=3, max_size=3),
    fits=st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=3, max_size=3),
    kinds=st.lists(st.integers(0, 2), min_size=3, max_size=3),
    rules=st.builds(
        PageRules,
        ad_load_max=st.sampled_from([0.0, 0.2, 0.34, 0.5, 1.0]), first_slot=st.integers(1, 4),
        min_gap=st.integers(0, 3),
        tradeoff=st.sampled_from([0.0, 0.5, 1.0, 3.0]), collapse=st.booleans(),
    ),
    weights=st.lists(st.integers(1, 4).map(float), min_size=5, max_size=5),
)  # fmt: skip


@thorough(300)  # the first example compiles
@given(CASES)
def test_a_page_is_the_best_of_those_that_the_rules_allow(case: Case) -> None:
    laid = case.lay()
    page, every = listed(laid), list(case.allowed())
    assert page in every
    best = max(map(case.worth, every))
    assert case.worth(page) == pytest.approx(best)
    assert laid.value_P[0] + case.rules.tradeoff * laid.revenue_P[0] == pytest.approx(best)
    placed = [n for what, n in page if what == AD]
    assert [a for a, code in enumerate(laid.code_PA[0].tolist()) if code == 0] == sorted(placed)


@settings(deadline=None)
@given(CASES)
def test_every_ad_that_is_not_on_the_page_is_told_why(case: Case) -> None:
    codes = case.lay().code_PA[0].tolist()
    for a, code in enumerate(codes):
        nowhere = not any(case.fits[a][: case.items() + 1])
        assert (code == Loss.adjacency_block) == nowhere
        assert (code == Loss.separation_block) == (not nowhere and a not in case.standing())


def test_pages_of_a_batch_do_not_see_each_other() -> None:
    pages = Pages.of([[3.0, 2.0], [], [1.0]], [[5], [7, 6], []], places=3)
    pages = pages._replace(creative_PA=np.zeros((3, 2), np.int32))
    of = Kinds(np.array([0, 1]), np.zeros(1, np.int32), 1)
    together = lay(pages, OPEN, of)
    assert [listed(together, p) for p in range(3)] == [[(ORGANIC, 0), (ORGANIC, 1), (AD, 0)], [(AD, 0)], [(ORGANIC, 0)]]
    assert together.code_PA.tolist()[1] == [0, Loss.separation_block]


def test_lambda_decides_between_revenue_and_what_people_want() -> None:
    pages = Pages.of([[5.0, 4.0]], [[1_000]], places=2)
    page = {weight: listed(lay(pages, PageRules(ad_load_max=0.5, tradeoff=weight))) for weight in (0.0, 0.0039, 0.0041)}
    assert page[0.0] == page[0.0039] == [(ORGANIC, 0), (ORGANIC, 1)]
    assert page[0.0041] == [(ORGANIC, 0), (AD, 0)]


def test_places_that_stay_unfilled_collapse_or_go_to_organic_items() -> None:
    pages = Pages.of([[1.0] * 4], [[]], places=4)
    assert len(listed(lay(pages, PageRules(ad_load_max=0.5)))) == 4
    assert len(listed(lay(pages, PageRules(ad_load_max=0.5, collapse=True)))) == 2


def test_neighbours_on_both_sides_are_judged_and_an_unrated_one_is_a_medium_risk() -> None:
    fits = neighbourly(
        np.array([[LOW, MEDIUM, HIGH]], np.uint8), np.array([3]), np.array([[LOW, MEDIUM, HIGH]], np.uint8)
    )
    assert fits.astype(int).tolist() == [[[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]]
    short = neighbourly(np.zeros((1, 3), np.uint8), np.array([1]), np.zeros((1, 1), np.uint8))
    assert short.all()
    bold = neighbourly(np.full((1, 2), HIGH, np.uint8), np.array([2]), np.array([[HIGH]], np.uint8), tolerance=HIGH)
    assert bold.all()


@pytest.mark.parametrize(
    "said", [{"ad_load_max": 1.1}, {"first_slot": 0}, {"min_gap": -1}, {"tradeoff": -1.0}, {"tradeoff": float("nan")}]
)
def test_rules_that_nobody_can_follow_are_refused(said: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        PageRules(**said)  # type: ignore[arg-type]


def test_weights_must_reach_to_the_last_place() -> None:
    with pytest.raises(ValueError, match="weights of 1 places for pages of 2"):
        lay(Pages.of([[1.0]], [[1]], places=2), OPEN, None, np.ones(1))
