"""A made-up house that sells ads, for the benchmarks: campaigns of many line items, and requests with places for ads.

The same sizes and seed give the same house. Line items ask for countries, segments, key values and devices, have caps
at two levels, bid per impression or per click, and show several creatives; a request finds some hundreds of them.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from embeddings.snapshots import Snapshot
from ranking.features import COLUMNS, CONTEXTS
from streams.contract.records import encode
from streams.learning.ad_outcomes import AdOutcomes
from streams.settings import Settings

COUNTRIES = "US", "DE", "FR", "GB", "IT", "ES", "NL", "BE", "AT", "CH"
_SEGMENTS, _SECTIONS, _OF_CAMPAIGN = 200, 8, 10


@dataclass(slots=True, kw_only=True)
class AdCrowd:
    """L line items in campaigns of ten, and who asks for them."""

    lines: int = 10_000
    seed: int = 0
    creatives: int = 3
    _draw: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)

    def campaigns(self) -> Iterator[dict[str, Any]]:
        """Records of `campaigns`."""
        for n in range(-(-self.lines // _OF_CAMPAIGN)):
            many = min(_OF_CAMPAIGN, self.lines - n * _OF_CAMPAIGN)
            yield {
                "campaign_id": f"campaign-{n:05d}",
                "advertiser": f"advertiser-{n // 2:05d}",
                "caps": [{"count": 20, "time_unit": "day"}],
                "line_items": [self._line(n, place) for place in range(many)],
            }

    def _line(self, n: int, place: int) -> dict[str, Any]:
        draw = self._draw
        bid_type = draw.choice(("cpm", "cpm", "cpc"))
        wanted: dict[str, Any] = {"country": draw.sample(COUNTRIES, 2)}
        if draw.random() < 0.9:
            wanted["segment"] = [f"segment-{draw.randrange(_SEGMENTS)}" for _ in range(3)]
        if draw.random() < 0.2:
            wanted["keyvalues"] = {"section": [f"section-{draw.randrange(_SECTIONS)}" for _ in range(4)]}
        return {
            "id": f"line-{place}",
            "bid_micros": draw.randrange(500_000, 8_000_000) if bid_type == "cpm" else draw.randrange(50_000, 800_000),
            "bid_type": bid_type,
            "budget_micros": 10**12,
            "delivery": "asap",
            "targeting": wanted,
            "caps": [{"count": 3, "time_unit": "day", "level": "line_item"}],
            "creatives": [self._creative(n, which) for which in range(self.creatives)],
        }

    def _creative(self, n: int, which: int) -> dict[str, Any]:
        draw = self._draw
        return {
            "crid": f"creative-{which}",
            "approved": True,
            "format": "banner",
            "adomain": [f"advertiser-{n // 2:05d}.example"],
            "cat": [f"IAB{draw.randrange(1, 7)}-{draw.randrange(1, 9)}"],
            "categories": [f"genre-{draw.randrange(200)}"],
        }

    def request(self, n: int, user_id: str, *, slots: int, items: int, time_ms: int, apart: bool = False) -> bytes:
        """A record of `requests`: the n-th, of somebody who is shown `items` items and asks for as many ads as slots.

        Slots of one page are alike, unless they are `apart`: then each is another placement, sold by itself.
        """
        draw = self._draw
        asked: dict[str, Any] = {
            "request_id": f"request-{n:09d}",
            "user_id": user_id,
            "n": items,
            "event_time": time_ms,
            "deadline_ms": 600_000,
            "context": {"country": draw.choice(COUNTRIES), "surface": "home"},
            "bcat": ["IAB25", "IAB26"],
            "badv": ["competitor.example", "advertiser-00007.example"],
            "keyvalues": {"section": [f"section-{draw.randrange(_SECTIONS)}"]},
            "user": {"data": [{"segment": [{"id": f"segment-{draw.randrange(_SEGMENTS)}"} for _ in range(10)]}]},
        }
        if slots:
            placement = [f"home-{slot}" if apart else "home" for slot in range(slots)]
            asked["imp"] = [{"id": str(s + 1), "tagid": tagid, "banner": {}} for s, tagid in enumerate(placement)]
        return encode(asked)

    def requests(self, user_ids: Sequence[str], **more: Any) -> list[bytes]:
        """One of each of these people, see `request`."""
        return [self.request(n, user_id, **more) for n, user_id in enumerate(user_ids)]


def with_heads(snapshot: Snapshot, settings: Settings, seed: int = 0) -> Snapshot:
    """A snapshot that carries heads of ads which have learned a little."""
    draw, taught = np.random.default_rng(seed), AdOutcomes(settings)
    x_RX = draw.normal(size=(512, COLUMNS)).astype(np.float32)
    x_RX[:, -1] = draw.integers(0, CONTEXTS, 512)
    label_RO = draw.random((512, 3)) < (0.05, 0.5, 0.001)
    taught.trainer.learn(x_RX, draw.integers(1, 1 << 40, 512), label_RO, np.ones((512, 3), np.float32))
    return replace(snapshot, ranker={**snapshot.ranker, **taught.tensors()})
