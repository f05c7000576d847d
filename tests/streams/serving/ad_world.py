"""A closed world of people and ads: whom each ad suits is known, so that what is learned of it can be judged."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embeddings.events import CONSENT_ALL, Action, Source
from embeddings.ids import item_id
from embeddings.state_columns import HISTORY, Histories
from ranking.ads.campaigns import BidType, Campaign, Creative, LineItem, Status, Type
from ranking.ads.features import Viewers
from ranking.ads.inventory import House, Inventory
from ranking.features import COLUMNS
from streams.contract.observations import Observation, blank, decode, encode
from streams.serving.ad_scoring import AdCandidates, AdScorer, Chances, placement_of
from streams.serving.ad_writer import observe_ads
from streams.serving.creatives import Creatives
from streams.serving.observation_writer import slate_hash
from tests.streams.builders import NOW_MS, Service, an_event, small

REQUESTS, EVENTS = Source("requests", 0), Source("events", 0)
KINDS = ("war", "love")
ITEMS = 40
NOW_S = NOW_MS // 1000


def a_creative(key: str, **more: Any) -> Creative:
    said: dict[str, Any] = {"approved": True, "format": "banner", "adomain": ("a.example",)}
    return Creative(key=key, crid=key, **said | more)


def a_line(key: str, *creatives: Creative, **more: Any) -> LineItem:
    said: dict[str, Any] = {
        "key": key, "id": key, "campaign_id": key, "advertiser": f"adv-{key[0]}", "type": Type.price_priority,
        "priority": 12, "status": Status.active, "bid_type": BidType.cpc, "bid_micros": 500_000, "currency": "USD",
        "time_zone": "UTC", "creatives": creatives,
    }  # fmt: skip
    return LineItem(**said | more)


def a_house(*lines: LineItem) -> House:
    inventory = Inventory()
    for line in lines:
        campaign = Campaign(
            id=line.key, advertiser=line.advertiser, order_id=None, name=line.key, status=Status.active,
            currency="USD", time_zone="UTC", budget_micros=None, daily_budget_micros=None, line_items=(line,),
        )  # fmt: skip
        inventory.put(campaign)
    return inventory.snapshot()


def histories(kind_U: Sequence[int], seed: int = 0) -> Histories:
    """People of two kinds: each holds ten items of its own."""
    draw, users = np.random.default_rng(seed), len(kind_U)
    item_UH = np.zeros((users, HISTORY), np.uint64)
    for u, kind in enumerate(kind_U):
        held = draw.permutation(ITEMS // 2)[:10] * 2 + kind
        item_UH[u, :10] = [item_id(f"i{n:03d}") for n in held]
    full_UH = item_UH != 0
    return Histories(
        item_UH,
        np.where(full_UH, Action.play, 0).astype(np.uint8),
        np.where(full_UH, NOW_S - 600, 0),
        np.zeros((users, HISTORY), np.uint8),
        full_UH.sum(1).astype(np.int32),
        np.full(users, NOW_S - 600),
    )


@dataclass
class AdWorld:
    """A worker's scorer beside a learner; items are of one kind or the other, and people take those of theirs."""

    house: House
    service: Service = field(init=False)
    scorer: AdScorer = field(init=False)
    offset: int = 1_000
    now_s: int = NOW_S

    def __post_init__(self) -> None:
        self.service = Service(small())
        for kind, name in enumerate(KINDS):
            self.service.catalogue(*[f"i{n:03d}" for n in range(kind, ITEMS, 2)], categories=(name,))
        draw = np.random.default_rng(3)
        takes = [(u, 2 * int(draw.integers(ITEMS // 2)) + u % 2) for u in range(20) for _ in range(12)]
        draw.shuffle(takes)
        self.service.live_through([an_event(n, f"u{u}", f"i{i:03d}") for n, (u, i) in enumerate(takes)])
        self.scorer = AdScorer(self.service.serving, self.service.settings)

    @property
    def creatives(self) -> Creatives:
        return self.scorer.prepare(self.house)

    def viewers(self, kind_U: Sequence[int], personal: bool = True, seed: int = 0) -> Viewers:
        users = len(kind_U)
        now_s_U, personal_U = np.full(users, self.now_s), np.full(users, personal)
        return self.scorer.viewers(self.creatives, histories(kind_U, seed), now_s_U, np.full(users, 5), personal_U)

    def all_for(self, users: int, tagid: str = "top") -> AdCandidates:
        """Every creative in an auction for each person."""
        count = len(self.creatives)
        return AdCandidates(
            np.arange(users + 1) * count,
            np.tile(np.arange(count, dtype=np.int32), users),
            np.arange(users),
            np.full(users, placement_of(tagid), np.uint32),
        )

    def chances(self, kind_U: Sequence[int], personal: bool = True, draw: int = 0, seed: int = 0) -> Chances:
        candidates = self.all_for(len(kind_U))
        draw_C = np.random.default_rng(draw).integers(0, 2**63, len(candidates.creative_C)).astype(np.uint64)
        return self.scorer.chances(self.creatives, self.viewers(kind_U, personal, seed), candidates, draw_C * 2)

    def decide(
        self, kind_U: Sequence[int], creative_U: NDArray[np.integer], seed: int = 0
    ) -> tuple[list[str], Chances]:
        """Tell the learner that each person was given this creative."""
        users, count, creatives = len(kind_U), len(self.creatives), self.creatives
        candidates, viewers = self.all_for(users), self.viewers(kind_U, seed=seed)
        draw_C = np.zeros(len(candidates.creative_C), np.uint64)
        chances = self.scorer.chances(creatives, viewers, candidates, draw_C)
        names = [f"d{self.offset}-{u}" for u in range(users)]
        line_N = np.repeat(np.arange(self.house.rows), np.diff(self.house.creative_start_L1))
        lines = [line for n in creative_U.tolist() if (line := self.house.lines[line_N[n]])]
        at_A = np.arange(users) * count + creative_U
        told = observe_ads(
            REQUESTS, [self.offset] * users, names, lines, at_A, creatives, viewers, candidates, chances, np.ones(users)
        )
        self.service.learner.learn(decode(encode(told)))
        return names, chances

    def happen(self, *events: tuple[str, Action], after_s: int = 0, consent: int = CONSENT_ALL) -> None:
        """Events of decisions, by name, at one moment."""
        rows = len(events)
        columns: dict[str, Any] = blank(R=rows, S=1, F=COLUMNS, C=5) | {
            "offset_R": np.arange(self.offset, self.offset + rows),
            "action_R": np.array([action for _, action in events], np.uint8),
            "slate_R": np.array([slate_hash(name) for name, _ in events], np.uint64),
            "time_s_R": np.full(rows, self.now_s + after_s),
            "consent_R": np.full(rows, consent, np.uint8),
        }
        last = self.offset + rows - 1
        self.service.learner.learn(Observation(source=EVENTS, first=self.offset, last=last, **columns))
        self.offset += rows

    def wait(self, seconds: int = 2_000) -> None:
        """Let the time pass in which impressions wait for clicks."""
        self.now_s += seconds
        self.happen(("nothing", Action.ad_viewable))

    def live(self, rate_KN: NDArray[np.floating], people: int, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
        """People see creatives by chance and click as their kind does; returns what was told and what came.

        `rate_KN` is the click rate of each kind of people for each creative.
        """
        draw = np.random.default_rng(seed)
        kind_U = (np.arange(people) % 2).tolist()
        creative_U = draw.integers(0, rate_KN.shape[1], people)
        names, chances = self.decide(kind_U, creative_U, seed)
        clicked_U = draw.random(people) < rate_KN[kind_U, creative_U]
        self.happen(*[(name, Action.ad_impression) for name in names])
        if clicked_U.any():
            self.happen(*[(names[u], Action.ad_click) for u in np.flatnonzero(clicked_U).tolist()], after_s=20)
        self.wait()
        return chances.p_CO[np.arange(people) * rate_KN.shape[1] + creative_U, 0], clicked_U
