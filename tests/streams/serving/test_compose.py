from dataclasses import replace

import numpy as np
import pytest

from embeddings.candidates import Proposed
from ranking.features import Feature, Features
from ranking.reasons import Reason
from streams.serving.compose import compose
from streams.serving.rank import rank
from streams.serving.values import Candidates, Ranked
from tests.streams.serving.moments import a_moment


def test_slates_are_the_best_that_were_ranked() -> None:
    moment = a_moment()
    found = moment.found
    row_PK = found.candidates.row_PK
    ranked = rank(moment.asked, found, moment.stock, moment.settings)
    best_PK = np.argsort(-np.where(row_PK >= 0, ranked.score_PK, -np.inf), kind="stable")
    slates = compose(moment.asked, found, ranked, moment.stock, moment.settings)
    assert (slates.row_QN == np.take_along_axis(row_PK, best_PK, 1)[:, :5]).all()


@pytest.mark.parametrize(
    ("bits", "reason"),
    [
        (Proposed.trending, Reason.trending),
        (Proposed.fresh, Reason.fresh),
        (Proposed.trending | Proposed.fresh, Reason.category),
        (Proposed.trending | Proposed.vector, Reason.category),
    ],
)
def test_what_one_shared_list_alone_proposed_is_there_for_it(bits: Proposed, reason: Reason) -> None:
    moment = a_moment()
    found = moment.found
    row_PK = found.candidates.row_PK
    x_PKX, score_PK = np.zeros((*row_PK.shape, len(Feature)), np.float32), np.zeros(row_PK.shape, np.float32)
    x_PKX[:, 0, Feature.category_affinity], score_PK[:, 0] = 9, 1
    features = Features(x_PKX, np.full(row_PK.shape, -1, np.int16))
    ranked = Ranked(np.arange(row_PK.size).reshape(row_PK.shape), features, score_PK)
    found = replace(found, candidates=Candidates.content(row_PK, np.full(row_PK.shape, bits, np.uint8)))
    assert (compose(moment.asked, found, ranked, moment.stock, moment.settings).reason_QN[:, 0] == reason).all()


def test_what_nobody_took_is_called_neither_popular_nor_trending() -> None:
    """Lists of what is popular are filled up with rows that nobody took, where too few were taken."""
    moment = a_moment()
    bits = np.full(moment.found.candidates.row_PK.shape, Proposed.trending | Proposed.popular, np.uint8)
    bits[:, ::2] = Proposed.trending
    found = replace(moment.found, candidates=Candidates.content(moment.found.candidates.row_PK, bits))
    ranked = rank(moment.asked, found, moment.stock, moment.settings)
    told = compose(moment.asked, found, ranked, moment.stock, moment.settings).reason_QN
    never = moment.stock.item_rows._replace(last_taken_s_N=np.zeros_like(moment.stock.item_rows.last_taken_s_N))
    untaken = compose(moment.asked, found, ranked, replace(moment.stock, item_rows=never), moment.settings).reason_QN
    assert {Reason.trending, Reason.popular} & set(told.ravel().tolist())
    assert not {Reason.trending, Reason.popular} & set(untaken.ravel().tolist())
