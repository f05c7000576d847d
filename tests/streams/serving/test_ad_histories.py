"""Histories as targeting asks of them: items and their categories, and nothing where they must not be known."""

import numpy as np

from embeddings.ids import item_id
from embeddings.items import ItemFacts, Items
from embeddings.state_columns import no_states
from ranking.ads.opportunities import Histories
from streams.contract.campaign_records import key_of
from streams.serving.ad_histories import CategoryKeys, histories_of


def of_place(histories: Histories, p: int) -> dict[int, int]:
    here = slice(histories.start_P1[p], histories.start_P1[p + 1])
    return dict(zip(histories.key_N[here].tolist(), histories.time_s_N[here].tolist(), strict=True))


def test_items_and_their_categories_are_told_and_nobody_else_s() -> None:
    items, keys = Items(), CategoryKeys()
    items.add([ItemFacts(name="film", categories=("drama", "war")), ItemFacts(name="song", categories=("pop",))])
    states = no_states(2)
    states.item_UH[0, :2], states.time_UH[0, :2], states.count_U[0] = [item_id("film"), item_id("gone")], [90, 80], 2
    states.item_UH[1, 0], states.time_UH[1, 0], states.count_U[1] = item_id("song"), 70, 1

    user_P, known_P = np.array([1, 0, 0]), np.array([True, True, False])
    histories = histories_of(states, user_P, known_P, items, keys)

    assert of_place(histories, 0) == {item_id("song"): 70, key_of("category", "pop"): 70}
    assert of_place(histories, 1) == {
        item_id("film"): 90,
        key_of("category", "drama"): 90,
        key_of("category", "war"): 90,
        item_id("gone"): 80,
    }
    assert of_place(histories, 2) == {}
    assert histories.known_P.tolist() == [True, True, False]

    items.add([ItemFacts(name="gone", categories=("new",))])
    later = histories_of(states, user_P, known_P, items, keys)
    assert key_of("category", "new") in of_place(later, 1)
