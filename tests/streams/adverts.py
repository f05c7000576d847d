"""Decisions, events of ads and what lies on their topics, so that a test shows only what matters.

>>> a_decision(1).decision_id == decided(1)
True
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from embeddings.events import Source
from embeddings.spend import Budget, SpendLedger, Totals, Want, Window, decision_id
from ranking.ads.campaigns import LineItem
from streams.contract import campaigns as wire
from streams.contract.ad_records import AdDecision
from streams.contract.campaign_records import campaign_of
from streams.contract.consent import Judge
from streams.contract.decode import Decoded, decode
from streams.contract.parsing import Rules
from streams.contract.records import encode
from streams.serving.ad_events import reservation_of
from streams.worker.ad_figures import Figures
from streams.worker.ad_log import AdLog, Records
from tests.streams.builders import EVENTS, NOW_MS, Raw, an_event

LINE, LIFE = "c/l", Window("c/l")
DAY_MS = 86_400_000
LEVELS = (0x10, 0x20, 0x30, 0x40)
RULES = Rules(judge=Judge(15))


def called(user_id: str) -> str:
    """What the ledger calls people: `ann` is `p`."""
    return "p" if user_id == "ann" else f"p of {user_id}"


def decided(n: int | str) -> str:
    return decision_id("requests", 0, 0, str(n))


def a_decision(n: int | str, price: int = 10, **fields: Any) -> AdDecision:
    """A filled slot of the line item c/l, paid by impression."""
    usual: dict[str, Any] = {
        "decision_id": decided(n), "user_id": "ann", "filled": True, "campaign_id": "c", "line_item_id": "l",
        "price_micros": price, "billed_by": "impression", "decided_ms": NOW_MS, "expires_ms": NOW_MS + DAY_MS,
        "kept_ms": NOW_MS + 7 * DAY_MS, "person": "p", "windows": (("c/l", ""),), "levels": LEVELS,
    }  # fmt: skip
    return AdDecision(**usual | fields)


def a_line(**fields: Any) -> LineItem:
    """The line item c/l as its record says it."""
    line = msgspec.convert({"id": "l", "bid_micros": 1_000} | fields, wire.LineItem)
    return campaign_of(wire.Campaign(campaign_id="c", advertiser="a", line_items=(line,)), "c").line_items[0]


def opened(ledger: SpendLedger, budget: int = 1_000) -> SpendLedger:
    """A new ledger, open, with a budget for the life of the line item, all of it leased by `w`."""
    ledger.rebuild(Totals(windows={}, counts={}, offsets={}))
    assert ledger.reopen() == {}
    ledger.set_budgets([Budget(LIFE, budget, 1)])
    ledger.lease("w", [Want(LINE, (LIFE,), budget)], now_ms=NOW_MS, until_ms=NOW_MS + 9 * DAY_MS)
    return ledger


def sell(ledger: SpendLedger, *decisions: AdDecision, now_ms: int = NOW_MS) -> None:
    made = [reservation_of(one, encode(one)) for one in decisions]
    ledger.reserve("w", made, now_ms=now_ms)


def an_ad_event(offset: int, n: int | str, kind: str = "impression", **fields: Any) -> Raw:
    """Something that happened to the ad of a decision."""
    return an_event(offset, item=None, kind=kind, decision_id=decided(n), **fields)


def read(*log: Raw, source: Source = EVENTS) -> Decoded:
    return decode([(source, log)], RULES, NOW_MS)


@dataclass
class Topics(AdLog):
    """An `AdLog` in memory."""

    ads: list[AdDecision] = field(default_factory=list)
    events: dict[Source, list[Raw]] = field(default_factory=dict)
    published: Figures = field(default_factory=Figures)
    asked: list[str] = field(default_factory=list)
    breaks: list[Exception] = field(default_factory=list)

    async def figures(self) -> Figures:
        self.asked.append("figures")
        return self.published

    async def decisions(self, since_ms: int) -> AsyncIterator[list[tuple[AdDecision, bytes]]]:
        self.asked.append("decisions")
        if self.breaks:
            raise self.breaks.pop(0)
        for one in self.ads:
            if one.decided_ms >= since_ms:
                yield [(one, encode(one))]

    async def events_since(self, since_ms: int) -> AsyncIterator[Records]:
        self.asked.append("events")
        for source, records in self.events.items():
            yield source, [record for record in records if record.timestamp >= since_ms]

    async def events_after(self, offsets: Mapping[Source, int]) -> AsyncIterator[Records]:
        self.asked.append("more")
        for source, offset in offsets.items():
            yield source, [record for record in self.events.get(source, ()) if record.offset > offset]


def spent(ledger: SpendLedger, window: Window = LIFE) -> int:
    return ledger.totals().windows[window].spent


def out(ledger: SpendLedger, person: str = "p") -> Sequence[int]:
    return sorted(ledger.in_flight([person])[0].out.values())
