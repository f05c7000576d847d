"""All that a worker sells ads with: campaigns, budgets and their keeper, who decides, who hears of events, figures."""

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from embeddings.keepsake import KEPT_MS
from embeddings.patience import Patience
from embeddings.spend_redis import RedisSpendLedger
from ranking.ads.market import Exchange
from streams.contract.parsing import Rules
from streams.process.metrics import WorkerMetrics
from streams.serving.ad_answers import AdAnswers
from streams.serving.ad_beside import BesideHouse
from streams.serving.ad_delivery import promises_of
from streams.serving.ad_events import AdEvents
from streams.serving.ad_funnel import Funnel, PostedFunnel
from streams.serving.ad_requests import AskRules, person_of
from streams.serving.ad_scoring import AdScorer
from streams.serving.ad_slates import SlateAds
from streams.serving.ads import AdServer
from streams.serving.budgets import Budgets
from streams.serving.campaign_lives import CampaignLives
from streams.serving.live_model import Serving
from streams.serving.rehearsal import Rehearsal
from streams.settings import Settings
from streams.transport.publishing import Publisher
from streams.worker.ad_log import KafkaAdLog
from streams.worker.ad_stats import AdStatsLeader
from streams.worker.spending import Spending
from streams.worker.stores import keepsake, spend_ledger

log = logging.getLogger(__name__)
_LONGEST_MS = 90 * 86_400_000
"""No conversion is attributed, or paid for, later."""


@dataclass(slots=True)
class Selling:
    """What is shared by the lanes, and what each of them has for itself. Without campaigns none of it costs anything.

    Every part that calls the spend ledger has a connection of its own: they run in threads of their own.
    """

    settings: Settings
    serving: Serving
    metrics: WorkerMetrics
    publisher: Publisher
    patience: Mapping[str, Patience]
    rehearsal: Rehearsal
    exchange: Exchange = field(init=False)
    lives: CampaignLives = field(init=False)
    budgets: Budgets = field(init=False)
    spending: Spending = field(init=False)
    stats: AdStatsLeader = field(init=False)
    events: AdEvents = field(init=False)
    answers: AdAnswers = field(init=False)
    posted: AdAnswers = field(init=False)
    """Answers what is asked over HTTP."""
    slates: SlateAds | None = field(init=False)
    """What lays ads on slates that nobody asked for; None where their surface did not opt in."""
    _rules: Rules = field(init=False)
    _secret: bytes = field(init=False, repr=False)
    _scorer: AdScorer = field(init=False)
    _house_beside: BesideHouse = field(init=False)
    _warned: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        settings, ads = self.settings, self.settings.ads
        self._rules = Rules.of(settings, {})
        self.exchange = Exchange(ads.rates(), ads.currency)
        self.lives = CampaignLives(keepsake(settings, "campaign-lives", 100 * KEPT_MS, self.metrics.redis.watch("ads")))
        self.budgets = Budgets(
            self._ledger(),
            self.exchange,
            ads,
            worker=f"{settings.kafka.client_id}-{secrets.token_hex(6)}",
            partitions=settings.topics.partitions,
            curve=keepsake(settings, "traffic", watch=self.metrics.redis.watch("ads")),
            version=self.lives.told,
        )
        self.spending = Spending(budgets=self.budgets, exchange=self.exchange, every_s=ads.tick_s)
        self._secret = ads.secret.get_secret_value().encode() if ads.secret else b""
        self.events = AdEvents(
            ledger=self._ledger(),
            heard=self.metrics.ads.heard,
            person=lambda user_id: person_of(user_id, self._secret),
            active=self.sells,
        )
        self._scorer, self._house_beside = AdScorer(self.serving, settings), BesideHouse(ads.allow_sensitive)
        asked = AskRules.of(settings, self._secret)
        self.stats = self._stats()
        self.answers, self.posted = (
            AdAnswers(server=self._server("requests", funnel, waits), rules=asked, judge=self._rules.judge)
            for funnel, waits in ((Funnel(), "requests"), (PostedFunnel(), "posted"))
        )
        self.slates = SlateAds.of(lambda: self._server("events", Funnel(), "events"), asked, settings)

    def _ledger(self, patience: Patience | None = None) -> RedisSpendLedger:
        return spend_ledger(self.settings, self.metrics.redis.watch("ads"), patience)

    def sells(self) -> bool:
        """See `Market.sells`."""
        return self.exchange.market.sells

    def changed(self) -> None:
        """Campaigns came or went: work out what decisions need of them, so that no request waits for it."""
        if self.sells() and not self.settings.ads.secret and not self._warned:
            self._warned = True
            log.warning(
                "ads.secret is not set, so nobody's impressions are counted and line items with caps not served"
            )
        self.metrics.ads.competing.set(sum(line is not None for line in self.exchange.market.lines))
        self.answers.server.prepare()  # the others share it

    def _server(self, lane: str, funnel: Funnel, waits: str) -> AdServer:
        """For one lane, and with whose patience."""
        return AdServer(
            exchange=self.exchange,
            budgets=self.budgets,
            scorer=self._scorer,
            beside=self._house_beside,
            ledger=self._ledger(self.patience[waits]),
            settings=self.settings,
            stage=partial(self.metrics.stage, lane=lane),
            funnel=funnel,
        )

    def _stats(self) -> AdStatsLeader:
        exchange, settings = self.exchange, self.settings
        return AdStatsLeader(
            ledger=self._ledger(),
            publisher=self.publisher,
            topic=settings.topics.name("ad_stats"),
            log=KafkaAdLog(settings),
            rules=self._rules,
            metrics=self.metrics.ads,
            lines=lambda: {line.key: line for line in exchange.market.lines if line is not None},
            promises=lambda now_ms: promises_of(exchange.market, self.budgets.traffic, now_ms),
            active=self.sells,
            reach_ms=max(settings.ads.billing_window_s * 1_000, _LONGEST_MS),
        )
