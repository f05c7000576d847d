"""What is known of the ads of a running demo: fills, money, a budget beside its plan, a capped person, a win explained.

Slots and what became of them are counted by who asked; money is what the spend ledger says, as `ad-stats` tells it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ranking.ads.currencies import Currencies
from ranking.ads.losses import Loss
from streams.contract.ad_records import AdDecision, AdStats
from streams.contract.campaigns import Campaign
from streams.contract.records import encode
from streams.lab.ad_campaigns import BANNER, CAP, CAPPED, PACED, campaigns, genres_of
from streams.lab.ad_visitors import Audience
from streams.lab.datasets import Log
from streams.settings import Settings, TopicName

EVERY = 50
"""A page with two slots is asked for at every so-manieth event."""
_TOGETHER, _WITH_ITEMS, _ITEMS = 8, 4, 10
_MEASURED_FROM, _BEGINS_AT = 0.03, 0.06
"""Campaigns come when so much of the log has passed: its pace since the first of these says how long the rest takes."""
_LOOKED_AT, _SPARE = (0.2, 0.35, 0.5, 0.65, 0.8), 1.2
"""How far the log is when its pace is looked at again; flights last so much longer than it says."""
_OPENS_MS, _SHORTEST_MS = 8_000, 20_000
"""A ledger that is new opens some seconds after the first campaign; flights begin then."""


class PlanPoint(NamedTuple):
    """A line item's money at a moment, in micros: spent, and due by its plan; `at_s` since the first event."""

    at_s: float
    spent: int
    due: float


@dataclass(slots=True)
class Capped:
    """A person and a cap: `shown` of it so far, and in how many slots it was held back after that."""

    user: str
    shown: int = 0
    held_back: int = 0
    above: int = 0
    """Shown beyond its cap: 0, or a defect."""


@dataclass(slots=True)
class AdRun:
    """The ads of one demo: slots asked for, what filled them, what people did, what it brought."""

    rates: Currencies
    house: Sequence[Campaign] = ()
    requests: int = 0
    slots: int = 0
    filled: int = 0
    done: Counter[str] = field(default_factory=Counter)
    filled_by: Counter[str] = field(default_factory=Counter)
    figures: dict[str, AdStats] = field(default_factory=dict)
    plan: list[PlanPoint] = field(default_factory=list)
    people: dict[str, Capped] = field(default_factory=dict)
    explained: AdDecision | None = None

    @property
    def fill(self) -> float:
        """Share of slots that had an ad."""
        return self.filled / max(self.slots, 1)

    @property
    def spend_micros(self) -> int:
        """What was spent in all, in the base of the currency table, each line item rounded down."""
        base = max(self.rates.micros, key=lambda code: self.rates.micros[code] == 1_000_000)
        return sum(
            one.spent_micros * self.rates.micros[base] // self.rates.micros[one.currency]
            for one in self.lines()
            if one.currency in self.rates.micros
        )

    @property
    def capped(self) -> int:
        """How often a line item was held back because a person had seen it often enough."""
        return sum(one.funnel.get("capped", 0) for one in self.lines())

    def lines(self) -> list[AdStats]:
        """Line items as they stand, those that spent most first."""
        lines = [one for one in self.figures.values() if one.line_item_id]
        return sorted(lines, key=lambda one: (-one.spent_micros, -one.impressions, one.key))

    def most_capped(self) -> Capped | None:
        """The person whom the cap held back most often; None where nobody reached it."""
        reached = [person for person in self.people.values() if person.shown >= CAP and person.held_back]
        return max(reached, key=lambda person: person.held_back, default=None)

    @property
    def settled(self) -> bool:
        """Do the figures hold every impression and click that was told?"""
        told = self.done["impression"], self.done["click"]
        return told == (sum(one.impressions for one in self.lines()), sum(one.clicks for one in self.lines()))

    def hear(self, ad: AdDecision, type_: str) -> None:
        """A slot was decided; for a line item of this type, where it is filled."""
        self.slots += 1
        self.filled += ad.filled
        line = f"{ad.campaign_id}/{ad.line_item_id}"
        if ad.filled:
            self.filled_by[type_] += 1
        person = self.people.get(ad.user_id)
        if person is not None and person.shown >= CAP and ad.tagid == BANNER and line != CAPPED:
            person.held_back += Loss.capped.name in ad.losses
        if ad.filled and _worth(ad) > (_worth(self.explained) if self.explained else 0):
            self.explained = ad

    def see(self, ad: AdDecision, kind: str) -> None:
        """This happened to an ad."""
        self.done[kind] += 1
        if kind == "impression" and f"{ad.campaign_id}/{ad.line_item_id}" == CAPPED:
            person = self.people.setdefault(ad.user_id, Capped(ad.user_id))
            person.shown += 1
            person.above = max(person.shown - CAP, 0)

    def stand(self, one: AdStats, at_s: float) -> None:
        """Figures came."""
        self.figures[one.key] = one
        if one.key == PACED and one.expected is not None:
            self.plan.append(PlanPoint(at_s, one.spent_micros, one.expected))


class Showing:
    """Asks for ads as a log goes by, and answers for people: everything of a demo that is about ads, but the topics."""

    def __init__(self, log: Log, settings: Settings) -> None:
        """Nothing is sold before `passed` has opened the house."""
        self.run = AdRun(settings.ads.rates())
        self._log, self._audience = log, Audience(log)
        self._genres: dict[str, tuple[str, ...]] = {}
        self._types: dict[str, str] = {}
        self._measured_r, self._begins_r = (int(share * len(log)) for share in (_MEASURED_FROM, _BEGINS_AT))
        self._looked = {int(share * len(log)) for share in _LOOKED_AT}
        self._measured_ms = self._begins_ms = self._ends_ms = self._pages = 0
        self._waiting: list[int] = []

    def passed(self, r: int, now_ms: int) -> list[tuple[TopicName, bytes, bytes]]:
        """Event r was published: what else is, as topic, key and value.

        That is the campaigns, and again with later flights where the log takes longer than it seemed; requests, several
        together, as they come to a busy page.

        Args:
            r: the event.
            now_ms: wall clock.
        """
        self._audience.took(r)
        if r == self._measured_r:
            self._measured_ms = now_ms
        if self._booked(r, now_ms):
            return [("campaigns", each.campaign_id.encode(), encode(each)) for each in self.run.house]
        if r % EVERY == EVERY - 1 and self.run.house and now_ms >= self._begins_ms:
            self._waiting.append(r)
        if len(self._waiting) < _TOGETHER:
            return []
        asked, self._waiting = self._waiting, []
        self.run.requests += len(asked)
        made = (self._audience.request(each, items=0 if n % _WITH_ITEMS else _ITEMS) for n, each in enumerate(asked))
        return [("requests", *each) for each in made]

    def decided(self, ad: AdDecision) -> list[tuple[bytes, bytes]]:
        """A slot was decided: key and value of the events that this leads to."""
        campaign = ad.campaign_id or ""
        self.run.hear(ad, self._types.get(campaign, ""))
        if not ad.filled or ad.request_id is None:
            return []
        r = int(ad.request_id.rpartition("-")[2])
        told = self._audience.reacts(ad, self._genres.get(campaign, ()), r)
        for kind, _ in told:
            self.run.see(ad, kind)
        return [(ad.user_id.encode(), value) for _, value in told]

    def _booked(self, r: int, now_ms: int) -> bool:
        """Were campaigns made at event r? They run for as long as the rest of the log takes."""
        rest_ms = (now_ms - self._measured_ms) * (len(self._log) - r) // max(r - self._measured_r, 1)
        if r == self._begins_r:
            self._begins_ms = now_ms + _OPENS_MS
            self._pages = int((len(self._log) - r) / EVERY * (1 - _OPENS_MS / max(rest_ms, _OPENS_MS)))
        elif not (self.run.house and r in self._looked and now_ms + rest_ms > self._ends_ms):
            return False
        self._ends_ms = max(now_ms + int(_SPARE * rest_ms), self._begins_ms + _SHORTEST_MS)
        house = campaigns(
            genres_of(self._log), begin_ms=self._begins_ms, end_ms=self._ends_ms, pages=max(self._pages, 1)
        )
        self.run.house = house
        self._types = {campaign.campaign_id: campaign.line_items[0].type for campaign in house}
        self._genres = {campaign.campaign_id: campaign.line_items[0].creatives[0].categories for campaign in house}
        return True


def _worth(ad: AdDecision) -> int:
    """How much there is to tell of a win: something matched, others wanted the place, for more reasons than one."""
    if ad.billed_by != "impression" or not ad.floor_micros < ad.price_micros < ad.bid_micros or not ad.matched:
        return 1
    return 10 + 2 * len(ad.losses) + 3 * (Loss.capped.name in ad.losses) + 3 * min(len(ad.lost_to), 2)
