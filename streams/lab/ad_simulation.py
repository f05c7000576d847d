"""A day of selling ads through the service's own code, closed: what was decided is shown, clicked, billed, capped.

The house (`ad_house`) is that of workers, with time passed in; only topics and clocks are made up. Every minute workers
look at what was spent, events that have arrived are folded, requests that came are answered. Workers may be killed in
the middle of a batch, which then comes again, and Redis may lose its tail, of which the ledger is rebuilt as by a
worker that leads. What came of it is counted again by `ad_audit`, from decisions and events alone.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Any

import numpy as np

from embeddings.errors import LedgerClosed, StoreUnavailable
from embeddings.spend import SpendLedger, Totals
from ranking.ads.heads import PRIOR_RATES, AdHeads
from ranking.ads.pacing import SYSTEMS, PacingSettings
from streams.contract.messages import Part
from streams.contract.parsing import Rules
from streams.lab.ad_audience import Audience, Happening
from streams.lab.ad_audit import Audit
from streams.lab.ad_bookings import CLICK_RATE, DAY_MS, HOUR_MS, START_MS, Booked
from streams.lab.ad_house import AdHouse
from streams.lab.ad_standing import Standing
from streams.lab.ad_topics import AdTopics
from streams.lab.ad_world import AdWorld, settings_of_house
from streams.serving.slates import PublishedSlate
from streams.worker.ad_figures import Figures
from streams.worker.ad_rebuild import Rebuild

_BATCH, _TRIES = 128, 5
_DRAIN_MS = 2 * HOUR_MS
"""So long after the last request events still come."""
_KILLED = ("reserved", "confirmed", "published", "stored")
"""What a worker has just done when it is killed; what it had in hand comes again."""


@dataclass(slots=True, kw_only=True)
class Simulation:
    """One day of one house.

    Attributes:
        world: who comes, what was booked.
        system: how budgets are paced, of `SYSTEMS`.
        workers: how many sell.
        kills: how often one of them is killed.
        ledger: makes connections to the spend ledger; one in memory by default.
        server: what it lies in, to be restarted once; None where it is not.
        tick_s: between looks at what was spent.
    """

    world: AdWorld
    system: str = "marquee"
    workers: int = 1
    kills: int = 0
    ledger: Callable[[], SpendLedger] | None = None
    server: "Restarted | None" = None
    tick_s: int = 60
    audit: Audit = field(init=False)
    house: AdHouse = field(init=False)
    standing: Standing = field(init=False)
    losses: Counter[str] = field(init=False, default_factory=Counter)
    killed: Counter[str] = field(init=False, default_factory=Counter)
    rebuilt: int = field(init=False, default=0)
    _slots: set[str] = field(init=False, default_factory=set)
    filled: int = field(init=False, default=0)
    seconds: float = field(init=False, default=0.0)
    _topics: AdTopics = field(init=False, default_factory=AdTopics)
    _figures: Figures = field(init=False, default_factory=Figures)
    _leader: SpendLedger = field(init=False)
    _coming: list[tuple[int, int, Happening]] = field(init=False, default_factory=list)
    _number: Iterator[int] = field(init=False, default_factory=count)
    _due: list[tuple[int, str]] = field(init=False, default_factory=list)
    _lines: Mapping[str, Booked] = field(init=False)

    def __post_init__(self) -> None:
        world, tick_ms = self.world, 1000 * self.tick_s
        self.house = AdHouse(
            settings=settings_of_house(self.tick_s),
            count=self.workers,
            ledger=self.ledger,
            pacing=PacingSettings(dead_man_ms=10 * tick_ms),
            system=SYSTEMS[self.system],
            heads=AdHeads(rate_O=np.array([CLICK_RATE, *PRIOR_RATES[1:]])),
            now_ms=START_MS - 3 * tick_ms,
        )
        assert self.house.ledger is not None
        self._leader = self.house.ledger()
        self.audit, self.standing = Audit(world), Standing(world)
        self._lines = {line.key: line for line in world.lines}
        if refused := self.house.publish(*world.records):
            raise ValueError(refused[0].detail)
        for worker in self.house.workers:
            worker.budgets.saw(world.week_ms)
        self._due = [
            (int(len(world.time_ms_R) * (n + 0.5) / self.kills), _KILLED[n % len(_KILLED)]) for n in range(self.kills)
        ]

    def run(self) -> "Simulation":
        """Sell for a day, and wait until all has arrived."""
        began_s, tick_ms, asked = time.monotonic(), 1000 * self.tick_s, 0
        bounds = range(START_MS - 2 * tick_ms, START_MS + DAY_MS + _DRAIN_MS, tick_ms)
        for now_ms in bounds:
            self.house.now_ms = now_ms
            if self.server and asked >= len(self.world.time_ms_R) * self.server.next_share:
                self.server.go_on()
            self.house.tick()
            self._arrive(now_ms)
            until = int(np.searchsorted(self.world.time_ms_R, now_ms, side="right"))
            for first in range(asked, until, _BATCH):
                self._ask(range(first, min(first + _BATCH, until)))
            asked = until
            self._lead()
            self.standing.look(self._figures.totals, now_ms)
        self.seconds = time.monotonic() - began_s
        return self

    @property
    def totals(self) -> Totals:
        """What the ledger said at the last look."""
        return self._figures.totals

    @property
    def slots(self) -> int:
        """How many there were."""
        return len(self._slots)

    def _ask(self, some: range) -> None:
        for w in range(self.workers):
            mine = [self.world.request(r) for r in some if self.world.user_R[r] % self.workers == w]
            if not mine:
                continue
            part = self.house.requests(mine, w)
            if self._due and self._due[0][0] < some.stop and self._due[0][1] in ("reserved", "published"):
                slates = self.house.answer(part)
                if self._kill(w) == "published":
                    self._publish(slates)
            self._publish(self.house.answer(part))

    def _publish(self, slates: Sequence[PublishedSlate]) -> None:
        """Decisions go out, and people do with them what they do; what is published again changes nothing."""
        for slate in slates:
            for each in slate.ads:
                decision, known = each.record, each.record.decision_id in self.audit.shown
                if decision.decision_id not in self._slots:
                    self._slots.add(decision.decision_id)
                    self.losses.update(decision.losses)
                if not decision.filled:
                    continue
                self.audit.decided(decision)
                if known:
                    continue
                self.filled += 1
                self.losses["won"] += 1
                self._topics.decided.append((decision, each.value))
                line = self._lines[f"{decision.campaign_id}/{decision.line_item_id}"]
                for happening in Audience(self.world).of(decision, line):
                    heappush(self._coming, (happening.arrives_ms, next(self._number), happening))

    def _arrive(self, now_ms: int) -> None:
        """Events that have arrived are confirmed and folded."""
        for_worker: list[list[Happening]] = [[] for _ in range(self.workers)]
        while self._coming and self._coming[0][0] <= now_ms:
            happening = heappop(self._coming)[2]
            for_worker[int(happening.record["user_id"][1:]) % self.workers].append(happening)
        for w, some in enumerate(for_worker):
            if some:
                self._fold(w, some, now_ms)

    def _fold(self, w: int, some: Sequence[Happening], now_ms: int) -> None:
        part = self.house.events([one.record for one in some], w)
        self._topics.publish(part.source, part.records)
        if self._due and self._due[0][0] <= self._asked() and self._due[0][1] in ("confirmed", "stored"):
            self._until(part, self._due[0][1])
            self._kill(w)
        self._until(part, "folded")
        for one in some:
            self.audit.happened(one, now_ms)

    def _until(self, part: Part, until: Any) -> None:
        """Fold a part; while Redis does not answer it comes again, as a lane would have it."""
        for attempt in range(_TRIES):
            try:
                self.house.fold(part, until)
                return
            except StoreUnavailable:
                if attempt == _TRIES - 1:
                    raise

    def _asked(self) -> int:
        return int(np.searchsorted(self.world.time_ms_R, self.house.now_ms))

    def _kill(self, w: int) -> str:
        done = self._due.pop(0)[1]
        self.killed[done] += 1
        self.house.kill(w)
        return done

    def _lead(self) -> None:
        """What the worker that leads does: look at the totals, publish them, rebuild what is closed."""
        known = self._figures
        try:
            newer = self._leader.totals(known.totals)
        except StoreUnavailable:
            return
        except LedgerClosed:
            self._rebuild()
            return
        if self.server is None:
            known.totals = known.totals.with_newer(newer)
            return
        lines = {line.key: line for line in self.house.exchange.market.lines if line is not None}
        changed = known.changed(newer, lines, {}, self.house.now_ms)
        self._topics.stand(changed)
        known.take(changed)

    def _rebuild(self) -> None:
        house = self.house
        self._figures = asyncio.run(self._topics.figures())
        rebuild = Rebuild(
            ledger=self._leader,
            log=self._topics,
            rules=Rules.of(house.settings, {}),
            leads=lambda: True,
            now_ms=lambda: house.now_ms,
            reach_ms=house.settings.ads.billing_window_s * 1000,
        )
        asyncio.run(rebuild.run(self._figures))
        self.rebuilt += 1


@dataclass(slots=True)
class Restarted:
    """A server that keeps what it holds, goes on for a while, and is killed: when it comes again that while is lost."""

    server: Any
    at_share: float = 0.5
    _saved: bool = False
    _done: bool = False

    @property
    def next_share(self) -> float:
        """After which share of requests something is to be done."""
        return 2.0 if self._done else self.at_share if self._saved else self.at_share - 0.01

    def go_on(self) -> None:
        """Keep, or kill and start."""
        from deploy.processes import exchange

        if not self._saved:
            exchange(self.server.port, b"SAVE\r\n")
            self._saved = True
            return
        self.server.kill()
        self.server.start()
        self._done = True
