"""What all workers spent and delivered, as the spend ledger tells it, by rows of the market."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from embeddings.spend import ONE, SpendLedger, Spent, Totals, Window
from ranking.ads.campaigns import LineItem
from ranking.ads.dayparts import local_day
from ranking.ads.market import Market
from ranking.ads.pacing import Limit
from ranking.ads.terms import COUNTED

N = TypeVar("N", bound=np.number[Any])
_PRIOR = {"impressions": 0.9, "viewable": 0.6, "clicks": 0.01, "complete": 0.6, "conversions": 0.001}
"""What share of ads come to it, as long as a line item has shown few."""
_PRIOR_OF = 50
_NOTHING = Spent(0, 0, 0, 0, 0)


@dataclass(slots=True)
class Sums:
    """Sums of L line items. What is reserved counts as spent; of goals, what is out counts as what it will come to.

    Attributes:
        spent_LG: by `pacing.Limit`, of the line item itself.
        campaign_L2: micros of its campaign in all and today.
        yield_L: how much of its goal a win will come to: 1 for impressions, a click-through rate for clicks.
        heard_ms: when the ledger told them; long ago where it never did.
        sure: is what is sold shown? Not where slates that nobody looks at bring ads: there what is out is as many
            impressions as ads came to before.
    """

    spent_LG: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, len(Limit)), np.int64))
    campaign_L2: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    yield_L: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    heard_ms: int = 0
    sure: bool = True
    _totals: Totals | None = field(init=False, default=None)
    _lines: tuple[LineItem | None, ...] = field(init=False, default=())
    _rows_of: defaultdict[str, set[int]] = field(init=False, default_factory=lambda: defaultdict(set))
    _days: dict[str, str] = field(init=False, default_factory=dict)

    @property
    def unheard(self) -> bool:
        """Has the ledger told nothing yet?"""
        return self._totals is None

    def align(self, market: Market, fresh_L: NDArray[np.bool_], now_ms: int) -> None:
        """Take over the rows of a market; those that are fresh begin anew."""
        kept = np.flatnonzero(~fresh_L)
        self.spent_LG = _kept(self.spent_LG, kept, (market.rows, len(Limit)), 0)
        self.campaign_L2 = _kept(self.campaign_L2, kept, (market.rows, 2), 0)
        self.yield_L = _kept(self.yield_L, kept, (market.rows,), 1)
        self._days = {zone: self._days.get(zone) or local_day(now_ms, zone) for zone in market.zones}
        self._read(market, self._moved(market.lines))

    def _moved(self, lines: tuple[LineItem | None, ...]) -> list[int]:
        """The rows that hold another line item than they did, whose names are its own from now on."""
        moved = [row for row, (new, old) in enumerate(zip_longest(lines, self._lines)) if new is not old]
        for row in moved:
            old = self._lines[row] if row < len(self._lines) else None
            for name in (old.key, old.campaign_id) if old else ():
                self._rows_of[name].discard(row)
                if not self._rows_of[name]:
                    del self._rows_of[name]
            new = lines[row] if row < len(lines) else None
            for name in (new.key, new.campaign_id) if new else ():
                self._rows_of[name].add(row)
        self._lines = lines
        return [row for row in moved if row < len(lines)]

    def hear(self, ledger: SpendLedger, market: Market, now_ms: int) -> bool:
        """Ask what changed; true where everything did, at first and since the ledger was rebuilt.

        Raises:
            LedgerClosed, StoreUnavailable, StoreRefused: as the ledger does; the sums stay as they were.
        """
        newer = ledger.totals(self._totals)
        anew = self._totals is None or newer.epoch != self._totals.epoch
        self._totals = self._totals.with_newer(newer) if self._totals else newer
        self.heard_ms = now_ms
        days = {zone: local_day(now_ms, zone) for zone in market.zones}
        if anew or days != self._days:
            self._days = days
            changed: Iterable[int] = range(market.rows)
        else:
            names = {window.key for window in newer.windows} | newer.counts.keys()
            changed = {row for name in names for row in self._rows_of.get(name, ())}
        self._read(market, changed)
        return anew

    def _read(self, market: Market, rows: Iterable[int]) -> None:
        if self._totals is None:
            return
        windows, counts = self._totals.windows, self._totals.counts
        for row in rows:
            if (line := market.lines[row]) is None:
                continue
            key, day, count = line.key, self._days[line.time_zone], counts.get(line.key, {})
            life, today = windows.get(Window(key, "", True), _NOTHING), windows.get(Window(key, day, True), _NOTHING)
            least, self.yield_L[row] = _delivered(count, COUNTED[market.counted_L[row]], self.sure)
            number = max(-(-(life.spent + life.reserved) // ONE), least)
            number_today = max(number - (life.spent - today.spent) // ONE, 0)
            self.spent_LG[row] = _out(windows, key, ""), _out(windows, key, day), number, number_today
            self.campaign_L2[row] = _out(windows, line.campaign_id, ""), _out(windows, line.campaign_id, day)


def _kept(values: NDArray[N], kept: NDArray[np.intp], shape: tuple[int, ...], new: int) -> NDArray[N]:
    out = np.full(shape, new, values.dtype)
    kept = kept[kept < len(values)]
    out[kept] = values[kept]
    return out


def _out(windows: Mapping[Window, Spent], key: str, day: str) -> int:
    spent = windows.get(Window(key, day), _NOTHING)
    return spent.spent + spent.reserved


def _delivered(counts: Mapping[str, int], goal: str, sure: bool) -> tuple[int, float]:
    """How much of a goal was delivered at least, whoever booked it, and how much of it a win comes to."""
    done, reserved = counts.get(goal, 0), counts.get("reserved", 0)
    out = max(reserved - counts.get("released", 0) - counts.get("billed", 0), 0)
    if goal == "impressions" and sure:
        return done + (0 if done < counts.get("billed", 0) else out), 1.0
    share = min((done + _PRIOR[goal] * _PRIOR_OF) / (max(reserved - out, done) + _PRIOR_OF), 1.0)
    return done + int(out * share) * (goal == "impressions" and done >= counts.get("billed", 0)), share
