"""What a mask costs: microseconds per query and recall at 100, 95, 50 and 5 % allowed, beside the search without one.

python benchmarks/masks.py --items 100000

Queries are tastes: faded sums of 20 items of three clusters. Microseconds are the processor's.
"""

import argparse
import time

import numpy as np
from numpy.typing import NDArray

from embeddings.eligibility import Mask
from embeddings.index import build_index

K, WIDTH, QUERIES, CHUNK = 300, 64, 512, 32


def tastes(
    vectors_ND: NDArray[np.float32], near_N: NDArray[np.integer], random: np.random.Generator
) -> NDArray[np.float32]:
    """What people like who hold 20 items of three clusters. Shape (Q, D)."""
    members = [np.flatnonzero(near_N == cluster) for cluster in range(near_N.max() + 1)]
    liked_Q3 = random.integers(0, len(members), (QUERIES, 3))
    held_QH = [[random.choice(members[liked[h % 3]]) for h in range(20)] for liked in liked_Q3.tolist()]
    faded_H = (0.9 ** np.arange(20)).astype(np.float32)
    taste_QD: NDArray[np.float32] = np.einsum("h,qhd->qd", faded_H, vectors_ND[np.array(held_QH)])
    return taste_QD


def main() -> None:
    """Print a line per share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    items = parser.parse_args().items
    random = np.random.default_rng(0)
    centre_CD = random.normal(size=(400, WIDTH))
    near_N = random.integers(0, 400, items)
    vectors_ND = (centre_CD[near_N] + 0.6 * random.normal(size=(items, WIDTH))).astype(np.float32)
    query_QD = tastes(vectors_ND, near_N, random)
    index = build_index(np.arange(items, dtype=np.int32), vectors_ND, kind="ivf", device="cpu")
    print(index.why)
    for share in (None, 1.0, 0.95, 0.5, 0.05):
        allowed_N = np.ones(items, np.bool_) if share is None else random.random(items) < share
        mask = None if share is None else Mask(allowed_N)
        index.search(query_QD[:CHUNK], K, mask)  # makes what is kept per mask
        best = np.inf
        for _ in range(3):
            began = time.thread_time()
            found = [index.search(query_QD[at : at + CHUNK], K, mask) for at in range(0, QUERIES, CHUNK)]
            best = min(best, time.thread_time() - began)
        score_Qk = np.concatenate([score for _, score in found])
        row_Qk = np.concatenate([row for row, _ in found])
        true_QA = query_QD @ vectors_ND[allowed_N].T
        least_Q1 = -np.partition(-true_QA, K - 1, axis=1)[:, K - 1 : K]
        recall = ((row_Qk >= 0) & (score_Qk >= least_Q1 - 1e-3 * np.abs(least_Q1))).mean()
        print(
            f"{'no mask' if share is None else f'{share:.0%} allowed':>12} {best / QUERIES * 1e6:7.0f} us {recall:.3f}"
        )


if __name__ == "__main__":
    main()
