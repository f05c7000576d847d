"""What is measured of ads, for Prometheus: no label holds a campaign, a line item or an advertiser.

Those are on the topic `ad-stats`, where they cost one record each; here they would be series without end.

>>> metrics = AdMetrics(CollectorRegistry())
>>> metrics.decided("filled", 3)
>>> metrics.registry.get_sample_value("marquee_ad_decisions_total", {"outcome": "filled"})
3.0
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple, get_args

from prometheus_client import CollectorRegistry

from embeddings.spend import KINDS, TOLD, Billing
from streams.process.series import Series, unset

Outcome = Literal["filled", "unfilled", "again", "refused", "failed"]
"""What became of a slot: sold; not; decided before; nothing may be shown there at all; the ledger did not answer."""
Standing = Literal["behind", "on_plan", "ahead"]
BEHIND, AHEAD = 0.9, 1.1
"""Delivered over expected: outside of these somebody should know."""


STOP_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


class Money(NamedTuple):
    """How the money of all line items stands, in micros, and how many have none left.

    `overspend` is the most that one spent beyond a budget, over that budget.
    """

    budget: int = 0
    spent: int = 0
    reserved: int = 0
    leased: int = 0
    due: int = 0
    delivered: int = 0
    exhausted: int = 0
    overspend: float = 0.0


class AdMetrics:
    """Decisions, events, money, and how fresh the published figures are."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.time) -> None:
        """Create every series.

        Args:
            registry: of the process.
            clock: epoch seconds, for ages.
        """
        self.registry, self._clock = registry, clock
        series = Series(registry, clock)
        self._decisions(series)
        self._events(series)
        self._ledger(series)
        self._plans(series)

    def _decisions(self, series: Series) -> None:
        self.decisions = series.counter(
            "ad_decisions",
            "Ad slots by what became of them.",
            "Divide `filled` by filled and unfilled for the fill rate; if `failed` rises, the spend ledger is away.",
            outcome=get_args(Outcome),
        )
        self.reasons = series.counter(
            "ad_funnel",
            "Line items at each step of this worker's decisions, by how far they came and why no further.",
            "Divide `won` by `bid` for the win rate, `paced` by paced and bid for the throttle rate.",
            reason=TOLD,
        )
        self.sold = series.counter(
            "ad_sold",
            "Prices of the slots that were filled, units of any currency.",
            "Compare with marquee_ad_spend_total: what was sold and is never billed is not seen by anybody.",
        )
        self.stop_seconds = series.histogram(
            "ad_stop_seconds",
            "From publishing the null record of a campaign until no decision of this worker knows it.",
            "If it is beyond a second, this worker is short of CPU: a stopped campaign goes on meanwhile.",
            STOP_SECONDS,
        )
        self.competing = series.gauge(
            "ad_competing",
            "Line items that decisions know.",
            "Compare between workers: all read the same campaigns.",
            start=0,
        )

    def _events(self, series: Series) -> None:
        self.events = series.counter(
            "ad_events",
            "Events of ads.",
            "If `impression` stops while slots are filled, pages do not report them, and nothing is billed.",
            kind=KINDS,
        )
        self.billings = series.counter(
            "ad_billings",
            "Events of ads by what the ledger made of them.",
            "If `unknown` rises, somebody reports what was not decided here; if `too_late`, pages report late.",
            billing=[one.name for one in Billing],
        )
        self.spend = series.counter(
            "ad_spend",
            "Spent by events that this worker read, units of any currency.",
            "Divide by marquee_ad_events_total of impressions, times 1000, for the eCPM.",
        )

    def _ledger(self, series: Series) -> None:
        self.swept = series.counter(
            "ad_swept",
            "Reservations released and leases returned at their end.",
            "If it nears what is filled, ads are sold and not shown: see marquee_ad_events_total.",
        )
        self.rebuilds = series.counter(
            "ad_rebuilds",
            "Rebuilds of the spend ledger after a loss.",
            "If `failed` rises, the log says what is missing; nothing is sold until one works.",
            result=("reopened", "failed"),
        )
        self.closed = series.gauge(
            "ad_ledger_closed",
            "Whether the spend ledger is closed (1), as the leader saw it last.",
            "If it stays 1 beyond a minute, see marquee_ad_rebuilds_total: nothing is sold meanwhile.",
        )
        self._totals_at = self._published_at = math.nan
        series.age(
            "ad_ledger_age_seconds",
            "Since the ledger's totals were read by the leader.",
            "If it grows, Redis does not answer for the ledger.",
            lambda: self._totals_at,
        )
        series.age(
            "ad_stats_age_seconds",
            "Since figures were published by the leader.",
            "If it grows, brokers do not take them, or the leader is busy: reports are that old.",
            lambda: self._published_at,
        )
        self.units = series.gauge(
            "ad_ledger_units",
            "Money of the line items with a limit for life that there are, units of any currency, as the leader says.",
            "If spent and reserved exceed budget, see marquee_ad_overspend_ratio.",
            state=("budget", "spent", "reserved", "leased"),
        )

    def _plans(self, series: Series) -> None:
        self.delivery = series.gauge(
            "ad_line_items",
            "Line items with a plan, by how they stand against it.",
            "If `behind` grows, `marquee ads why-not LINE_ITEM` says what one lacks.",
            standing=get_args(Standing),
        )
        self.delivery_ratio = series.gauge(
            "ad_delivery_ratio",
            "Delivered over expected by now, mean of the line items with a plan.",
            "If it is below 0.9 or above 1.1, somebody should know: see marquee_ad_line_items.",
        )
        self.plan_units = series.gauge(
            "ad_plan_units",
            "Money that is due by now by the plans of line items with a goal in money, and what they delivered.",
            "If delivered falls behind due, see the funnel: prices, targeting or traffic.",
            state=("due", "delivered"),
        )
        self.exhausted = series.gauge(
            "ad_exhausted",
            "Line items that have spent their budget, of today or for life.",
            "If it jumps early in the day, pacing was `asap`, or traffic was not as forecast.",
        )
        self.overspend = series.gauge(
            "ad_overspend_ratio",
            "The most that any line item there is spent beyond a budget, over that budget; 0 where none did.",
            "If it is above the bound in docs/ads.md, call whoever owns the ledger.",
        )

    def decided(self, outcome: Outcome, many: int = 1, *, price_micros: int = 0) -> None:
        """So many slots came to this, and were sold for so much each."""
        self.decisions.labels(outcome).inc(many)
        if outcome == "filled":
            self.sold.inc(many * price_micros / 1e6)

    def funnel(self, counts: Mapping[str, int]) -> None:
        """Line items came so far; names of the spend ledger's counts."""
        for name, many in counts.items():
            self.reasons.labels(name).inc(many)

    def heard(self, kind: str, billing: Billing, micros: int) -> None:
        """An event of an ad was confirmed, and spent so much."""
        self.events.labels(kind).inc()
        self.billings.labels(billing.name).inc()
        self.spend.inc(micros / 1e6)

    def read(self) -> None:
        """The leader has the ledger's totals: it is open."""
        self._totals_at = self._clock()
        self.closed.set(0)

    def published(self) -> None:
        """The broker has the leader's figures."""
        self._published_at = self._clock()

    def rebuilt(self, result: Literal["reopened", "failed"]) -> None:
        """The leader came to the end of a rebuild, or not."""
        self.rebuilds.labels(result).inc()

    def standing(self, indicators: Iterable[float]) -> None:
        """How all line items with a plan stand: delivered over expected of each."""
        all_ = list(indicators)
        many = dict.fromkeys(get_args(Standing), 0)
        for indicator in all_:
            many["behind" if indicator < BEHIND else "ahead" if indicator > AHEAD else "on_plan"] += 1
        for standing, count in many.items():
            self.delivery.labels(standing).set(count)
        self.delivery_ratio.set(sum(all_) / len(all_) if all_ else math.nan)

    def money(self, told: Money) -> None:
        """How the money of all line items stands."""
        for gauge, states in (
            (self.units, ("budget", "spent", "reserved", "leased")),
            (self.plan_units, ("due", "delivered")),
        ):
            for state in states:
                gauge.labels(state).set(getattr(told, state) / 1e6)
        self.exhausted.set(told.exhausted)
        self.overspend.set(told.overspend)

    def stopped(self, published_ms: int) -> None:
        """No decision knows a campaign any more whose null record was published then."""
        self.stop_seconds.observe(max(self._clock() - published_ms / 1000, 0.0))

    def resigned(self) -> None:
        """Another worker leads, and tells from now on how old its figures are."""
        self._totals_at = self._published_at = math.nan
        leaders = self.closed, self.delivery_ratio, self.exhausted, self.overspend
        for gauge in (*leaders, self.delivery, self.units, self.plan_units):
            unset(gauge)
