import numpy as np

from embeddings.content import category_vectors, content_vectors


def test_a_category_is_the_mean_of_its_items_that_have_learned() -> None:
    categories_NK = np.array([[0, 1], [0, -1], [1, 0], [-1, -1]], np.int16)
    target_ND = np.array([[2, 0], [4, 0], [0, 0], [9, 9]], np.float32)
    assert category_vectors(categories_NK, target_ND, 3).tolist() == [[3, 0], [2, 0], [0, 0]]
    assert category_vectors(categories_NK[:0], target_ND, 0).shape == (0, 2)


def test_rows_beyond_the_catalogue_belong_to_no_category() -> None:
    assert category_vectors(np.zeros((1, 1), np.int16), np.ones((5, 2), np.float32), 1).tolist() == [[1, 1]]


def test_items_of_unknown_categories_get_half_the_mean_of_all() -> None:
    category_CD = np.array([[2, 0], [0, 4]], np.float32)
    wanted = np.array([[0, -1], [0, 1], [-1, -1], [9, -1]], np.int16)
    assert content_vectors(wanted, category_CD).tolist() == [[1, 0], [0.5, 1], [0.25, 0.5], [0.25, 0.5]]
    assert content_vectors(wanted, category_CD[:0]).any()
