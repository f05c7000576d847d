"""Recall@200 and microseconds per query of every item index, against exact products.

Two sets of vectors: factors of a synthetic log (Zipf items in 200 genres, three genres a person), queried with tastes
of its people, and clusters of vectors of about one length, on which most published figures rest. The row `faiss` is
plain FAISS: IVF512,SQ8 with 16 lists visited.

    python benchmarks/index_recall.py --items 100000 --events 1000000
"""

import argparse
import platform
import time
from collections.abc import Callable

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from embeddings import index_faiss
from embeddings.candidates import taste
from embeddings.cooccurrence import CountSettings, PairCounts
from embeddings.index import build_index

Floats = NDArray[np.float32]
K, HELD, GENRES = 200, 50, 200
YARDSTICK = "yardstick on clusters, one core: IVF512,SQ8 nprobe 16 recall .997 at 56-72 µs, exact 830 µs"


def a_log(items: int, events: int, seed: int = 0) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Items taken, in order, and the 50 items its taker held before each, latest first."""
    random = np.random.default_rng(seed)
    people = max(events // 50, 1)
    genre_N = random.integers(0, GENRES, items)
    by_genre = [np.flatnonzero(genre_N == g) for g in range(GENRES)]
    user_E = random.integers(0, people, events)
    genre_E = random.integers(0, GENRES, (people, 3))[user_E, random.integers(0, 3, events)]
    item_E = np.zeros(events, np.int32)
    for genre, members in enumerate(by_genre):
        chosen = np.flatnonzero(genre_E == genre)
        share = (1.0 + members) ** -0.8
        if len(members):
            item_E[chosen] = random.choice(members, len(chosen), p=share / share.sum())
    order = np.argsort(user_E, kind="stable")
    first = np.r_[True, np.diff(user_E[order]) != 0]
    rank = np.arange(events) - np.flatnonzero(first)[np.cumsum(first) - 1]
    held_EH = np.full((events, HELD), -1, np.int32)
    for h in range(HELD):
        at = np.flatnonzero(rank > h)
        held_EH[order[at], h] = item_E[order[at - 1 - h]]
    return item_E, held_EH


def factors(items: int, events: int, width: int) -> tuple[Floats, Floats]:
    """Target vectors and tastes to query with."""
    item_E, held_EH = a_log(items, events)
    counts = PairCounts(CountSettings(slots=256))
    began = time.perf_counter()
    for begin in range(0, events, 1000):
        counts.update(item_E[begin : begin + 1000], held_EH[begin : begin + 1000])
    print(f"counted {events:,} events in {time.perf_counter() - began:.1f} s, {counts.slots:,} slots")
    for label, call in {
        "factors, first": lambda: counts.factors(width),
        "neighbours": lambda: counts.neighbours(100),
    }.items():
        began = time.perf_counter()
        call()
        print(f"{label}: {time.perf_counter() - began:.2f} s")
    first = counts.factors(width)
    began = time.perf_counter()
    found = counts.factors(width, first)
    print(f"factors, refreshed: {time.perf_counter() - began:.2f} s")
    held = held_EH[-4000:]
    held = held[held[:, 4] >= 0][:1000]
    return found.target_ND, taste(held, np.ones(held.shape, np.float32), found.source_ND, 0.9)


def clusters(items: int, width: int) -> tuple[Floats, Floats]:
    """Vectors around 500 centres, and queries around the same centres."""
    random = np.random.default_rng(0)
    centre_CD = random.standard_normal((500, width))
    vectors_ND, query_QD = (
        centre_CD[random.integers(0, 500, count)] + 0.6 * random.standard_normal((count, width))
        for count in (items, 1000)
    )
    return vectors_ND.astype(np.float32), query_QD.astype(np.float32)


def suggested(vectors_ND: Floats) -> Callable[[Floats, int], tuple[NDArray[np.int32], Floats]]:
    """IVF512,SQ8 as FAISS builds it."""
    faiss.omp_set_num_threads(1)
    index = faiss.index_factory(vectors_ND.shape[1], "IVF512,SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors_ND[np.random.default_rng(0).permutation(len(vectors_ND))[:40_000]])
    index.add(vectors_ND)
    index.nprobe = 16
    return lambda query_QD, k: index.search(query_QD, k)[::-1]


def best_us(search: Callable[[Floats, int], object], query_QD: Floats, rounds: int = 7) -> float:
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        search(query_QD, K)
        took.append(time.perf_counter() - began)
    return min(took) / len(query_QD) * 1e6


def compare(name: str, vectors_ND: Floats, query_QD: Floats) -> None:
    print(f"\n{name}: {len(vectors_ND):,} x {vectors_ND.shape[1]}, k={K}")
    print(f"{'kind':10} {'recall@200':>10} {'us, 1':>7} {'us, 64':>7} {'build s':>8}  why")
    rows_N = np.arange(len(vectors_ND), dtype=np.int32)
    true_Qk: NDArray[np.int32] | None = None
    on_gpu = [("exact", "gpu"), ("ivf", "gpu")] if index_faiss.gpus() else []
    on_gpu += [("torch", "gpu")] if torch.cuda.is_available() else []
    for kind, device in [("exact", "cpu"), ("ivf", "cpu"), ("torch", "cpu"), *on_gpu, ("faiss", "")]:
        began = time.perf_counter()
        if kind == "faiss":
            search, label, why = suggested(vectors_ND), kind, "IVF512,SQ8 nprobe 16"
        else:
            index = build_index(rows_N, vectors_ND, kind=kind, device=device)  # type: ignore[arg-type]
            search, label, why = index.search, f"{index.kind}{' gpu' * (device == 'gpu')}", index.why
        built = time.perf_counter() - began
        found_Qk = search(query_QD, K)[0]
        true_Qk = found_Qk if true_Qk is None else true_Qk
        recall = np.mean([np.isin(true, found).mean() for true, found in zip(true_Qk, found_Qk, strict=True)])
        one, many = best_us(search, query_QD[:1]), best_us(search, query_QD[:64])
        print(f"{label:10} {recall:10.3f} {one:7.0f} {many:7.0f} {built:8.1f}  {why}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, one thread; {YARDSTICK}")
    compare("factors of a Zipf log, tastes", *factors(given.items, given.events, given.width))
    compare("clusters", *clusters(given.items, given.width))


if __name__ == "__main__":
    main()
