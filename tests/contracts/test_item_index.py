"""What every kind of item index promises, each kind against exact products."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from embeddings import index_faiss
from embeddings.eligibility import Mask
from embeddings.index import ItemIndex, build_index

needs_torch_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
needs_faiss_gpu = pytest.mark.skipif(not index_faiss.gpus(), reason="FAISS sees no GPU")

Build = Callable[..., ItemIndex]
KINDS = {
    "exact": ("cpu", 1.0, ()),
    "ivf": ("cpu", 0.9, ()),
    "torch": ("cpu", 1.0, ()),
    "torch-gpu": ("gpu", 0.99, needs_torch_gpu),
    "exact-gpu": ("gpu", 0.99, needs_faiss_gpu),
    "ivf-gpu": ("gpu", 0.9, needs_faiss_gpu),
}


@pytest.fixture(params=[pytest.param(kind, marks=marks) for kind, (_, _, marks) in KINDS.items()])
def build(request: pytest.FixtureRequest) -> Build:
    device = KINDS[request.param][0]

    def make(rows_N: NDArray[np.int32], vectors_ND: NDArray[np.float32], **settings: Any) -> ItemIndex:
        return build_index(rows_N, vectors_ND, kind=request.param.removesuffix("-gpu"), device=device, **settings)

    make.recall = KINDS[request.param][1]  # type: ignore[attr-defined]
    return make


def vectors(count: int, width: int = 16, seed: int = 0) -> NDArray[np.float32]:
    """Clustered vectors of very different lengths, as factors have."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((20, width))
    directions = centres[random.integers(0, 20, count)] + 0.5 * random.standard_normal((count, width))
    return (directions * random.pareto(1.5, (count, 1)).clip(0.01, 20)).astype(np.float32)


def some_rows(count: int) -> NDArray[np.int32]:
    """Rows in no order, with gaps."""
    return (np.random.default_rng(5).permutation(count) * 3 + 1).astype(np.int32)


def test_the_greatest_products_are_found(build: Build) -> None:
    rows_N, vectors_ND, query_QD = some_rows(3_000), vectors(3_000), vectors(40, seed=1)
    found_Qk, score_Qk = build(rows_N, vectors_ND).search(query_QD, 50)
    product_QN = query_QD @ vectors_ND.T
    best_Qk = rows_N[np.argsort(-product_QN, axis=1)[:, :50]]
    recall = np.mean([np.isin(best, found).mean() for best, found in zip(best_Qk, found_Qk, strict=True)])
    assert recall >= build.recall  # type: ignore[attr-defined]
    assert found_Qk.dtype == np.int32
    assert score_Qk.dtype == np.float32
    place_of = dict(zip(rows_N.tolist(), range(3_000), strict=True))
    for q in range(40):
        places = [place_of[row] for row in found_Qk[q].tolist() if row >= 0]
        np.testing.assert_allclose(score_Qk[q, : len(places)], product_QN[q, places], rtol=1e-2, atol=2e-2)
        assert (np.diff(score_Qk[q, : len(places)]) <= 0).all()
        assert len(set(places)) == len(places)


def test_fewer_rows_than_asked_for_are_padded(build: Build) -> None:
    index = build(np.array([4, 9, 2], np.int32), np.array([[1, 0], [3, 0], [2, 0]], np.float32))
    rows_Qk, score_Qk = index.search(np.array([[1, 0]], np.float32), 5)
    assert rows_Qk.tolist() == [[9, 2, 4, -1, -1]]
    assert score_Qk.tolist() == [[3, 2, 1, 0, 0]]


def test_an_empty_index_finds_nothing_until_something_is_added(build: Build) -> None:
    index = build(np.empty(0, np.int32), np.empty((0, 2), np.float32))
    assert index.size == 0
    assert index.search(np.ones((2, 2), np.float32), 2)[0].tolist() == [[-1, -1], [-1, -1]]
    index.add(np.array([3], np.int32), np.ones((1, 2), np.float32))
    assert index.search(np.ones((1, 2), np.float32), 2)[0].tolist() == [[3, -1]]


def test_no_queries_have_no_answers(build: Build) -> None:
    rows_Qk, score_Qk = build(some_rows(100), vectors(100)).search(np.empty((0, 16), np.float32), 5)
    assert rows_Qk.shape == score_Qk.shape == (0, 5)


def test_equal_scores_come_in_the_order_of_rows(build: Build) -> None:
    index = build(np.array([8, 3, 5], np.int32), np.ones((3, 2), np.float32))
    index.add(np.array([4], np.int32), np.ones((1, 2), np.float32))
    assert index.search(np.ones((1, 2), np.float32), 4)[0].tolist() == [[3, 4, 5, 8]]


def test_added_rows_are_found_at_once(build: Build) -> None:
    index = build(some_rows(500), vectors(500))
    far = np.full((1, 16), 100, np.float32)
    index.add(np.array([100_000], np.int32), far)
    assert index.size == 501
    assert index.search(far, 3)[0][0, 0] == 100_000


def test_adding_a_known_row_replaces_its_vector(build: Build) -> None:
    index = build(np.array([1, 2], np.int32), np.array([[1, 0], [2, 0]], np.float32))
    for length in (5, 7, 6):
        index.add(np.array([1], np.int32), np.array([[length, 0]], np.float32))
    rows_Qk, score_Qk = index.search(np.array([[1, 0]], np.float32), 3)
    assert rows_Qk.tolist() == [[1, 2, -1]]
    assert score_Qk.tolist() == [[6, 2, 0]]
    assert index.size == 2


def test_of_a_row_added_twice_at_once_the_last_counts(build: Build) -> None:
    index = build(np.array([1], np.int32), np.array([[1, 0]], np.float32))
    index.add(np.array([7, 7], np.int32), np.array([[9, 0], [3, 0]], np.float32))
    assert index.search(np.array([[1, 0]], np.float32), 2)[1].tolist() == [[3, 1]]


def test_removed_rows_are_not_found_and_do_not_shorten_answers(build: Build) -> None:
    rows_N, vectors_ND = some_rows(2_000), vectors(2_000)
    index = build(rows_N, vectors_ND)
    query_QD = vectors(5, seed=3)
    before, _ = index.search(query_QD, 300)
    index.remove(before[:, :200].ravel())
    after, _ = index.search(query_QD, 20)
    assert not np.isin(after, before[:, :200]).any()
    assert (after >= 0).all()
    assert index.size == 2_000 - len(np.unique(before[:, :200]))


def test_a_removed_row_can_come_back(build: Build) -> None:
    index = build(np.array([1, 2], np.int32), np.eye(2, dtype=np.float32))
    index.remove(np.array([1, 77], np.int32))
    assert index.size == 1
    assert index.search(np.ones((1, 2), np.float32), 2)[0].tolist() == [[2, -1]]
    index.add(np.array([1], np.int32), np.array([[3, 0]], np.float32))
    index.remove(np.array([2], np.int32))
    assert index.search(np.ones((1, 2), np.float32), 2)[0].tolist() == [[1, -1]]


def test_a_query_is_answered_alike_alone_and_in_a_batch(build: Build) -> None:
    index, query_QD = build(some_rows(1_000), vectors(1_000)), vectors(30, seed=2)
    together = index.search(query_QD, 20)[1]
    alone = np.concatenate([index.search(query_QD[q : q + 1], 20)[1] for q in range(30)])
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-3)


def test_searches_go_on_while_rows_change_and_an_index_is_built(build: Build) -> None:
    rows_N, vectors_ND = some_rows(1_500), vectors(1_500)
    index = build(rows_N, vectors_ND)
    query_QD = vectors(8, seed=4)
    stop = threading.Event()
    wrong: list[object] = []

    def search() -> None:
        while not stop.is_set():
            found_Qk, _ = index.search(query_QD, 30)
            if not (found_Qk >= 0).all():
                wrong.append(found_Qk)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for begin in range(0, 600, 60):
        index.remove(rows_N[begin : begin + 60])
        index.add(rows_N[begin : begin + 30], vectors_ND[begin : begin + 30])
    build(rows_N, vectors_ND)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert index.size == 1_200


def test_an_index_says_what_it_is_and_why(build: Build) -> None:
    index = build(some_rows(300), vectors(300))
    assert index.kind in index.why
    assert "300 vectors of 16" in index.why


@pytest.mark.parametrize(("count", "kind"), [(500, "exact"), (12_000, "ivf")])
def test_the_kind_is_chosen_by_size(count: int, kind: str) -> None:
    index = build_index(some_rows(count), vectors(count), device="cpu")
    assert index.kind == kind
    assert "10,000" in index.why


def test_ivf_visits_enough_lists_for_the_recall_asked_for() -> None:
    rows_N, vectors_ND = some_rows(12_000), vectors(12_000)
    less, more = (build_index(rows_N, vectors_ND, kind="ivf", device="cpu", recall=r).why for r in (0.5, 0.999))
    assert int(less.split()[1]) < int(more.split()[1])


@pytest.mark.skipif(torch.cuda.is_available() or index_faiss.gpus() > 0, reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="sees a GPU"):
        build_index(some_rows(10), vectors(10), device="gpu")


@pytest.mark.parametrize("share", [1.0, 0.5, 0.05, 0.0])
def test_under_a_mask_the_best_that_are_allowed_are_found(build: Build, share: float) -> None:
    rows_N, vectors_ND, query_QD = some_rows(12_000), vectors(12_000), vectors(20, seed=5)
    index = build(rows_N, vectors_ND)
    allowed_N = np.zeros(int(rows_N.max()) + 1, np.bool_)
    allowed_N[rows_N[: int(share * len(rows_N))]] = True
    found_Qk, score_Qk = index.search(query_QD, 50, Mask(allowed_N))
    assert allowed_N[found_Qk[found_Qk >= 0]].all()
    if not share:
        assert (found_Qk == -1).all()
        return
    wanted_QA = np.sort(query_QD @ vectors_ND[allowed_N[rows_N]].T)[:, ::-1][:, :50]
    assert (found_Qk >= 0).all()
    assert (score_Qk >= wanted_QA[:, -1:] - 1e-2).mean() > 0.9


def test_a_mask_holds_for_what_comes_and_goes(build: Build) -> None:
    index = build(np.arange(3, dtype=np.int32), np.array([[3, 0], [2, 0], [1, 0]], np.float32))
    mask = Mask(np.array([True, True, False, False, True]))
    query_QD = np.array([[1, 0]], np.float32)
    assert index.search(query_QD, 3, mask)[0].tolist() == [[0, 1, -1]]
    index.add(np.array([3, 4, 5], np.int32), np.array([[9, 0], [8, 0], [7, 0]], np.float32))
    index.remove(np.array([0], np.int32))
    assert index.search(query_QD, 3, mask)[0].tolist() == [[4, 1, -1]]


@pytest.mark.parametrize("share", [0.0, 0.002])
def test_what_a_mask_allows_later_is_found_as_if_it_always_had(build: Build, share: float) -> None:
    rows_N, vectors_ND, query_QD = np.arange(24_000, dtype=np.int32), vectors(24_000), vectors(8, seed=6)
    index, mask = build(rows_N, vectors_ND), Mask(np.random.default_rng(7).random(24_000) < share)
    few = int(mask.allowed_N.sum())
    assert (index.search(query_QD, few + 1, mask)[0] >= 0).sum(1).max() == few
    for opened in np.array_split(np.flatnonzero(~mask.allowed_N).astype(np.int32), 4):
        mask.allow(opened, np.ones(len(opened), np.bool_))
        found_Qk, _ = index.search(query_QD, few + 100, mask)
        assert (found_Qk >= 0).all()
        wanted_Qk, _ = index.search(query_QD, few + 100, Mask(mask.allowed_N.copy()))
        assert np.mean([np.isin(*pair).mean() for pair in zip(wanted_Qk, found_Qk, strict=True)]) > 0.95


def test_the_fewer_a_mask_allows_the_further_is_looked(build: Build) -> None:
    rows_N, vectors_ND, query_QD = np.arange(40_000, dtype=np.int32), vectors(40_000), vectors(20, seed=5)
    mask = Mask(np.random.default_rng(7).random(40_000) < 0.26)
    found_Qk, _ = build(rows_N, vectors_ND).search(query_QD, 200, mask)
    allowed = np.flatnonzero(mask.allowed_N)
    best_Qk = allowed[np.argsort(-(query_QD @ vectors_ND[allowed].T), axis=1)[:, :200]]
    assert np.mean([np.isin(*pair).mean() for pair in zip(best_Qk, found_Qk, strict=True)]) > 0.85
