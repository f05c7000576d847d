"""FAISS engines: exact and inverted lists, on the CPU and on a GPU.

Co-occurrence factors have norms that span two orders of magnitude, and the nearest items by inner product are mostly
long vectors. FAISS's own clustering for inner products looks at directions alone and finds a third of them; here the
lists are clustered by distance, which keeps long vectors together, and visited by the best that each may hold.
"""

import threading
from collections.abc import Callable
from typing import Any

import faiss as untyped
import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

faiss: Any = untyped  # its type stubs lag behind it

RECALL_AT = 200
_SAMPLE = 64
_HALVINGS = 4
"""For how many halvings of what is allowed it is measured how many lists are to be visited."""
_REACHES = 0.0, 1.0
"""How many standard deviations beyond its centre a list may be expected to hold something; see `ListsEngine`."""
_TRAIN_PER_LIST = 48
_FEW = 10_000
"""Of so many allowed positions every product is computed."""
_GPU_MOST = 2048
"""The most results and the most lists of one search that FAISS allows on a GPU."""


_GPU_TURN = threading.Lock()
_RESOURCES: dict[int, Any] = {}
"""A GPU's scratch memory, shared by all indices of the process, which therefore take turns."""


class FaissEngine:
    """A FAISS index by position. Searches run side by side on the CPU, one at a time on a GPU."""

    def __init__(self, index: Any, count: int, *, threads: int = 1, parameters: Any = None, gpu: bool = False) -> None:
        """`parameters` are FAISS search parameters; on a GPU they are set on the index instead."""
        self.count = count
        self._index, self._threads, self._parameters = index, threads, parameters
        self.gpu, self.recall = gpu, 1.0
        self._bits: NDArray[np.uint8] | None = None  # which positions are allowed, where the parameters select
        self._selector: Any = None

    def search(self, query_QD: Vectors, k: int) -> tuple[NDArray[np.int64], Vectors]:
        """See `embeddings.index.Engine.search`."""
        if not k or not len(query_QD):
            return _room(query_QD, k)
        if self.gpu:
            return self._on_gpu(query_QD, k)
        faiss.omp_set_num_threads(self._threads)  # OpenMP keeps this per calling thread
        score_Qk, place_Qk = self._index.search(query_QD, k, params=self._parameters)
        return place_Qk, score_Qk

    def restricted(self, allowed_N: NDArray[np.bool_]) -> "FaissEngine | FewEngine | None":
        """See `embeddings.index.Engine.restricted`; a GPU cannot select."""
        if self.gpu:
            return None
        bits, selector = _selecting(allowed_N)
        parameters = faiss.SearchParameters(sel=selector)
        within = FaissEngine(self._index, int(allowed_N.sum()), threads=self._threads, parameters=parameters)
        within._bits, within._selector = bits, selector
        return within

    def follow(self, place_R: NDArray[np.intp], allowed_R: NDArray[np.bool_]) -> bool:
        """See `embeddings.index.Engine.follow`."""
        if self._bits is None:
            return False
        bit_R = np.left_shift(np.uint8(1), (place_R & 7).astype(np.uint8))
        np.bitwise_or.at(self._bits, place_R[allowed_R] >> 3, bit_R[allowed_R])
        np.bitwise_and.at(self._bits, place_R[~allowed_R] >> 3, ~bit_R[~allowed_R])
        self.count = int(np.bitwise_count(self._bits).sum())
        return True

    def _on_gpu(self, query_QD: Vectors, k: int) -> tuple[NDArray[np.int64], Vectors]:
        place_Qk = np.full((len(query_QD), k), -1, np.int64)
        score_Qk = np.zeros((len(query_QD), k), np.float32)
        most = min(k, _GPU_MOST)
        with _GPU_TURN:
            score_Qk[:, :most], place_Qk[:, :most] = self._index.search(query_QD, most)
        return place_Qk, score_Qk


class ListsEngine(FaissEngine):
    """Inverted lists on the CPU, those first that may hold the best.

    A list is ranked by its centre's product and by how far its vectors lie around that: their products spread by the
    length of the query times their standard deviation. Where long and short vectors lie in one direction, twice as many
    lists have to be visited by the centres alone at a million items; on factors of a log it changes little. `order`
    holds the centres, with that one of `_REACHES` times the deviation as one number more that needs fewer lists.
    """

    def __init__(self, index: Any, order: Any, count: int, threads: int, breadth_J: list[int], share: float = 1.0):
        """`breadth_J` lists are visited where all, a half, a quarter … may be answered."""
        super().__init__(index, count, threads=threads)
        self._order, self._breadth_J = order, breadth_J
        self.breadth = min(index.nlist, _breadth(breadth_J, share))

    def search(self, query_QD: Vectors, k: int) -> tuple[NDArray[np.int64], Vectors]:
        """See `embeddings.index.Engine.search`."""
        place_Qk, score_Qk = out = _room(query_QD, k)
        if not out[0].size:
            return out
        faiss.omp_set_num_threads(self._threads)
        length_Q1 = np.linalg.norm(query_QD, axis=1, keepdims=True)
        worth_Qn, list_Qn = self._order.search(np.hstack([query_QD, length_Q1]), self.breadth)
        parameters = faiss.SearchParametersIVF(sel=self._selector, nprobe=self.breadth)
        arrays = (faiss.swig_ptr(each) for each in (list_Qn, worth_Qn, score_Qk, place_Qk))
        self._index.search_preassigned_c(
            len(query_QD), faiss.swig_ptr(query_QD), k, *arrays, False, parameters
        )  # the wrapper for arrays takes no parameters
        return out

    def restricted(self, allowed_N: NDArray[np.bool_]) -> "ListsEngine | FewEngine":
        """See `embeddings.index.Engine.restricted`; where the allowed are few they are searched whole."""
        allowed = int(allowed_N.sum())
        if allowed <= _FEW:
            return FewEngine(self._index, np.flatnonzero(allowed_N), self._threads)
        share = allowed / len(allowed_N)
        within = ListsEngine(self._index, self._order, allowed, self._threads, self._breadth_J, share)
        within._bits, within._selector = _selecting(allowed_N)
        return within


def _breadth(breadth_J: list[int], share: float) -> int:
    """How many lists to visit where a share is allowed: the k best of a half are among the 2k best of all.

    Between what was measured by interpolation of logarithms, beyond it in proportion to 1 / share.

    >>> [_breadth([10, 30], share) for share in (1.0, 0.75, 0.5, 0.25)]
    [10, 16, 30, 60]
    """
    halvings, last = -float(np.log2(share)), len(breadth_J) - 1
    within = np.interp(halvings, np.arange(last + 1), np.log2(breadth_J))
    return int(np.ceil(2 ** (within + max(halvings - last, 0)) - 1e-6))


def _selecting(allowed_N: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], Any]:
    """The bits of what is allowed, and what selects by them as long as they are kept."""
    bits = np.packbits(allowed_N, bitorder="little")
    return bits, faiss.IDSelectorBitmap(len(allowed_N), faiss.swig_ptr(bits))


def _room(query_QD: Vectors, k: int) -> tuple[NDArray[np.int64], Vectors]:
    return np.empty((len(query_QD), k), np.int64), np.empty((len(query_QD), k), np.float32)


class FewEngine:
    """Some positions of inverted lists, every product of which is computed."""

    gpu, recall = False, 1.0

    def __init__(self, lists: Any, place_A: NDArray[np.int64], threads: int) -> None:
        """`lists` are an index with a direct map; `place_A` are the positions, ascending."""
        self.count, self._place_A = len(place_A), place_A
        vectors_AD = lists.reconstruct_batch(place_A) if len(place_A) else np.empty((0, lists.d), np.float32)
        self._engine, _ = exact(vectors_AD, threads)

    def search(self, query_QD: Vectors, k: int) -> tuple[NDArray[np.int64], Vectors]:
        """See `embeddings.index.Engine.search`."""
        place_Qk, score_Qk = self._engine.search(query_QD, k)
        return np.where(place_Qk >= 0, np.append(self._place_A, -1)[place_Qk], -1), score_Qk

    def restricted(self, allowed_N: NDArray[np.bool_]) -> None:
        """Is not restricted again."""

    def follow(self, place_R: NDArray[np.intp], allowed_R: NDArray[np.bool_]) -> bool:
        """See `embeddings.index.Engine.follow`; what is not allowed any more is left out of its answers."""
        return bool(np.isin(place_R[allowed_R], self._place_A).all())


def gpus() -> int:
    """How many GPUs this build of FAISS sees."""
    return int(faiss.get_num_gpus())


def exact(vectors_ND: Vectors, threads: int) -> tuple[FaissEngine, str]:
    """Every product is computed, in single precision."""
    index = faiss.IndexFlatIP(vectors_ND.shape[1])
    index.add(vectors_ND)
    return FaissEngine(index, len(vectors_ND), threads=threads), "every product"


def ivf(vectors_ND: Vectors, nprobe: int, threads: int, recall: float) -> tuple[ListsEngine, str]:
    """Inverted lists in half precision, as many visited as a sample of the vectors needs for the recall asked for."""
    index, centre_LD, spread_L = _lists(vectors_ND, threads)

    def least(order: Any, breadth: int, halvings: int) -> tuple[int, float]:
        def visiting(breadth: int) -> ListsEngine:
            return ListsEngine(index, order, len(vectors_ND), threads, [breadth])

        return _visited(visiting, index.nlist, vectors_ND, breadth, recall, RECALL_AT << halvings)

    orders = [_order(centre_LD, reach * spread_L) for reach in _REACHES]
    tried = [least(order, min(nprobe, index.nlist), 0) for order in orders]
    (first, found), order = min(zip(tried, orders, strict=True), key=lambda each: (each[0][0], -each[0][1]))
    breadth_J = [first]
    most = int(np.log2(max(len(vectors_ND) / _FEW, 1)))  # where fewer are allowed they are searched whole
    for halvings in range(1, min(most, _HALVINGS) + 1):
        breadth_J.append(least(order, breadth_J[-1], halvings)[0])
    engine = ListsEngine(index, order, len(vectors_ND), threads, breadth_J)
    engine.recall = found
    return engine, _note(first, index, found)


def _order(centre_LD: Vectors, reach_L: Vectors) -> Any:
    """What ranks lists for a query and its length."""
    order = faiss.IndexFlatIP(centre_LD.shape[1] + 1)
    order.add(np.hstack([centre_LD, reach_L[:, None]]))
    return order


def _note(breadth: int, index: Any, found: float) -> str:
    return f"{breadth} of {index.nlist} lists, recall@{RECALL_AT} {found:.3f} on a sample"


def gpu_exact(vectors_ND: Vectors, memory_mb: int) -> tuple[FaissEngine, str]:
    """Every product on the GPU, over vectors in half precision."""
    config = faiss.GpuIndexFlatConfig()
    config.useFloat16 = True
    with _GPU_TURN:
        index = faiss.GpuIndexFlatIP(_gpu(memory_mb), vectors_ND.shape[1], config)
        index.add(vectors_ND)
    return FaissEngine(index, len(vectors_ND), gpu=True), "every product, half precision"


def gpu_ivf(vectors_ND: Vectors, nprobe: int, recall: float, memory_mb: int) -> tuple[FaissEngine, str]:
    """The inverted lists of the CPU, copied to the GPU, which ranks them by their centres."""
    index, _, _ = _lists(vectors_ND, threads := faiss.omp_get_max_threads())

    def visiting(breadth: int) -> FaissEngine:
        parameters = faiss.SearchParametersIVF(nprobe=breadth)
        return FaissEngine(index, len(vectors_ND), threads=threads, parameters=parameters)

    nprobe, found = _visited(visiting, index.nlist, vectors_ND, min(nprobe, index.nlist), recall, RECALL_AT)
    with _GPU_TURN:
        copy = faiss.index_cpu_to_gpu(_gpu(memory_mb), 0, index)
    copy.nprobe = min(nprobe, _GPU_MOST)
    engine = FaissEngine(copy, len(vectors_ND), gpu=True)
    engine.recall = found
    return engine, _note(nprobe, index, found)


def _gpu(memory_mb: int) -> Any:
    """FAISS's resources of the first GPU, made once per process; a quarter of the memory is for scratch."""
    if 0 not in _RESOURCES:
        resources = faiss.StandardGpuResources()
        resources.setTempMemory(memory_mb << 18)
        _RESOURCES[0] = resources
    return _RESOURCES[0]


def _lists(vectors_ND: Vectors, threads: int) -> tuple[Any, Vectors, Vectors]:
    """Inverted lists clustered by distance, their centres (L, D), and their vectors' standard deviations (L,)."""
    count, width = vectors_ND.shape
    lists = max(1, min(4096, 1 << int(np.log2(max(8.0 * np.sqrt(count), 1.0))), count // 16))
    faiss.omp_set_num_threads(threads)
    chosen = np.random.default_rng(0).permutation(count)[: lists * _TRAIN_PER_LIST]
    clusters = faiss.Kmeans(width, lists, niter=10, seed=1, min_points_per_centroid=1)
    clusters.train(vectors_ND[chosen])
    near, best = faiss.IndexFlatL2(width), faiss.IndexFlatIP(width)
    near.add(clusters.centroids)
    best.add(clusters.centroids)
    index = faiss.IndexIVFScalarQuantizer(
        best, width, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
    )
    index.train(vectors_ND[chosen])
    apart_N1, list_N1 = near.search(vectors_ND, 1)
    places_N = np.arange(count, dtype=np.int64)
    pointers = faiss.swig_ptr(vectors_ND), faiss.swig_ptr(places_N), faiss.swig_ptr(list_N1)
    index.add_core(count, *pointers)
    index.make_direct_map()
    held_L = np.bincount(list_N1[:, 0], minlength=lists)
    apart_L = np.bincount(list_N1[:, 0], np.maximum(apart_N1[:, 0], 0), minlength=lists)
    return index, clusters.centroids, np.sqrt(apart_L / np.maximum(held_L, 1) / width).astype(np.float32)


def _visited(
    visiting: Callable[[int], FaissEngine], lists: int, vectors_ND: Vectors, breadth: int, recall: float, k: int
) -> tuple[int, float]:
    """How many lists find a sample's k best, grown by an eighth again and again, and the share that these find."""
    query_QD, least_Q1 = _sample(vectors_ND, k)
    while True:
        found = _recall(visiting(breadth), vectors_ND, query_QD, least_Q1, k)
        if found >= recall or breadth >= lists:
            return breadth, found
        breadth = min(lists, breadth + max(1, breadth // 8))


def _sample(vectors_ND: Vectors, k: int) -> tuple[Vectors, Vectors]:
    """Queries like tastes, sums of four vectors, long ones preferred, and the product of each one's k-th best."""
    length_N = np.linalg.norm(vectors_ND, axis=1) + 1e-12
    drawn_QD = np.random.default_rng(1).choice(len(vectors_ND), (_SAMPLE, 4), p=length_N / length_N.sum())
    query_QD = vectors_ND[drawn_QD].sum(1)
    _, true_Qk = exact(vectors_ND, 1)[0].search(query_QD, min(k, len(vectors_ND)))
    return query_QD, true_Qk[:, -1:]


def _recall(engine: FaissEngine, vectors_ND: Vectors, query_QD: Vectors, least_Q1: Vectors, k: int) -> float:
    """Share of an engine's k best that belong there; ties do."""
    place_Qk, _ = engine.search(query_QD, min(k, len(vectors_ND)))
    score_Qk = np.einsum("qd,qkd->qk", query_QD, vectors_ND[place_Qk])
    return float(((place_Qk >= 0) & (score_Qk >= least_Q1 - 1e-4 * np.abs(least_Q1))).mean())
