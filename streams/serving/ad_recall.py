"""Decisions that stand since before, told the learner once more: whoever made them may have been killed before telling.

What a decision was seen with is looked at anew, by the profile and the model of now; its chances and its propensity are
those that it was made with. A learner that was told before leaves it as it was told first.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from embeddings.state_columns import Histories, UserStates
from ranking.ads.campaigns import LineItem
from ranking.ads.features import OUTCOMES
from ranking.ads.market import Market
from streams.contract.ad_records import AdDecision
from streams.contract.observations import Observation
from streams.serving.ad_decisions import Decided
from streams.serving.ad_scoring import AdCandidates, AdScorer, placement_of
from streams.serving.ad_values import AdAsk
from streams.serving.ad_writer import observe_ads
from streams.serving.slates import Trigger


def recalled(
    decided: Decided,
    asks: Sequence[AdAsk],
    triggers: Sequence[Trigger],
    states: UserStates,
    personal_A: NDArray[np.bool_],
    scorer: AdScorer,
    market: Market,
) -> Iterator[Observation]:
    """What filled slots of A asks teach that were decided before, by the partition of their requests.

    One whose creative or line item nobody knows any more teaches nothing.
    """
    again = [
        (a, decision.record)
        for a, some in enumerate(decided.of_ask)
        for decision in some
        if decision.outcome == "again" and decision.record.filled
    ]
    if not again:
        return
    line_of = {line.key: line for line in market.lines if line is not None}
    number_of = {creative.key: n for n, creative in enumerate(market.house.creatives)}
    known = [
        (a, record, line_of[key], number_of[record.creative])
        for a, record in again
        if (key := f"{record.campaign_id}/{record.line_item_id}") in line_of and record.creative in number_of
    ]
    for source in dict.fromkeys(triggers[a].source for a, *_ in known):
        mine = [each for each in known if triggers[each[0]].source == source]
        yield _observed([triggers[a] for a, *_ in mine], mine, asks, states, personal_A, scorer, market)


def _observed(
    triggers: Sequence[Trigger],
    mine: Sequence[tuple[int, AdDecision, LineItem, int]],
    asks: Sequence[AdAsk],
    states: UserStates,
    personal_A: NDArray[np.bool_],
    scorer: AdScorer,
    market: Market,
) -> Observation:
    creatives = scorer.prepare(market.house)
    viewers = scorer.viewers(
        creatives,
        Histories(*states[:6]),
        np.array([ask.now_ms // 1000 for ask in asks], np.int64),
        np.array([ask.context for ask in asks], np.int16),
        personal_A,
    )
    records, everybody = [record for _, record, _, _ in mine], np.arange(len(mine) + 1)
    candidates = AdCandidates(
        everybody,
        np.array([number for *_, number in mine], np.int32),
        np.array([a for a, *_ in mine], np.intp),
        np.array([placement_of(record.tagid) for record in records], np.uint32),
    )
    chances = scorer.chances(creatives, viewers, candidates, np.zeros(len(mine), np.uint64))
    told_AO = np.array([[one.pctr, one.pvtr, one.pcvr] for one in records], np.float64)
    assert told_AO.shape[1] == len(OUTCOMES)
    return observe_ads(
        triggers[0].source,
        [trigger.offset for trigger in triggers],
        [record.decision_id for record in records],
        [line for _, _, line, _ in mine],
        everybody[:-1],
        creatives,
        viewers,
        candidates,
        chances._replace(p_CO=np.where(np.isfinite(told_AO), told_AO, chances.p_CO)),
        np.array([1.0 if one.propensity is None else one.propensity for one in records]),
    )
