"""What a take teaches the ranker: the item taken beside a sample of the candidates that it was taken from."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from embeddings.ids import ids_of
from streams.serving.draws import uniform
from streams.serving.live_model import Stock
from streams.serving.rank import features_of
from streams.serving.values import Asked, Candidates, Examples, Found
from streams.settings import Settings


def examples_of(asked: Asked, found: Found, stock: Stock, settings: Settings) -> Examples:
    """The items taken, each with a uniform sample of the other candidates and log inclusion probabilities.

    Features are computed for these alone: nothing here has to be ranked. They are those of the moment that is told;
    the candidates are those of the slate where one was written.
    """
    told = asked.told
    taken_P = stock.items.ids.rows(told.taken_P[found.query.position_P])
    found, row_E = found.at(taken_P >= 0), taken_P[taken_P >= 0]
    at = found.query.position_P
    if not len(at):
        return Examples.none()
    sample, log_q_ES = _sampled(found.candidates, row_E, settings.observe.negatives, told.draw_P[at])
    asked = replace(asked, now_s_P=told.now_s_P, context_P=told.context_P)
    return Examples(
        position_E=at,
        item_ES=ids_of(sample.row_PK, stock.items.ids.ids_N),
        x_ESF=features_of(asked, replace(found, candidates=sample), stock, settings).x_PKX.astype(np.float16),
        log_q_ES=log_q_ES,
    )


def _sampled(
    candidates: Candidates, row_E: NDArray[np.int32], negatives: int, draw_E: NDArray[np.uint64]
) -> tuple[Candidates, NDArray[np.float16]]:
    """The items of `row_E` first, then as many others of their candidates as there are, up to `negatives`; log q."""
    row_EK, source_EK = candidates.row_PK, candidates.source_PK
    match_EK = row_EK == row_E[:, None]
    others_EK = (row_EK >= 0) & ~match_EK
    wanted = min(negatives, others_EK.shape[1])
    draw_EK = uniform(draw_E, others_EK.shape[1]) + ~others_EK
    slot_ES = np.sort(np.argpartition(draw_EK, wanted - 1, axis=1)[:, :wanted], axis=1)
    drawn_ES = np.take_along_axis(others_EK, slot_ES, 1)
    sample = Candidates.content(
        np.c_[row_E, np.where(drawn_ES, np.take_along_axis(row_EK, slot_ES, 1), -1)].astype(np.int32),
        np.c_[(source_EK * match_EK).max(1), np.take_along_axis(source_EK, slot_ES, 1) * drawn_ES],
    )
    share_E = np.minimum(wanted / np.maximum(others_EK.sum(1), 1), 1.0)
    log_q_ES = np.repeat(np.log(share_E)[:, None], 1 + wanted, axis=1).astype(np.float16)
    log_q_ES[:, 0] = 0
    return sample, log_q_ES
