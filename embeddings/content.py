"""Vectors of items nobody took yet, made of what the catalogue says: the mean of what their categories have learned.

N items, R of them asked for, C categories, D components; an item's row of categories is -1 padded.
"""

import numpy as np
from numpy.typing import NDArray

_UNLEARNED_SCALE = 0.5
_NOTHING_KNOWN = 1e-6


def category_vectors(
    categories_NK: NDArray[np.int16], target_ND: NDArray[np.float32], categories: int
) -> NDArray[np.float32]:
    """The mean target vector of each category's items that have one; zeros where none has. Shape (C, D).

    >>> categories_NK = np.array([[0, 1], [0, -1], [1, -1]], np.int16)
    >>> category_vectors(categories_NK, np.array([[2, 0], [4, 0], [0, 0]], np.float32), 3).tolist()
    [[3.0, 0.0], [2.0, 0.0], [0.0, 0.0]]
    """
    sums_CD = np.zeros((categories, target_ND.shape[1]), np.float32)
    counts_C = np.zeros(categories, np.float32)
    learned_N = np.any(target_ND[: len(categories_NK)], axis=1)
    for k in range(categories_NK.shape[1]):
        rows = np.flatnonzero(learned_N & (categories_NK[:, k] >= 0))
        np.add.at(sums_CD, categories_NK[rows, k], target_ND[rows])
        np.add.at(counts_C, categories_NK[rows, k], 1)
    return (sums_CD / np.maximum(counts_C, 1)[:, None]).astype(np.float32)


def content_vectors(categories_RK: NDArray[np.int16], category_CD: NDArray[np.float32]) -> NDArray[np.float32]:
    """A stand-in vector for items nobody took yet: half the mean of their categories' vectors. Shape (R, D).

    Items without a known category get the mean of all categories; a small multiple, so that what was learned wins.
    """
    categories, width = category_CD.shape
    if not categories:
        return np.full((len(categories_RK), width), _NOTHING_KNOWN, np.float32)
    known_RK = (categories_RK >= 0) & (categories_RK < categories)
    summed_RD = np.where(known_RK[..., None], category_CD[np.where(known_RK, categories_RK, 0)], 0).sum(1)
    count_R = known_RK.sum(1)
    mean_RD = np.where(count_R[:, None] > 0, summed_RD / np.maximum(count_R, 1)[:, None], category_CD.mean(0) * 0.5)
    vector_RD: NDArray[np.float32] = (mean_RD * _UNLEARNED_SCALE).astype(np.float32)
    return vector_RD
