import re

import numpy as np
import pytest
import xxhash

from embeddings.content import HASHES, TRUST, WORDS, Content, blended, words_of
from embeddings.ids import item_ids


def words(*records):
    return np.array([words_of(**record) for record in records], np.int16)


def cosine(one_D, other_D):
    return float(one_D @ other_D / np.linalg.norm(one_D) / np.linalg.norm(other_D))


def test_words_are_told_apart_by_kind_and_cut_off_kind_by_kind():
    said = words_of(
        categories=[f"c{n}" for n in range(9)], makers=["ann"], language="de", year=1997, title="Ann and the Sea, ok"
    )
    assert len(said) == WORDS
    assert [word >= 0 for word in said] == [True] * 6 + [True, False, False, False] + [True] * 3 + [True] * 3
    assert said[6] != said[13], "a maker is not a title"
    assert said[12] == words_of(year=1991)[12], "of one decade"
    assert said[11] != words_of(year=1991)[11]
    assert max(said) < HASHES
    assert words_of(categories=["DRAMA"]) == words_of(categories=["drama"])
    assert words_of() == [-1] * WORDS


def test_an_item_is_what_its_words_have_learned() -> None:
    known = [{"categories": ["a"], "year": 1990}] * 30 + [{"categories": ["b"], "year": 1990}] * 30
    own_ND = np.repeat(np.eye(4, dtype=np.float32)[:2], 30, axis=0)
    content = Content.learned(words(*known), own_ND, np.full(60, 1000, np.float32))
    a_D, b_D, neither_D = content.vectors(
        words({"categories": ["a"]}, {"categories": ["b"], "year": 1990}, {"categories": ["c"]}), item_ids("abc")
    )
    assert cosine(a_D, own_ND[0]) > 0.98
    assert cosine(b_D, own_ND[-1]) > 0.98
    assert cosine(neither_D, own_ND[0] + own_ND[-1]) > 0.98, "the mean of all"


def test_a_word_learns_what_the_words_before_it_leave_unsaid() -> None:
    """Of one category, the years tell apart what the category cannot."""
    known = [{"categories": ["a"], "year": 1990}] * 30 + [{"categories": ["a"], "year": 2010}] * 30
    own_ND = np.repeat(np.eye(4, dtype=np.float32)[:2], 30, axis=0)
    content = Content.learned(words(*known), own_ND, np.full(60, 1000, np.float32))
    old_D, new_D = content.vectors(words(*known)[[0, -1]], item_ids("ab"))
    assert cosine(old_D, own_ND[0]) > 0.95 > 0.3 > cosine(old_D, new_D)


def test_items_that_nobody_took_teach_nothing() -> None:
    content = Content.learned(words({"year": 1990}), np.ones((1, 3), np.float32), np.zeros(1, np.float32))
    assert not content.word_VD.any()
    assert not content.mean_D.any()


def test_no_two_items_share_a_vector_however_alike_their_records_are() -> None:
    own_ND = np.ones((2, 8), np.float32)
    content = Content.learned(words({"year": 1990}, {"year": 1990}), own_ND, np.full(2, 50, np.float32))
    alike = item_ids([f"episode {n}" for n in range(500)])
    vectors_RD = content.vectors(words(*[{"year": 1990}] * 500), alike)
    assert len(np.unique(vectors_RD, axis=0)) == 500
    assert min(cosine(vectors_RD[0], other_D) for other_D in vectors_RD) > 0.99
    np.testing.assert_array_equal(content.vectors(words({"year": 1990}), alike[7:8]), vectors_RD[7:8])
    best_P = (np.random.default_rng(0).standard_normal((100, 8), np.float32) @ vectors_RD.T).argmax(1)
    assert len(np.unique(best_P)) > 20, "another one stands first for another taste"
    assert len(np.unique(Content.unlearned(8).vectors(words(*[{}] * 500), alike), axis=0)) == 500


@pytest.mark.parametrize(("taken", "left"), [(0, 1.0), (TRUST / 3, 0.75), (TRUST, 0.5), (99 * TRUST, 0.01)])
def test_what_the_words_say_fades_as_an_item_is_taken(taken: float, left: float) -> None:
    own_RD, said_RD = np.array([[0, 2]], np.float32), np.array([[4, 0]], np.float32)
    got_RD = blended(own_RD, said_RD, np.array([taken], np.float32))
    np.testing.assert_allclose(got_RD, [[4 * left, 2]], rtol=1e-5)


def test_what_many_items_have_alike_is_cut_into_the_same_words_however_often_it_comes() -> None:
    def one_by_one(categories: tuple[str, ...], makers: tuple[str, ...], language: str, year: int, title: str):
        kinds = [(0, 6, categories), (6, 10, makers), (10, 11, (language,) if language else ())]
        kinds += [(11, 13, (str(year), f"{year // 10}0s") if year else ()), (13, 16, re.findall(r"\w{3,}", title))]
        out = [-1] * WORDS
        for kind, (begin, end, said) in enumerate(kinds):
            for place, word in enumerate(said[: end - begin]):
                out[begin + place] = xxhash.xxh32_intdigest(f"{kind}\0{word.casefold()}".encode()) % HASHES
        return out

    draw = np.random.default_rng(0)
    for _ in range(300):
        some = [tuple(f"Word {n}" for n in draw.integers(0, 5, draw.integers(0, 8))) for _ in range(3)]
        record = some[0], some[1], "de" * int(draw.integers(0, 2)), int(draw.choice([0, 1987])), " ".join(some[2])
        said = words_of(**dict(zip(("categories", "makers", "language", "year", "title"), record, strict=True)))
        assert said == one_by_one(*record)
