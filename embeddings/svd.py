"""Truncated singular value decomposition of a sparse square matrix, in the basis of the last one.

Subspace iteration with a random start (Halko, Martinsson and Tropp, 2011), or from the previous right vectors, which
a small change of the matrix hardly turns; then orthogonal Procrustes (Schönemann, 1966) over the rows both know, so
that an item's vector stays comparable from one refresh to the next.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from embeddings.jit import kernel

Float32 = NDArray[np.float32]

OVERSAMPLE = 8
DENSE_BELOW = 4096
"""Up to this many rows the matrix is multiplied dense: 64 MiB at most, and several times faster when it is full."""


@dataclass(frozen=True, slots=True)
class Factors:
    """Vectors of N items: `source_ND[j] · target_ND[x]` approximates M[j, x]; each holds the root of the values.

    `ids_N` says which items, where their rows may be given to others later.
    """

    source_ND: NDArray[np.float32]
    target_ND: NDArray[np.float32]
    ids_N: NDArray[np.uint64] | None = None

    def of(self, ids_N: NDArray[np.uint64]) -> "Factors":
        """These vectors, without those of rows that are other items' in `ids_N`."""
        if self.ids_N is None:
            return self
        shared = min(len(ids_N), len(self.ids_N))
        same_N = self.ids_N[:shared] == ids_N[:shared]
        if same_N.all():
            return self
        source_ND, target_ND = (np.where(same_N[:, None], v[:shared], 0) for v in (self.source_ND, self.target_ND))
        return Factors(source_ND, target_ND, self.ids_N[:shared])


def decompose(
    end_N: NDArray[np.int64],
    column: NDArray[np.int32],
    value: Float32,
    *,
    width: int,
    previous: Factors | None = None,
    passes: int = 1,
    seed: int = 0,
) -> Factors:
    """The `width` greatest singular triples of a matrix in compressed rows, as source and target vectors.

    Args:
        end_N: offsets into `column` and `value` where each row begins and ends, N+1 of them.
        column: column of each stored value.
        value: the stored values.
        width: D; columns beyond the rank are zero.
        previous: the last factors; its rows are the first rows of this matrix.
        passes: power iterations, of two products each; two more are added when there are no previous factors.
        seed: of the random start.
    """
    count = len(end_N) - 1
    rank = min(width, count)
    basis_NL = _orthonormal(_start(count, min(rank + OVERSAMPLE, count), previous, seed))
    times = _product(end_N, column, value)
    for _ in range(passes if previous is not None else passes + 2):
        basis_NL = _orthonormal(times(_orthonormal(times(basis_NL, False)), True))
    image_NL = times(basis_NL, False)
    factors = _factors(image_NL, basis_NL, rank, width)
    return factors if previous is None else aligned(factors, previous)


def aligned(factors: Factors, previous: Factors) -> Factors:
    """The same products in the basis nearest to the previous one, over the rows that both hold vectors of."""
    shared = min(len(factors.source_ND), len(previous.source_ND))
    turn_DD = sum(
        now[:shared].T.astype(np.float64) @ then[:shared]
        for now, then in ((factors.source_ND, previous.source_ND), (factors.target_ND, previous.target_ND))
    )
    left, _, right = np.linalg.svd(turn_DD)
    rotation_DD = (left @ right).astype(np.float32)
    return Factors(factors.source_ND @ rotation_DD, factors.target_ND @ rotation_DD)


def _start(count: int, width: int, previous: Factors | None, seed: int) -> Float32:
    """Random columns, or the previous target vectors and a few random columns beside them. Shape (N, L)."""
    start_NL = np.random.default_rng(seed).standard_normal((count, width), np.float32)
    if previous is not None:
        shared, known = min(count, len(previous.target_ND)), min(width, previous.target_ND.shape[1])
        start_NL[:, :known] *= 1e-3 / np.sqrt(max(count, 1))
        scale_K = np.linalg.norm(previous.target_ND[:, :known], axis=0)
        start_NL[:shared, :known] += previous.target_ND[:shared, :known] / np.maximum(scale_K, 1e-12)
    return start_NL


def _orthonormal(columns_NL: Float32) -> Float32:
    """An orthonormal basis of the columns' span, by the Gram matrix; directions beyond float precision are zero."""
    value_L, turn_LL = _gram(columns_NL)
    inverse_L = np.where(value_L > 1e-5 * value_L.max(initial=0.0), 1.0 / np.maximum(value_L, 1e-30), 0.0)
    return columns_NL @ (turn_LL * inverse_L).astype(np.float32)


def _gram(columns_NL: Float32) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Singular values, greatest first, and right singular vectors (as columns) of a tall matrix."""
    wide = columns_NL.astype(np.float64)
    square_L, turn_LL = np.linalg.eigh(wide.T @ wide)
    return np.sqrt(np.maximum(square_L[::-1], 0.0)), turn_LL[:, ::-1]


def _factors(image_NL: Float32, basis_NL: Float32, rank: int, width: int) -> Factors:
    """Source and target vectors from M's image of an orthonormal basis."""
    value_L, turn_LL = _gram(image_NL)
    root_R = np.sqrt(value_L[:rank])
    inverse_R = np.where(root_R > 1e-3 * root_R.max(initial=0.0), 1.0 / np.maximum(root_R, 1e-30), 0.0)
    source_ND = np.zeros((len(image_NL), width), np.float32)
    target_ND = np.zeros((len(image_NL), width), np.float32)
    source_ND[:, :rank] = image_NL @ (turn_LL[:, :rank] * inverse_R).astype(np.float32)
    target_ND[:, :rank] = basis_NL @ (turn_LL[:, :rank] * root_R * (inverse_R > 0)).astype(np.float32)
    return Factors(source_ND, target_ND)


def _product(end_N: NDArray[np.int64], column: NDArray[np.int32], value: Float32) -> Callable[[Float32, bool], Float32]:
    """How the matrix is multiplied with a tall one, or its transpose is."""
    count = len(end_N) - 1
    if count > DENSE_BELOW:
        return lambda right_NL, back: _times(end_N, column, value, right_NL, back)
    dense_NN = csr_array((value, column, end_N), shape=(count, count)).toarray()
    return lambda right_NL, back: (dense_NN.T if back else dense_NN) @ right_NL


@kernel
def _times(
    end_N: NDArray[np.int64], column: NDArray[np.int32], value: Float32, right_NL: Float32, back: bool
) -> Float32:
    """The matrix times a tall one; with `back` its transpose. Half the time of SciPy's product, which adds alike."""
    out_NL = np.zeros(right_NL.shape, np.float32)
    for row in range(len(end_N) - 1):
        for at in range(end_N[row], end_N[row + 1]):
            to, of = (column[at], row) if back else (row, column[at])
            out_L, right_L, weight = out_NL[to], right_NL[of], value[at]
            for i in range(len(out_L)):
                out_L[i] += weight * right_L[i]
    return out_NL
