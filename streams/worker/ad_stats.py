"""What everybody sees of campaigns: one worker publishes the spend ledger's totals on `ad-stats`, every second.

The owner of the first partition of `events` leads, because the group has one such at a time. Every second it sweeps the
ledger, asks what changed, and writes those records, the position last. A ledger that is closed it rebuilds from the
topics (`ad_rebuild`). Whatever fails is tried again a second later, and nothing is lost by that: the ledger says what
changed since what was published.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

from aiokafka.errors import KafkaError

from embeddings.errors import LedgerClosed, StoreUnavailable
from embeddings.spend import SpendLedger
from streams.contract.ad_records import AdStats
from streams.contract.messages import Outgoing
from streams.contract.parsing import Rules
from streams.contract.records import encode
from streams.process.ad_metrics import AdMetrics
from streams.serving.ad_delivery import Promise
from streams.serving.stages import epoch_ms
from streams.transport.publishing import Publisher, PublishFailed
from streams.worker.ad_figures import Figures, Lines, Promises, money_of
from streams.worker.ad_log import AdLog
from streams.worker.ad_rebuild import Rebuild, Resigned

log = logging.getLogger(__name__)

_TRANSIENT = (KafkaError, OSError, TimeoutError, PublishFailed, StoreUnavailable, LedgerClosed)
_SWEEPS, _SWEPT = 8, 1_000


@dataclass(slots=True, kw_only=True)
class AdStatsLeader:
    """Publishes how line items stand, and keeps the spend ledger going.

    Attributes:
        ledger: on connections of its own; its calls run in a thread.
        publisher: to the brokers.
        topic: full name of `ad-stats`.
        log: what a lost ledger is rebuilt from.
        rules: how events are read then.
        metrics: of ads.
        lines: line items by key, as the campaigns topic has them now.
        promises: what they are to have delivered by a moment, by key.
        leads: whether it is this worker.
        active: whether there are campaigns. Before there were any nothing is asked and nothing written.
        reach_ms: so long after it was made a decision can be billed at most.
        every_s: pause between publications.
        settled_s: it begins when it has been the one for so long, and rebuilds what has been closed for so long: what
            others sent has arrived by then.
        promised_s: promises are that old at most.
        now_ms: wall clock.
    """

    ledger: SpendLedger
    publisher: Publisher
    topic: str
    log: AdLog
    rules: Rules
    metrics: AdMetrics
    lines: Lines = dict
    promises: Promises = lambda now_ms: {}
    leads: Callable[[], bool] = lambda: False
    active: Callable[[], bool] = lambda: True
    reach_ms: int = 8 * 86_400_000
    every_s: float = 1.0
    settled_s: float = 3.0
    promised_s: float = 5.0
    now_ms: Callable[[], int] = epoch_ms
    _figures: Figures | None = field(init=False, default=None)
    _leads_s: float | None = field(init=False, default=None)
    _closed_s: float | None = field(init=False, default=None)
    _promised: tuple[float, Mapping[str, Sequence[Promise]]] = field(init=False, default=(-1e9, {}))
    _complained: bool = field(init=False, default=False)

    async def run(self) -> None:
        """Publish for as long as the worker lives."""
        try:
            while True:
                began_s = monotonic()
                await self._try(began_s)
                await asyncio.sleep(max(0.0, self.every_s - (monotonic() - began_s)))
        finally:
            await self.publisher.stop()
            self.ledger.close()

    async def _try(self, now_s: float) -> None:
        try:
            await self.step(now_s)
            self._complained = False
        except _TRANSIENT as error:
            if not self._complained:
                log.warning("figures of campaigns wait: %s", error)
            self._complained = True

    async def step(self, now_s: float) -> None:
        """One publication, or what has to come before it.

        Raises:
            KafkaError, PublishFailed, StoreUnavailable, LedgerClosed: not this time; call again.
            StoreRefused: it never will. The process ends.
        """
        if self._figures is None and not self.active():
            return
        if not self.leads():
            if self._leads_s is not None:
                self._resign()
            return
        if self._leads_s is None:
            self._leads_s = now_s
        if now_s - self._leads_s < self.settled_s:
            return
        if self._figures is None:
            self._figures = await self.log.figures()
        try:
            await self._publish(self._figures, now_s)
            self._closed_s = None
        except LedgerClosed as why:
            await self._reopen(why, now_s)

    async def _publish(self, known: Figures, now_s: float) -> None:
        """Release what nobody billed, and publish what changed."""
        self.metrics.swept.inc(await asyncio.to_thread(self._sweep))
        newer = await asyncio.to_thread(self.ledger.totals, known.totals)
        self.metrics.read()
        now_ms = self.now_ms()
        promises, lines = await self._promises(now_s, now_ms), self.lines()
        changed = await asyncio.to_thread(known.changed, newer, lines, promises, now_ms)
        await self.publisher.send_all([self._record(one) for one in changed.records.values()])
        known.take(changed)
        self.metrics.published()
        stand = (known.records[key].indicator for key in promises if key in known.records)
        self.metrics.standing(indicator for indicator in stand if indicator is not None)
        there = [record for key, record in known.records.items() if key in lines]
        self.metrics.money(await asyncio.to_thread(money_of, there))

    def _record(self, one: AdStats) -> Outgoing:
        return Outgoing(self.topic, one.key.encode(), encode(one), (), 0)

    def _sweep(self) -> int:
        many = 0
        for _ in range(_SWEEPS):
            swept = self.ledger.sweep(now_ms=self.now_ms(), most=_SWEPT)
            many += swept
            if swept < _SWEPT:
                break
        return many

    async def _promises(self, now_s: float, now_ms: int) -> Mapping[str, Sequence[Promise]]:
        made_s, promises = self._promised
        if now_s - made_s >= self.promised_s:
            promises = await asyncio.to_thread(self.promises, now_ms)
            self._promised = now_s, promises
        return promises

    async def _reopen(self, why: LedgerClosed, now_s: float) -> None:
        """Rebuild a ledger that is closed, once what others decided before has arrived on the topics."""
        self.metrics.closed.set(1)
        if self._closed_s is None:
            log.warning("%s; nothing is sold until it is rebuilt", why)
            self._closed_s = now_s
        if now_s - self._closed_s < self.settled_s:
            return
        rebuild = Rebuild(
            ledger=self.ledger,
            log=self.log,
            rules=self.rules,
            leads=self.leads,
            now_ms=self.now_ms,
            reach_ms=self.reach_ms,
        )
        try:
            self._figures = figures = await self.log.figures()
            await rebuild.run(figures)
        except Resigned:
            return
        except _TRANSIENT:
            self.metrics.rebuilt("failed")
            raise
        self.metrics.rebuilt("reopened")
        self._closed_s = None

    def _resign(self) -> None:
        self._figures = self._leads_s = self._closed_s = None
        self.metrics.resigned()
