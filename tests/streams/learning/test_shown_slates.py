"""The ring of slates that were shown, beside a list that keeps everything."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.learning.increments import Blocks
from streams.learning.shown_slates import ShownSlates
from tests.fuzzing import thorough

MOST, PLACES = 4, 16
Told = tuple[int, list[int]]


def show(ring: ShownSlates, *told: Told, features: int = 2) -> None:
    """Tell slates in one call, padded as an observation is."""
    item_LN = np.zeros((len(told), max([len(items) for _, items in told], default=0) + 1), np.uint64)
    for at, (_, items) in enumerate(told):
        item_LN[at, : len(items)] = items
    x_LNF = np.repeat(item_LN[..., None], features, 2).astype(np.float16)
    propensity_LN = (item_LN / 128).astype(np.float16)
    ring.show(np.array([slate for slate, _ in told], np.uint64), item_LN, x_LNF, propensity_LN)


def known(ring: ShownSlates, slates: range = range(1, 9)) -> dict[int, list[int]]:
    found = {slate: ring.find(slate) for slate in slates}
    for each in found.values():
        assert each is None or each.x_NF.tolist() == [[item] * 2 for item in each.item_N.tolist()]
        assert each is None or (each.propensity_N * 128).tolist() == each.item_N.tolist()
    return {slate: each.item_N.tolist() for slate, each in found.items() if each is not None}


def restored(ring: ShownSlates, features: int = 2) -> ShownSlates:
    again = ShownSlates(MOST, PLACES)
    again.restore({name: array.copy() for name, array in ring.state().items()}, features)
    return again


SLATE = st.tuples(st.integers(1, 8), st.lists(st.integers(1, 99), max_size=PLACES + 1))


@given(st.lists(SLATE, max_size=30))
@thorough(200)
def test_those_told_last_are_known_as_they_were_told_last(log: list[Told]) -> None:
    ring, order, told, gone = ShownSlates(MOST, PLACES), list[int](), dict[int, list[int]](), 0
    for slate, items in log:
        show(ring, (slate, items))
        if slate in order and len(told[slate]) != len(items):
            order.remove(slate)
        if 0 < len(items) <= PLACES and slate not in order:
            order.append(slate)
        told[slate], kept = items, known(ring)
        gone += len(order) - len(kept) + (len(items) > PLACES)
        order = order[len(order) - len(kept) :]
        assert kept == {slate: told[slate] for slate in order}
        assert known(restored(ring)) == kept
        assert ring.dropped == gone


def test_no_more_gives_way_than_must() -> None:
    ring = ShownSlates(MOST, PLACES)
    show(ring, *((slate, [slate] * 4) for slate in range(1, 5)))
    assert ring.dropped == 0
    show(ring, (5, [5]))
    assert (set(known(ring)), ring.dropped) == ({2, 3, 4, 5}, 1)
    show(ring, (6, [6] * 12))
    assert (set(known(ring)), ring.dropped) == ({5, 6}, 4)
    show(ring, (7, [7] * PLACES))
    assert (set(known(ring)), ring.dropped) == ({7}, 6)


def test_who_goes_on_from_a_state_forgets_in_the_same_order() -> None:
    for count in range(1, 12):
        ring = ShownSlates(MOST, PLACES)
        for slate in range(1, count + 1):
            show(ring, (slate, [slate] * 3))
        again = restored(ring)
        for later in range(count + 1, count + 6):
            show(again, (later, [later] * 3))
            assert list(known(again, range(1, 99))) == [n for n in range(later - MOST + 1, later + 1) if n > 0]


def test_places_are_taken_as_they_are_needed() -> None:
    ring = ShownSlates(10_000, 100_000)
    for slate in range(1, 1_500):
        show(ring, (slate, [slate % 999 + 1] * 3))
    assert all(ring.find(slate).item_N.tolist() == [slate % 999 + 1] * 3 for slate in range(1, 1_500))  # type: ignore[union-attr]
    assert 3 * 1_499 <= len(ring._item_P) < 10_000


def test_features_of_another_release_are_not_gone_on_with() -> None:
    ring = ShownSlates(MOST, PLACES)
    show(ring, (1, [7, 8]))
    assert len(restored(ring, 3)) == 0
    assert len(restored(ShownSlates(MOST, PLACES))) == 0


def test_a_new_slate_changes_the_blocks_it_lies_in_alone() -> None:
    ring, blocks = ShownSlates(1_000, 20_000), Blocks()
    for begin in range(1, 2_000, 100):
        show(ring, *((slate, [slate] * 20) for slate in range(begin, begin + 100)), features=28)
    blocks.look(ring.state())
    show(ring, (2_001, [1] * 20), features=28)
    assert {name: len(changed) for name, changed in blocks.look(ring.state()).items()}.keys() == ring.state().keys()
    show(ring, (2_002, [1] * 20), features=28)
    changed = blocks.look(ring.state())
    assert sum(len(block_B) for block_B in changed.values()) <= 8
