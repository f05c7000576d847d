"""What a closer look at ads costs: which are near, what is expected of them; beside searching an index of all of them.

`python -m benchmarks.ad_scoring`: 10,000 creatives of 64 numbers, 64 auctions at a time, each with so many creatives
that may be shown; milliseconds of CPU for all 64, medians of nine.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median

import numpy as np

from embeddings.ids import item_ids
from embeddings.index import build_index
from embeddings.item_facts import ItemFacts
from embeddings.items import Items
from embeddings.state_columns import HISTORY, Histories
from ranking.ads.campaigns import BidType, Campaign, Creative, LineItem, Status, Type
from ranking.ads.exploration import shares
from ranking.ads.inventory import House, Inventory
from streams.serving.ad_scoring import AdCandidates, AdScorer, chance_for
from streams.serving.live_model import LiveModel, Serving
from streams.settings import Settings

ITEMS, WIDTH, AUCTIONS, CATEGORIES, ROUNDS = 5_000, 64, 64, 30, 9


def campaigns(creatives: int) -> list[Campaign]:
    """Ten line items each, of one creative; every third campaign is about an item."""
    made = []
    for c in range(creatives // 10):
        landing = f"i{c}" if c % 3 == 0 else None
        lines = tuple(
            LineItem(
                key=f"{c}/{n}", id=str(n), campaign_id=str(c), advertiser=f"a{c % 200}", type=Type.price_priority,
                priority=12, status=Status.active, bid_type=BidType.cpc, bid_micros=500_000, currency="USD",
                time_zone="UTC", creatives=(Creative(
                    key=f"{c}/{n}/x", crid="x", approved=True, format="video", duration_s=30, item_id=landing,
                    categories=(f"c{(c + n) % CATEGORIES}",), text=f"buy thing {c}",
                ),),
            )
            for n in range(10)
        )  # fmt: skip
        made.append(
            Campaign(
                id=str(c), advertiser=f"a{c % 200}", order_id=None, name=str(c), status=Status.active, currency="USD",
                time_zone="UTC", budget_micros=None, daily_budget_micros=None, line_items=lines,
            )
        )  # fmt: skip
    return made


def serving() -> Serving:
    """A model that somebody has learned: vectors and neighbours at random."""
    draw, items = np.random.default_rng(0), Items()
    made = Serving(items, build_index, LiveModel.empty(items, build_index, WIDTH))
    made.catalogue([ItemFacts(name=f"i{n}", categories=(f"c{n % CATEGORIES}",)) for n in range(ITEMS)], [])
    target_ND = np.zeros_like(made.live.target_ND)
    target_ND[:ITEMS] = 0.2 * draw.normal(size=(ITEMS, WIDTH))
    made.live = replace(
        made.live,
        source_ND=(0.2 * draw.normal(size=(ITEMS, WIDTH))).astype(np.float32),
        target_ND=target_ND,
        neighbours_NM=draw.integers(0, ITEMS, (ITEMS, 100)).astype(np.int32),
        weights_NM=draw.random((ITEMS, 100)).astype(np.float32),
    )
    return made


def people() -> Histories:
    """Each holds as much as is kept."""
    names = [f"i{n}" for n in np.random.default_rng(1).integers(0, ITEMS, AUCTIONS * HISTORY)]
    shape, now_s = (AUCTIONS, HISTORY), 1_750_000_000
    return Histories(
        item_ids(names).reshape(shape), np.full(shape, 2, np.uint8), np.full(shape, now_s), np.zeros(shape, np.uint8),
        np.full(AUCTIONS, HISTORY, np.int32), np.full(AUCTIONS, now_s),
    )  # fmt: skip


def cost_ms(call: Callable[[], object]) -> float:
    """Median of some calls, after one that may compile."""
    call()
    took = []
    for _ in range(ROUNDS):
        began = time.process_time()
        call()
        took.append(1_000 * (time.process_time() - began))
    return median(took)


def measure_auctions(scorer: AdScorer, house: House, eligible: int) -> str:
    """One line: what 64 auctions cost with so many creatives that may be shown in each."""
    draw, creatives = np.random.default_rng(2), scorer.prepare(house)
    count = len(creatives)
    some = [np.sort(draw.choice(count, eligible, replace=False)) for _ in range(AUCTIONS)]
    start_P1, at_P = np.arange(AUCTIONS + 1) * eligible, np.arange(AUCTIONS)
    of_all = AdCandidates(start_P1, np.concatenate(some).astype(np.int32), at_P, np.zeros(AUCTIONS, np.uint32))
    asked = people(), np.full(AUCTIONS, 1_750_000_100), np.zeros(AUCTIONS, np.int64), np.ones(AUCTIONS, np.bool_)
    viewers = scorer.viewers(creatives, *asked)
    few = of_all.at(scorer.near(creatives, viewers, of_all))
    draw_C = draw.integers(0, 2**64, len(few.creative_C), np.uint64)
    chances = scorer.chances(creatives, viewers, few, draw_C)
    type_C, flat_C = np.full(len(draw_C), BidType.cpc), np.zeros(len(draw_C), np.int64)
    bids = flat_C + 500_000, chance_for(type_C, chances.p_CO), chances.spread_CO[:, 0], draw_C
    slots_P = np.full(AUCTIONS, 4)
    costs = {
        "viewers": cost_ms(lambda: scorer.viewers(creatives, *asked)),
        "near": cost_ms(lambda: scorer.near(creatives, viewers, of_all)),
        "chances": cost_ms(lambda: scorer.chances(creatives, viewers, few, draw_C)),
        "propensities": cost_ms(lambda: shares(few.start_P1, slots_P, flat_C, *bids)),
    }
    return f"{eligible:>6} may be shown: " + ", ".join(f"{name} {cost:.2f} ms" for name, cost in costs.items())


def main() -> None:
    """Print a line for each number of creatives that may be shown, and for each kind of index."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--creatives", type=int, default=10_000)
    count = parser.parse_args().creatives
    inventory = Inventory()
    made = campaigns(count)
    for campaign in made:
        inventory.put(campaign)
    scorer = AdScorer(serving(), Settings())
    house = inventory.snapshot()
    began = time.process_time()
    creatives = scorer.prepare(house)
    all_ms = 1_000 * (time.process_time() - began)
    inventory.put(replace(made[0], line_items=made[0].line_items[:-1]))
    changed = inventory.snapshot()
    began = time.process_time()
    scorer.prepare(changed)
    few_ms = 1_000 * (time.process_time() - began)
    print(f"{count} creatives: {all_ms:.0f} ms when all are new, {few_ms:.0f} when few are")
    for eligible in (100, 500, 2_000, 9 * count // 10):
        print(measure_auctions(scorer, house, min(eligible, count)))
    taste_UD = np.random.default_rng(3).normal(size=(AUCTIONS, WIDTH)).astype(np.float32)
    rows_N, vector_ND = np.arange(count, dtype=np.int32), creatives.rows.vector_ND
    for kind in ("exact", "ivf"):
        index = build_index(rows_N, vector_ND, kind=kind, device="cpu", nprobe=16, threads=1)
        costs = [f"{near} nearest {cost_ms(partial(index.search, taste_UD, near)):.1f} ms" for near in (32, 256, 1_024)]
        print(f"index of all, {kind}: " + ", ".join(costs))


if __name__ == "__main__":
    main()
