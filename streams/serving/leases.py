"""How much of each budget a worker holds: expected spending of some seconds, asked for again before it runs out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from embeddings.spend import MOST_AMOUNT, Lease, SpendLedger, Want
from ranking.ads.campaigns import BidType, LineItem
from ranking.ads.dayparts import local_day
from ranking.ads.holdings import Holdings
from ranking.ads.market import Market
from streams.serving.ledger_windows import AT_ONCE, LineWindows, windows_of

_LEAST_UNITS = 4
"""So many wins are held at least, where there is so much to be had."""
_CHANCE = {BidType.cpc: 0.01, BidType.cpa: 0.001, BidType.cpcv: 0.6}
"""Of what a win will be priced at, until one was seen."""


@dataclass(slots=True)
class Leases:
    """Leases of one worker, by row of the market.

    Attributes:
        ledger: who leases.
        worker: a name that no other life of a process has.
        chunk_ms: spending of so long is held.
        lease_ms: a lease's length.
        unit_L: micros that a win costs, lately.
        per_ms_L: micros spent lately in a ms.
    """

    ledger: SpendLedger
    worker: str
    chunk_ms: float
    lease_ms: int
    unit_L: NDArray[np.int64] = field(init=False, default_factory=lambda: np.zeros(0, np.int64))
    per_ms_L: NDArray[np.float64] = field(init=False, default_factory=lambda: np.zeros(0))
    _held: dict[int, Want] = field(init=False, default_factory=dict)
    _next: dict[int, LineWindows] = field(init=False, default_factory=dict)
    _windows: dict[int, LineWindows] = field(init=False, default_factory=dict)
    _changed: NDArray[np.bool_] = field(init=False, default_factory=lambda: np.zeros(0, np.bool_))
    _orphans: list[Want] = field(init=False, default_factory=list)
    _days: dict[str, str] = field(init=False, default_factory=dict)

    def align(self, market: Market, fresh_L: NDArray[np.bool_], changed_L: NDArray[np.bool_]) -> None:
        """Take over the rows of a market; what is held for rows that are somebody else's now goes back.

        Those of `changed_L` may have other budgets than before: their leases are asked for again.
        """
        rows = min(len(self.unit_L), market.rows)
        unit_L, per_ms_L = np.ones(market.rows, np.int64), np.zeros(market.rows)
        unit_L[:rows], per_ms_L[:rows] = self.unit_L[:rows], self.per_ms_L[:rows]
        for row in np.flatnonzero(fresh_L).tolist():
            unit_L[row] = _first_price(market.lines[row])
        per_ms_L[fresh_L] = 0.0
        self.unit_L, self.per_ms_L = unit_L, per_ms_L
        kept_L = np.zeros(market.rows, np.bool_)
        kept_L[: len(self._changed)] = self._changed[: market.rows]
        self._changed = kept_L | changed_L
        for row in [row for row in self._held if row >= market.rows or fresh_L[row]]:
            self._orphans.append(self._held.pop(row)._replace(micros=0))
            self._windows.pop(row)

    def learn(self, held: Holdings, ms: int) -> None:
        """What was won since the last tick, `ms` ago, for which micros; and what was not covered."""
        won = np.flatnonzero(held.since_L)
        each = -(-held.taken_L[won] // held.since_L[won])
        self.unit_L[won] = np.maximum((3 * self.unit_L[won] + each + 3) // 4, 1)
        self.unit_L = np.maximum(self.unit_L, held.short_L)
        kept = 0.5 ** (ms / self.chunk_ms)
        asked_L = held.taken_L + held.missed_L * self.unit_L
        self.per_ms_L = self.per_ms_L * kept + asked_L / ms * (1 - kept)

    def wanted(self, own_units_L: NDArray[np.int64]) -> NDArray[np.int64]:
        """What to hold, of which as many units at most are this worker's. Shape (L,)."""
        units_L = np.maximum(np.ceil(2 * self.per_ms_L * self.chunk_ms / self.unit_L), _LEAST_UNITS).astype(np.int64)
        return np.minimum(np.minimum(units_L, own_units_L) * self.unit_L, MOST_AMOUNT // 2)

    def renew(self, market: Market, held: Holdings, want_L: NDArray[np.int64], lock: Lock, now_ms: int) -> None:
        """Bring leases up or down, where it is time to.

        Raises:
            LedgerClosed: nothing is held any more.
            StoreUnavailable, StoreRefused: what is held stays until its end.
        """
        days = {zone: local_day(now_ms, zone) for zone in market.zones}
        wants = [*self._wants(market, held, want_L, days, now_ms)]
        orphans, self._orphans = self._orphans, []
        try:
            self._ask([(-1, want) for want in orphans], held, lock, now_ms)
            self._ask(wants, held, lock, now_ms)
            self._days = days
            self._changed[:] = False
        except Exception:
            self._orphans += orphans
            raise

    def _wants(
        self, market: Market, held: Holdings, want_L: NDArray[np.int64], days: Mapping[str, str], now_ms: int
    ) -> Iterator[tuple[int, Want]]:
        held_L = np.zeros(market.rows, np.bool_)
        held_L[list(self._held)] = True
        early_L = (held.key_L % np.uint64(max(self.lease_ms // 4, 1))).astype(np.int64)  # not all at once
        due_L = (held.until_ms_L - now_ms < self.lease_ms // 2 + early_L) | (2 * held.left_L < want_L)
        down_L = held_L & ((want_L == 0) | (held.left_L > 2 * want_L + self.unit_L))
        stale_L = held_L & self._changed
        if days != self._days:
            stale_L[[row for row, own in self._windows.items() if own.day != _day(market, row, days)]] = True
        for row in np.flatnonzero((want_L > 0) & (due_L | stale_L) | down_L).tolist():
            if (line := market.lines[row]) is not None:
                micros = int(want_L[row])
                self._next[row] = windows_of(market, row, days[line.time_zone])
                yield row, Want(line.key, self._next[row].bound, micros + int(held.untold_L[row]) if micros else 0)

    def _ask(self, wants: Sequence[tuple[int, Want]], held: Holdings, lock: Lock, now_ms: int) -> None:
        for first in range(0, len(wants), AT_ONCE):
            some = wants[first : first + AT_ONCE]
            until_ms = now_ms + self.lease_ms
            got = self.ledger.lease(self.worker, [want for _, want in some], now_ms=now_ms, until_ms=until_ms)
            with lock:
                for (row, want), lease in zip(some, got, strict=True):
                    if row >= 0:
                        self._take_over(row, want, lease, held)

    def _take_over(self, row: int, want: Want, lease: Lease, held: Holdings) -> None:
        if want.micros:
            self._held[row], self._windows[row] = want, self._next[row]
        else:
            self._held.pop(row, None)
            self._windows.pop(row, None)
        held.left_L[row] = max(lease.micros - held.untold_L[row], 0)
        held.until_ms_L[row] = lease.until_ms if want.micros else 0

    def forget(self, held: Holdings) -> None:
        """The ledger is closed: what was held is worth nothing."""
        self._held.clear()
        self._windows.clear()
        self._orphans.clear()
        held.left_L[:] = 0
        held.until_ms_L[:] = 0

    def windows(self, row: int, key: str) -> LineWindows:
        """The windows of a row's lease; none where none is held for that key."""
        want = self._held.get(row)
        return self._windows[row] if want is not None and want.key == key else LineWindows("")

    def give_back(self, now_ms: int) -> None:
        """Give everything back.

        Raises:
            LedgerClosed, StoreUnavailable, StoreRefused: it goes back when leases end.
        """
        wants = [*self._orphans, *(want._replace(micros=0) for want in self._held.values())]
        for first in range(0, len(wants), AT_ONCE):
            self.ledger.lease(self.worker, wants[first : first + AT_ONCE], now_ms=now_ms, until_ms=now_ms + 1)
        self._held.clear()
        self._windows.clear()
        self._orphans.clear()


def _day(market: Market, row: int, days: Mapping[str, str]) -> str:
    line = market.lines[row]
    return days[line.time_zone] if line is not None else ""


def _first_price(line: LineItem | None) -> int:
    """What a win may cost, in micros of the line item's currency, before one was seen."""
    if line is None:
        return 1
    bid = -(-max(line.bid_micros, line.deal.floor_micros if line.deal else 0) // 1000)
    return max(int(line.bid_micros * _CHANCE[line.bid_type]) if line.bid_type in _CHANCE else bid, 1)
