"""Which budgets of the spend ledger a line item spends from, and what has to be told of them.

>>> Window("c/l", "2026-11-27") in windows_of("c/l", "c", "2026-11-27")
True
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from embeddings.spend import ONE, UNLIMITED, Budget, SpendLedger, Window
from ranking.ads.dayparts import local_day
from ranking.ads.market import Market
from ranking.ads.pacing import Limit

AT_ONCE = 512
"""Rows of one call: a script of so many takes some tens of milliseconds, in which Redis answers nobody else."""
AHEAD_MS = 600_000
"""So long before midnight tomorrow's budgets are told."""


def windows_of(key: str, campaign_id: str, day: str) -> tuple[Window, ...]:
    """A line item's budgets and its campaign's, for life and for a day of the campaign's clock."""
    return Window(key), Window(key, day), Window(campaign_id), Window(campaign_id, day)


def booked_of(key: str, day: str) -> tuple[Window, ...]:
    """A line item's booked number, for life and for a day of its campaign's clock."""
    return Window(key, "", True), Window(key, day, True)


@dataclass(slots=True)
class BudgetTeller:
    """Tells the ledger budgets that it may not know: those of records that are new, and those of each day.

    A window that has no budget has `UNLIMITED`, so that what is spent of it is counted. `version` says what the ledger
    calls a version of the market.
    """

    version: Callable[[int], int] = int
    _unsaid: dict[Window, Budget] = field(init=False, default_factory=dict)
    _days: dict[str, str] = field(init=False, default_factory=dict)

    def changed(self, market: Market, rows: Iterable[int], now_ms: int) -> None:
        """These rows have another record than before."""
        for row in rows:
            if (line := market.lines[row]) is not None:
                days = {"", *(local_day(at_ms, line.time_zone) for at_ms in (now_ms, now_ms + AHEAD_MS))}
                for day in days:
                    self._add(market, row, line.key, line.campaign_id, day)

    def passed(self, market: Market, now_ms: int) -> None:
        """Time has passed: where a day has begun, or soon will, its budgets are to be told."""
        days = {zone: local_day(now_ms + AHEAD_MS, zone) for zone in market.zones}
        for row, line in enumerate(market.lines if days != self._days else ()):
            if line is not None and days[line.time_zone] != self._days.get(line.time_zone):
                self._add(market, row, line.key, line.campaign_id, days[line.time_zone])
        self._days = days

    def _add(self, market: Market, row: int, key: str, campaign_id: str, day: str) -> None:
        own_G, theirs_2 = market.plans.targets_of(row), market.campaign_limit_L2[row]
        money, number = (Limit.day_micros, Limit.day_count) if day else (Limit.lifetime_micros, Limit.lifetime_count)
        self._put(Window(key, day), own_G[money], market, row)
        self._put(Window(campaign_id, day), int(theirs_2[1 if day else 0]), market, row)
        if market.booked(row):
            self._put(Window(key, day, True), own_G[number] * ONE, market, row)

    def _put(self, window: Window, amount: int, market: Market, row: int) -> None:
        amount = min(amount, UNLIMITED) if amount >= 0 else UNLIMITED
        self._unsaid[window] = Budget(window, amount, int(market.version_L[row]))

    def tell(self, ledger: SpendLedger) -> None:
        """Tell what is to be told; what fails is told the next time.

        Raises:
            LedgerClosed, StoreUnavailable, StoreRefused: as the ledger does.
        """
        while some := list(self._unsaid.values())[:AT_ONCE]:
            ledger.set_budgets([budget._replace(version=self.version(budget.version)) for budget in some])
            for budget in some:
                if self._unsaid.get(budget.window) is budget:
                    del self._unsaid[budget.window]
