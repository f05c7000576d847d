"""Which budgets of the spend ledger a line item spends from, and what has to be told of them.

>>> Window("c/l", "2026-11-27") in windows_of("c/l", "c", "2026-11-27")
True
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from embeddings.spend import UNLIMITED, Budget, SpendLedger, Window
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


@dataclass(slots=True)
class BudgetTeller:
    """Tells the ledger budgets that it may not know: those of records that are new, and those of each day.

    A window that has no budget has `UNLIMITED`, so that what is spent of it is counted.
    """

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
        own = market.plans.limit_LG[row, Limit.day_micros if day else Limit.lifetime_micros]
        theirs = market.campaign_limit_L2[row, 1 if day else 0]
        for name, micros in ((key, int(own)), (campaign_id, int(theirs))):
            window, version = Window(name, day), int(market.version_L[row])
            self._unsaid[window] = Budget(window, micros if micros >= 0 else UNLIMITED, version)

    def tell(self, ledger: SpendLedger) -> None:
        """Tell what is to be told; what fails is told the next time.

        Raises:
            LedgerClosed, StoreUnavailable, StoreRefused: as the ledger does.
        """
        while some := list(self._unsaid.values())[:AT_ONCE]:
            ledger.set_budgets(some)
            for budget in some:
                if self._unsaid.get(budget.window) is budget:
                    del self._unsaid[budget.window]
