"""What this worker may spend now: leases, pacing, budgets."""

from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import NDArray

from embeddings.spend import SpendLedger, Window
from ranking.ads.market import Exchange, Market
from streams.ad_settings import Ads


class Budgets:
    """Stub: everything may be spent; see `docs/ads.md`."""

    def __init__(
        self,
        ledger: SpendLedger,
        exchange: Exchange,
        settings: Ads,
        *,
        worker: str,
        owned: Callable[[], Collection[int]] | None = None,
        partitions: int = 1,
    ) -> None:
        self.worker = worker

    def saw(self, times_ms: NDArray[np.int64]) -> None:
        """Requests came at these event times."""

    def may_bid(
        self, market: Market, row_M: NDArray[np.integer], draw_M: NDArray[np.uint64], now_ms: int
    ) -> NDArray[np.int16]:
        """0, or the `Loss` of a candidate that may not bid now."""
        return np.zeros(len(row_M), np.int16)

    def take(
        self, market: Market, row_W: NDArray[np.integer], micros_W: NDArray[np.int64], now_ms: int
    ) -> NDArray[np.bool_]:
        """Which wins are covered."""
        return np.ones(len(row_W), np.bool_)

    def told(self, market: Market, row_W: NDArray[np.integer], micros_W: NDArray[np.int64]) -> None:
        """The ledger has answered for wins that were covered."""

    def windows(self, market: Market, row: int) -> tuple[Window, ...]:
        """The windows of the lease of a line item."""
        line = market.lines[row]
        return (Window(line.key), Window(line.campaign_id)) if line else ()

    def tick(self, now_ms: int) -> None:
        """Ask the ledger and set the pace."""

    def give_back(self, now_ms: int) -> None:
        """Give leases back."""
