import numpy as np
import pytest

from ranking.features import COLUMNS, Feature, Histories
from ranking.reasons import REASONS, SPEAK_FOR, Evidence, Reason, carriers, categories_taken, reasons

NOTHING, TRUE = np.full((1, 6), -1, np.int16), np.ones((1, 6, REASONS), np.bool_)


def told(shares, *, held=NOTHING, category=NOTHING, true=TRUE, given=Reason.none, places=6, tasteful=True):
    """The reasons of six places, every one with the same share of these columns."""
    share_PNF = np.zeros((1, 6, COLUMNS), np.float32)
    for column, share in shares.items():
        share_PNF[..., column] = share
    index_PN = np.where(np.arange(6) < places, np.arange(6), -1)[None].astype(np.int32)
    given_PN = np.full((1, 6), given, np.uint8)
    evidence = Evidence(
        np.asarray(held, np.int16), np.asarray(category, np.int16), true, given_PN, np.array([tasteful])
    )
    return [Reason(reason) for reason in reasons(share_PNF, index_PN, evidence)[0].tolist()]


@pytest.mark.parametrize("reason", SPEAK_FOR)
def test_the_reason_is_the_true_one_with_the_largest_share(reason):
    column = SPEAK_FOR[reason][-2 if reason is Reason.trending else -1]
    got = told({column: 1.0}, held=NOTHING * 0, category=NOTHING * 0)
    assert got[0] == (Reason.popular if column is Feature.popularity_short else reason)


def test_what_is_not_true_is_not_told_however_much_it_carries():
    shares = {Feature.dot: 9.0, Feature.category_affinity: 8.0, Feature.age: 7.0, Feature.popularity_mid: 0.1}
    true = np.zeros((1, 6, REASONS), np.bool_)
    true[..., Reason.popular] = True
    assert set(told(shares, true=true)) == {Reason.popular}
    assert set(told(shares, true=true & False)) == {Reason.taste}, "nothing can be named"
    assert set(told(shares, true=true & False, tasteful=False)) == {Reason.none}, "nor is there a taste"


def test_reasons_vary_where_several_carry_about_as_much():
    shares = {Feature.cooc_decayed: 1.0, Feature.category_affinity: 0.8, Feature.popularity_mid: 0.6}
    one, several = NOTHING * 0, np.arange(6)[None]
    assert set(told(shares, held=one, category=one)) == {Reason.similar_to_recent, Reason.category, Reason.popular}
    alone = {Feature.cooc_decayed: 9.0, Feature.category_affinity: 0.8}
    assert set(told(alone, held=one, category=one)) == {Reason.similar_to_recent}
    by_others = told(shares, held=several, category=one)
    assert by_others.count(Reason.similar_to_recent) > told(shares, held=one, category=one).count(
        Reason.similar_to_recent
    )


def test_what_one_list_alone_proposed_is_told_and_places_past_the_end_say_nothing():
    assert told({Feature.dot: 1.0}, given=Reason.fresh, places=2) == [Reason.fresh] * 2 + [Reason.none] * 4


def test_nothing_that_was_disliked_is_named():
    """Of three held items alike to the candidate the latest was hidden; without it no other gives a fifth."""
    vectors = np.eye(4, dtype=np.float32), np.array([[0.0] * 4] * 3 + [[8, 1, 1, 0]], np.float32)
    row_PN = np.array([[3, 3, -1]], np.int32)
    weight_PH = np.array([[0, 1, 1]], np.float32)
    held_PH, known = np.array([[0, 1, 2]], np.int32), np.array([[-1, 2, -1]], np.int16)
    assert carriers(held_PH, weight_PH, vectors, row_PN, known, 0.9).tolist() == [[1, 2, -1]]
    assert carriers(held_PH, weight_PH * 0, vectors, row_PN, known, 0.9).tolist() == [[-1, 2, -1]]
    spread_PH = np.repeat(np.arange(1, 3, dtype=np.int32), 5)[None]
    assert carriers(spread_PH, np.ones((1, 10), np.float32), vectors, row_PN, known, 1.0).tolist() == [[-1, 2, -1]]


def test_a_category_is_named_that_was_taken_more_often_than_it_was_disliked():
    category_NC = np.full((6, 2), -1, np.int16)
    category_NC[:, 0] = [500, 500, 7, 7, 7, 7]
    category_NC[0, 1] = 7
    row_PH, row_PN = np.array([[0, 1, 2, 3, -1]] * 2, np.int32), np.array([[0, 1, 4, -1]] * 2, np.int32)
    appeal_PH = np.array([[0, 1, 0, 0, 0], [0, 1, -1, -1, 0]], np.int8)
    time = np.zeros((2, 5), np.int64), np.zeros(2, np.int64), np.zeros(2, np.int16)
    got = categories_taken(Histories(row_PH, appeal_PH, *time), category_NC, row_PN)
    assert got.tolist() == [[7, 500, 7, -1], [500, 500, -1, -1]]
