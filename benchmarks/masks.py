"""What a mask costs: microseconds per query and recall at 100, 95, 50 and 5 % allowed, beside the search without one.

python benchmarks/masks.py --items 100000
"""

import argparse
import time

import numpy as np

from embeddings.eligibility import Mask
from embeddings.index import build_index

K, WIDTH, QUERIES, CHUNK = 300, 64, 512, 32


def main() -> None:
    """Print a line per share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    items = parser.parse_args().items
    random = np.random.default_rng(0)
    centre_CD = random.normal(size=(400, WIDTH))
    near_N = random.integers(0, 400, items + QUERIES)
    all_ND = (centre_CD[near_N] + 0.6 * random.normal(size=(items + QUERIES, WIDTH))).astype(np.float32)
    vectors_ND, query_QD = all_ND[:items], all_ND[items:]
    index = build_index(np.arange(items, dtype=np.int32), vectors_ND, kind="ivf", device="cpu")
    print(index.why)
    for share in (None, 1.0, 0.95, 0.5, 0.05):
        allowed_N = np.ones(items, np.bool_) if share is None else random.random(items) < share
        mask = None if share is None else Mask(allowed_N)
        index.search(query_QD[:CHUNK], K, mask)  # makes what is kept per mask
        best = np.inf
        for _ in range(3):
            began = time.perf_counter()
            found = [index.search(query_QD[at : at + CHUNK], K, mask) for at in range(0, QUERIES, CHUNK)]
            best = min(best, time.perf_counter() - began)
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
