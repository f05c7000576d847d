"""In which order inverted lists are visited, and how many of them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from embeddings import index_faiss
from embeddings.index_faiss import FaissEngine, FewEngine, ListsEngine, faiss

Floats = NDArray[np.float32]


def factors(count: int = 20_000, width: int = 16) -> tuple[Floats, Floats]:
    """Vectors in genres, popular ones long and all the more apart, and tastes: sums of four of them."""
    random = np.random.default_rng(0)
    length_N1 = (1 + np.arange(count))[:, None] ** -0.3
    vectors_ND = random.standard_normal((100, width))[np.arange(count) % 100]
    vectors_ND = ((vectors_ND + 0.5 * random.standard_normal((count, width))) * length_N1).astype(np.float32)
    held_QH = (count * random.random((200, 4)) ** 3).astype(np.int64)
    return vectors_ND, vectors_ND[held_QH].sum(1)


def recall(engine: FaissEngine, vectors_ND: Floats, query_QD: Floats, allowed_N: NDArray[np.bool_]) -> float:
    score_QN = np.where(allowed_N, query_QD @ vectors_ND.T, -np.inf)
    least_Q1 = -np.partition(-score_QN, 199, axis=1)[:, 199:200]
    place_Qk, _ = engine.search(query_QD, 200)
    assert allowed_N[place_Qk].all()
    return float((np.take_along_axis(score_QN, place_Qk, 1) >= least_Q1 - 1e-3).mean())


def test_where_all_lists_are_as_wide_they_are_visited_as_faiss_does() -> None:
    vectors_ND, query_QD = factors()
    index, centre_LD, spread_L = index_faiss._lists(vectors_ND, 1)
    order = faiss.IndexFlatIP(17)
    order.add(np.hstack([centre_LD, np.zeros_like(spread_L)[:, None]]))
    ours = ListsEngine(index, order, len(vectors_ND), 1, [12])
    theirs = FaissEngine(index, len(vectors_ND), parameters=faiss.SearchParametersIVF(nprobe=12))
    for mine, other in zip(ours.search(query_QD, 50), theirs.search(query_QD, 50), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_a_list_is_as_wide_as_its_vectors_lie_around_its_centre() -> None:
    vectors_ND, _ = factors()
    index, centre_LD, spread_L = index_faiss._lists(vectors_ND, 1)
    for one in (0, 7, index.nlist - 1):
        place_M = faiss.rev_swig_ptr(index.invlists.get_ids(one), index.invlists.list_size(one))
        np.testing.assert_allclose(spread_L[one], (vectors_ND[place_M] - centre_LD[one]).std(), rtol=0.2)


def test_by_how_wide_lists_are_more_is_found_in_as_many() -> None:
    vectors_ND, query_QD = factors()
    engine, _ = index_faiss.ivf(vectors_ND, 16, 1, 0.97)
    everything_N = np.ones(len(vectors_ND), np.bool_)
    by_centres = FaissEngine(
        engine._index, len(vectors_ND), parameters=faiss.SearchParametersIVF(nprobe=engine.breadth)
    )
    assert recall(engine, vectors_ND, query_QD, everything_N) > recall(by_centres, vectors_ND, query_QD, everything_N)


@pytest.mark.slow
def test_under_a_mask_as_much_is_found_as_without_and_no_more_lists_than_that_takes() -> None:
    vectors_ND, query_QD = factors(50_000)
    engine, _ = index_faiss.ivf(vectors_ND, 8, 1, 0.97)
    whole = recall(engine, vectors_ND, query_QD, np.ones(len(vectors_ND), np.bool_))
    breadths = [engine.breadth]
    for share in (0.5, 0.25):
        allowed_N = np.random.default_rng(1).random(len(vectors_ND)) < share
        within = engine.restricted(allowed_N)
        assert isinstance(within, ListsEngine)
        assert recall(within, vectors_ND, query_QD, allowed_N) > whole - 0.02
        breadths.append(within.breadth)
    assert breadths == sorted(breadths)
    assert breadths[1] < 2 * breadths[0], "a half allowed takes less than twice as many here"
    assert isinstance(engine.restricted(np.arange(len(vectors_ND)) < 9_000), FewEngine)
