"""Compile every loop of the hot path once, into the cache beside the sources: `make install` runs this.

The first call of a compiled loop takes seconds; later processes load it from disk. What is run here is a small log
through the same code that serves and learns, so that the loops meet the types they will meet there; what so small a log
does not reach (a ranker, stored states, impressions, tables that grow) is called by itself.
"""

import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np

from embeddings.codec import StateCodec
from embeddings.events import CONSENT_ALL, Action, EventBatch, Source
from embeddings.exposures import AdSeen, Exposures, fold_exposures
from embeddings.fatigue import Unanswered, fold_impressions
from embeddings.fold import fold
from embeddings.ids import murmur2
from embeddings.idtable import IdTable
from embeddings.index import build_index
from embeddings.items import ItemFacts, Items
from embeddings.state_columns import Histories, no_states
from ranking.ads.auction import Auction
from ranking.ads.campaigns import BidType, Campaign, Creative, LineItem, Status, Type
from ranking.ads.exploration import shares
from ranking.ads.fit_tables import FitTables
from ranking.ads.gates import without
from ranking.ads.inventory import Inventory
from ranking.ads.joint import PageRules, Pages, lay
from ranking.ads.losses import Loss
from ranking.ads.prediction import Calibration, Drift
from ranking.ads.selection import Fits, Slot
from ranking.ads.separation import Kinds, sell_apart
from ranking.ads.turns import crowded, yielded
from ranking.features import Feature
from ranking.frozen import FrozenTower
from ranking.weights import Shape, shapes
from streams.lab.ad_house import AdHouse
from streams.lab.baselines import BASELINES, measure
from streams.lab.datasets import Log
from streams.lab.evaluation import run_evaluation
from streams.learning.creative_counts import CreativeCounts
from streams.serving.ad_scoring import AdCandidates, AdScorer
from streams.serving.live_model import LiveModel, Serving
from streams.serving.rehearsal import Rehearsal
from streams.settings import Learner, Settings

_EVENTS, _USERS, _ITEMS = 2_000, 8, 300


def small_log() -> Log:
    """People who take the next item again and again, long enough for histories to overflow."""
    names = [f"item-{n % _ITEMS}" for n in range(_EVENTS)]
    return Log(
        name="warm",
        user_R=[f"user-{(n // 5) % _USERS}" for n in range(_EVENTS)],
        item_R=names,
        rating_R=(np.arange(_EVENTS) % 5 + 1).astype(np.float32),
        time_s_R=np.arange(_EVENTS, dtype=np.int64) * 60 + 1_000_000_000,
        items={name: ItemFacts(name=name, title=name, categories=("a", "b"), year=1990) for name in names},
    )


def meet_the_rest() -> None:
    """The loops a worker runs beyond those of `evaluate`, once each on next to nothing."""
    murmur2([b"user-1"])
    StateCodec(64).decode([None])
    meet_impressions()
    meet_ads()
    meet_pages()
    sell_ads()
    IdTable(8).ensure(np.arange(1, 100, dtype=np.uint64))
    ids = IdTable(8)
    ids.free(ids.ensure(np.arange(1, 100, dtype=np.uint64)))
    weights = {name: np.zeros(size, np.float32) for name, size in shapes(Shape(buckets=8)).items()}
    x_PKX = np.zeros((1, 2, len(Feature)), np.float32)
    for tower in ("next", "outcome"):
        candidates = x_PKX, np.zeros((1, 2), np.int64), np.ones((1, 2), np.bool_)
        FrozenTower(weights, tower).logits(*candidates)
        FrozenTower(weights, tower).shares(*candidates, np.zeros((1, 1), np.int32))


def meet_pages() -> None:
    """Two ads of a kind for the two slots of a page, and one beside organic items."""
    auction, page_R, creative_C = Auction.of([[(0, 2), (0, 1)]], slots=2), np.zeros(1, np.int64), np.zeros(2, np.int32)
    kinds = Kinds(np.array([0, 1]), np.zeros(1, np.int32), 1)
    sell_apart(auction, page_R, kinds, creative_C)
    lay(Pages.of([[1.0]], [[1]], places=2), PageRules(), kinds)
    crowd = np.array([0, 2]), np.ones(1, np.int64), np.zeros(2, np.int64), np.ones(2)
    yielded(*crowd[:3], crowded(*crowd), np.ones(2, np.int64))
    without(Fits(np.zeros(1, np.int16), np.array([0, 1]), creative_C[:1]), np.ones(1, np.bool_), Loss.invalid)


def meet_ads() -> None:
    """What is seen of an ad, how near it is, what chance adds, and what is learned of what came of it."""
    one_P1, none_1, draw_1 = np.array([0, 1]), np.zeros(1, np.int64), np.zeros(1, np.uint64)
    items = Items()
    scorer = AdScorer(Serving(items, build_index, LiveModel.empty(items, build_index, 8)), Settings())
    scorer.most = 0
    inventory = Inventory()
    inventory.put(_a_campaign())
    house, tables = inventory.snapshot(), FitTables()
    for _ in range(2):  # found, and then looked up
        tables.fitting(house, [Slot()], one_P1, np.zeros(1, np.int32), 0)
    creatives, states = scorer.prepare(house), no_states(1)
    held = states.item_UH, states.action_UH, states.time_UH, states.share_UH, states.count_U, states.last_s_U
    viewers = scorer.viewers(creatives, Histories(*held), none_1, none_1, np.ones(1, np.bool_))
    candidates = AdCandidates(one_P1, np.zeros(1, np.int32), np.zeros(1, np.intp), np.zeros(1, np.uint32))
    scorer.near(creatives, viewers, candidates)
    chances = scorer.chances(creatives, viewers, candidates, draw_1)
    p_1, label_1 = chances.p_CO[:, 0], np.zeros(1, np.bool_)
    shares(one_P1, one_P1[1:], none_1, p_1, p_1, chances.spread_CO[:, 0], draw_1)
    Calibration().learn(p_1, label_1, none_1, none_1)
    Drift().learn(none_1, p_1, label_1)
    counts = CreativeCounts(1.0)
    number_1 = counts.number(creatives.item_N)
    counts.count(number_1, chances.p_CO > 1, chances.p_CO, none_1)
    counts.suit(number_1, viewers.taste_UD, p_1, label_1)


def _a_campaign() -> Campaign:
    """One ad."""
    of_all: dict[str, Any] = {"advertiser": "warm", "status": Status.active, "currency": "USD", "time_zone": "UTC"}
    line = LineItem(
        key="warm/1", id="1", campaign_id="warm", type=Type.house, priority=16, bid_type=BidType.cpm, bid_micros=0,
        creatives=(Creative(key="warm/1/1", crid="1", approved=True, format="banner"),), **of_all,
    )  # fmt: skip
    no_budget: dict[str, Any] = {"order_id": None, "budget_micros": None, "daily_budget_micros": None}
    return Campaign(id="warm", name="warm", line_items=(line,), **no_budget, **of_all)


def meet_impressions() -> None:
    """What was shown twice and is looked for among candidates."""
    column = np.zeros(2, np.int64)
    batch = EventBatch(
        user_ids=("user-1",),
        sources=(Source("warm", 0),),
        user_B=column.astype(np.int32),
        item_B=column.astype(np.uint64) + np.uint64(7),
        action_B=np.full(2, Action.impression, np.uint8),
        value_B=column.astype(np.float32),
        time_s_B=column,
        source_B=column.astype(np.int32),
        offset_B=np.arange(2),
        dedupe_B=column.astype(np.uint32),
        consent_B=np.full(2, CONSENT_ALL, np.uint8),
        refused_B=column.astype(np.uint8),
    )
    states, position_P = no_states(1), np.zeros(1, np.int32)
    folded = fold(states, batch, lateness_s=60, source_code_S=np.zeros(1, np.int32))
    unanswered = fold_impressions(Unanswered.nothing(1), states, batch, folded, 60.0).at(position_P, position_P)
    unanswered.widened(2).shown(column[:1], 60.0, np.ones(1, np.bool_)).times(batch.item_B[None])
    seen = AdSeen(np.ones((2, 4), np.uint32))
    of_ads = replace(batch, action_B=np.full(2, Action.ad_impression, np.uint8))
    fold_exposures(Exposures.nothing(1), states, of_ads, folded, seen)


def sell_ads() -> None:
    """An ad with a cap is sold to somebody, seen, and looked for again."""
    settings = Settings(learner=Learner(dimensions=8))
    house = AdHouse(settings=settings, now_ms=1_000_000_000_000)
    creative = {"crid": "1", "approved": True, "format": "banner", "adomain": ["warm.example"], "cat": ["IAB1-1"]}
    line = {"id": "1", "bid_micros": 1_000_000, "delivery": "asap", "creatives": [creative], "caps": [{"count": 5}]}
    line["targeting"] = {"country": "AT", "not": {"saw": {"item": "item-1", "within": "7d"}}}
    house.publish({"campaign_id": "warm", "advertiser": "warm", "budget_micros": 1_000_000, "line_items": [line]})
    for _ in range(8):
        house.now_ms += 1_000
        house.tick()
    said = {"user_id": "user-1", "event_time": house.now_ms}
    house.tell({"type": "play", "item_id": "item-2", **said})
    imps = [{"id": "1", "banner": {"w": 300, "h": 250}, "bcat": ["IAB7"]}, {"id": "2", "video": {"maxduration": 30}}]
    request = {"request_id": "1", "n": 2, "imp": imps, "context": {"country": "AT"}, **said}
    for decided in house.decisions(request)[0]:
        house.tell({"type": "impression", "decision_id": decided.decision_id, **said})
    house.decisions(request)


def main() -> None:
    """Warm everything and say how long it took."""
    began = time.monotonic()
    log = small_log()
    run_evaluation(log, Settings(learner=Learner(refresh_events=500)))
    for name in BASELINES:
        measure(name, log.head(300))
    meet_the_rest()
    worker = Rehearsal(Settings(), int(1_000 * time.time()))
    worker.slates()
    worker.ads()
    sys.stderr.write(f"compiled loops are in the cache, {time.monotonic() - began:.0f} s\n")


if __name__ == "__main__":
    main()
