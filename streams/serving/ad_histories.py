"""What people took, as targeting asks of it ("saw X within T"): items, and the categories that these are of."""

import numpy as np
from numpy.typing import NDArray

from embeddings.items import Items
from embeddings.jit import kernel
from embeddings.state_columns import UserStates
from ranking.ads.opportunities import Histories
from streams.contract.campaign_records import key_of


class CategoryKeys:
    """The key (`ranking.ads.predicates.Saw.key`) of each category of an item table, by code."""

    def __init__(self) -> None:
        """Nothing is known yet; a table's categories only grow."""
        self._key_C = np.zeros(0, np.uint64)

    def of(self, items: Items) -> NDArray[np.uint64]:
        """The keys of all categories there are. Shape (C,)."""
        if len(self._key_C) < len(items.category_names):
            new = [key_of("category", name) for name in items.category_names[len(self._key_C) :]]
            self._key_C = np.append(self._key_C, np.array(new, np.uint64))
        return self._key_C


def histories_of(
    states: UserStates, user_P: NDArray[np.int64], known_P: NDArray[np.bool_], items: Items, keys: CategoryKeys
) -> Histories:
    """The histories at P places, those of their users; nothing where they must not be known. Holds `items.lock`."""
    taken_UH = states.item_UH
    with items.lock:
        row_UH = items.ids.rows(taken_UH)
        key_C = keys.of(items)
        category_NC = items.columns.categories_NC
        count_P = np.zeros(len(user_P), np.int64)
        _count(row_UH, states.count_U, user_P, known_P, category_NC, count_P)
        start_P1 = np.concatenate(([0], np.cumsum(count_P)))
        key_N, time_s_N = np.empty(start_P1[-1], np.uint64), np.empty(start_P1[-1], np.int64)
        columns = taken_UH, states.time_UH, row_UH, states.count_U
        _fill(columns, user_P, known_P, category_NC, key_C, start_P1, key_N, time_s_N)
    return Histories(key_N, time_s_N, start_P1, known_P)


@kernel
def _count(
    row_UH: NDArray[np.int32],
    count_U: NDArray[np.int32],
    user_P: NDArray[np.int64],
    known_P: NDArray[np.bool_],
    category_NC: NDArray[np.int16],
    count_P: NDArray[np.int64],
) -> None:
    for p in range(len(user_P)):
        u = user_P[p]
        for h in range(count_U[u] if known_P[p] else 0):
            count_P[p] += 1
            if row_UH[u, h] >= 0:
                for c in range(category_NC.shape[1]):
                    count_P[p] += category_NC[row_UH[u, h], c] >= 0


@kernel
def _fill(
    columns: tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]],
    user_P: NDArray[np.int64],
    known_P: NDArray[np.bool_],
    category_NC: NDArray[np.int16],
    key_C: NDArray[np.uint64],
    start_P1: NDArray[np.int64],
    key_N: NDArray[np.uint64],
    time_s_N: NDArray[np.int64],
) -> None:
    taken_UH, time_UH, row_UH, count_U = columns
    for p in range(len(user_P)):
        u, n = user_P[p], start_P1[p]
        for h in range(count_U[u] if known_P[p] else 0):
            key_N[n], time_s_N[n] = taken_UH[u, h], time_UH[u, h]
            n += 1
            if row_UH[u, h] >= 0:
                for c in range(category_NC.shape[1]):
                    if category_NC[row_UH[u, h], c] >= 0:
                        key_N[n], time_s_N[n] = key_C[category_NC[row_UH[u, h], c]], time_UH[u, h]
                        n += 1
