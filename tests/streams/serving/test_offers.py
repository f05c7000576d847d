"""Offers that follow the item table row by row are those that would be made anew."""

import numpy as np
import pytest

from embeddings.eligibility import Viewer
from embeddings.ids import item_ids
from embeddings.index import build_index
from embeddings.items import ItemCounts, ItemFacts, Items
from streams.serving.offers import Offer, Offers

NOW, FRESH_S = 1_750_000_000, 500
VIEWERS = Viewer(), Viewer("DE", 12, "tv"), Viewer("FR"), Viewer("JP", 18, "home")


def some_facts(draw: np.random.Generator, now_s: int, n: int) -> ItemFacts:
    """An item with limits and dates by chance."""
    return ItemFacts(
        name=f"i{n}",
        added_s=now_s,
        available_from_s=int(draw.choice([0, now_s - 50, now_s + int(draw.integers(1, 200))])),
        available_until_s=int(draw.choice([now_s + int(draw.integers(1, 300)), 1 << 40])),
        territories=tuple(draw.choice(["DE", "FR"], int(draw.integers(2)))),
        surfaces=("tv",) if draw.random() < 0.2 else (),
        age=int(draw.choice([0, 0, 16])),
        hidden=bool(draw.random() < 0.05),
    )


def some_counts(draw: np.random.Generator, clock_s: int) -> ItemCounts:
    names = [f"i{n}" for n in draw.permutation(400)[:20]]
    takes_N4 = draw.integers(0, 50, (20, 4)).astype(np.float32)
    column_N, times_N = takes_N4[:, 0], np.full(20, clock_s)
    return ItemCounts(
        item_N=item_ids(names), popularity_N4=takes_N4, likes_N=column_N, dislikes_N=column_N, shown_N=column_N,
        clicked_N=column_N, last_taken_s_N=times_N, first_seen_s_N=times_N, clock_s=clock_s,
    )  # fmt: skip


def assert_alike(offer: Offer, anew: Offer, size: int) -> None:
    np.testing.assert_array_equal(offer.blocked_N[:size], anew.blocked_N[:size])
    np.testing.assert_array_equal(offer.mask.allowed_N, ~offer.blocked_N)
    for name in ("trending_T", "popular_T", "popularity_T", "fresh_F"):
        np.testing.assert_array_equal(getattr(offer, name), getattr(anew, name), name)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_an_offer_that_followed_is_the_one_that_would_be_made_anew(seed: int) -> None:
    draw, items, now_s = np.random.default_rng(seed), Items(capacity=64, catalogue_unread=seed % 2 == 0), NOW
    offers = Offers(items)
    for turn in range(120):
        now_s += int(draw.integers(0, 40))
        chance = draw.random()
        if chance < 0.4:
            items.add([some_facts(draw, now_s, int(n)) for n in np.unique(draw.integers(0, 400, 8))])
        elif chance < 0.6:
            items.count(some_counts(draw, now_s - 100))
        elif chance < 0.7:
            items.remove(f"i{draw.integers(400)}")
        elif chance < 0.8:
            items.ensure(item_ids(["only", f"named-{turn}"]), ["only", f"named-{turn}"])
        elif turn == 90:
            items.catalogue_read()
        with items.lock:
            for viewer in VIEWERS if turn % 7 else VIEWERS[:1]:
                whose = items.class_of(viewer)
                anew = Offers(items).of(whose, now_s, FRESH_S)
                assert_alike(offers.of(whose, now_s, FRESH_S), anew, len(items))


@pytest.mark.parametrize("kind", ["exact", "ivf", "torch"])
def test_a_search_under_a_mask_follows_what_may_be_shown(kind: str) -> None:
    draw, items, offers = np.random.default_rng(0), Items(), None
    rows_R = items.add([ItemFacts(name=f"i{n}", added_s=NOW) for n in range(400)])
    vectors_ND = draw.standard_normal((400, 8)).astype(np.float32)
    index = build_index(rows_R, vectors_ND, kind=kind, device="cpu")  # type: ignore[arg-type]
    offers, query_QD = Offers(items), draw.standard_normal((4, 8)).astype(np.float32)
    for turn in range(60):
        items.add([some_facts(draw, NOW + turn, int(n)) for n in np.unique(draw.integers(0, 400, 12))])
        gone = np.array([items.remove(f"i{n}") for n in draw.integers(0, 400, 2)], np.int32)
        index.remove(gone)
        back_R = rows_R[~items.columns.removed_N[rows_R] & ~index.holds(rows_R)]
        index.add(back_R, vectors_ND[back_R])
        for viewer in VIEWERS[:2]:
            with items.lock:
                offer = offers.of(items.class_of(viewer), NOW + turn, FRESH_S)
            found_Qk, _ = index.search(query_QD, 400, offer.mask)
            allowed = np.flatnonzero(~offer.blocked_N)
            assert all(set(row_k[row_k >= 0].tolist()) <= set(allowed.tolist()) for row_k in found_Qk)
            if kind != "ivf":  # which may miss some
                assert set(found_Qk[0][found_Qk[0] >= 0].tolist()) == set(allowed.tolist())


def test_a_catalogue_record_changes_what_it_is_about_and_nothing_else() -> None:
    items = Items()
    items.add([ItemFacts(name=f"i{n}", added_s=NOW) for n in range(50)])
    offers, whose = Offers(items), items.class_of(Viewer())
    with items.lock:
        before = offers.of(whose, NOW, FRESH_S)
        told = before.mask.changed.end
    items.add([ItemFacts(name="i7", hidden=True), ItemFacts(name="i8", added_s=NOW)])
    with items.lock:
        after = offers.of(whose, NOW, FRESH_S)
    assert after.blocked_N is before.blocked_N
    changed = after.mask.changed.since(told)
    assert changed is not None
    assert changed.tolist() == [7]


def test_only_so_many_classes_of_viewers_are_remembered_and_those_that_come_are() -> None:
    items = Items()
    items.add([ItemFacts(name="a", age=12, territories=("DE",), added_s=NOW)])
    offers, everybody = Offers(items), items.class_of(Viewer())
    with items.lock:
        first = offers.of(everybody, NOW, FRESH_S)
    for n in range(600):
        viewer = Viewer("DE" if n % 2 else "FR", n // 2)
        offers.prepare(items.class_of(viewer), NOW)
        with items.lock:
            assert offers.of(items.class_of(viewer), NOW, FRESH_S).mask.allowed_N[0] == (n % 2 and n // 2 >= 12)
            assert offers.of(everybody, NOW, FRESH_S).blocked_N is first.blocked_N
    assert len(offers.masks()) == 256
