"""How high to bid: what prices were seen, relative to what an impression is worth, and the factor that suits them.

Every auction says what would have won (`min_to_win`), to losers too. From that a line item knows what any factor on its
bids would have cost and won.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ranking.jit import kernel

BINS = 100
_LOWEST, _HIGHEST = -6.0, 4.0
_STEP = (_HIGHEST - _LOWEST) / BINS
FACTOR_K = np.exp(_LOWEST + _STEP * np.arange(1, BINS + 1))
"""The upper edges of the bins: factors of a bid, from 1/400 to 55 times its worth."""


@dataclass(slots=True, kw_only=True)
class Landscape:
    """Prices by their ratio to worth, for each of L line items; mutable, one owner. Fades with its own rows.

    `seen_LK` counts chances whose price has that ratio, `cost_LK` sums their prices in micros; `rows_L` counts all
    chances, those without a price (nobody could have won them) too.
    """

    lines: int
    half_life_rows: float = 1_000.0
    seen_LK: NDArray[np.float64] = field(init=False)
    cost_LK: NDArray[np.float64] = field(init=False)
    rows_L: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.seen_LK, self.cost_LK = np.zeros((2, self.lines, BINS))
        self.rows_L = np.zeros(self.lines)

    def learn(self, line_C: NDArray[np.int64], price_C: NDArray[np.int64], worth_C: NDArray[np.int64]) -> None:
        """Count chances: `Sold.min_to_win_C` beside `bids.worth`, negative where no bid would have won."""
        kept = 0.5 ** (1 / self.half_life_rows)
        _count(self.seen_LK, self.cost_LK, self.rows_L, line_C, price_C, worth_C, kept)

    def affordable(self, micros_L: NDArray[np.float64], start: float = 1.0) -> NDArray[np.float64]:
        """The factor on worth with which a chance costs `micros_L` on average at second price. Shape (L,).

        One factor for all chances buys the most value for the money (the dual of the budgeted knapsack; Zhang et al.
        2014). The largest factor where even that costs less; `start` where no chance has been seen yet.
        """
        mean_LK = np.cumsum(self.cost_LK, 1) / np.maximum(self.rows_L, 1e-9)[:, None]
        at_L = (mean_LK < micros_L[:, None]).sum(1)
        inside_L = np.minimum(at_L, BINS - 1)
        lines = np.arange(self.lines)
        below_L = np.where(inside_L > 0, mean_LK[lines, inside_L - 1], 0.0)
        in_bin_L = np.maximum(mean_LK[lines, inside_L] - below_L, 1e-300)
        part_L = np.clip((micros_L - below_L) / in_bin_L, 0.0, 1.0)
        factor_L = np.exp(_LOWEST + _STEP * (inside_L + part_L))
        return np.where(self.rows_L > 0, np.where(micros_L > 0, factor_L, 0.0), start)

    def first_price(self) -> NDArray[np.float64]:
        """The share of its worth to bid where the bid is paid: the most of (1 - share) x chances won. Shape (L,).

        1 where no chance has been seen; never more: above its worth a win is a loss.
        """
        won_LK = np.cumsum(self.seen_LK, 1)[:, FACTOR_K < 1]
        gain_LK = won_LK * (1 - FACTOR_K[FACTOR_K < 1])
        best_L = FACTOR_K[gain_LK.argmax(1)]
        return np.where(gain_LK.max(1) > 0, best_L, 1.0)


@kernel
def _count(
    seen_LK: NDArray[np.float64],
    cost_LK: NDArray[np.float64],
    rows_L: NDArray[np.float64],
    line_C: NDArray[np.int64],
    price_C: NDArray[np.int64],
    worth_C: NDArray[np.int64],
    kept: float,
) -> None:
    for c in range(len(line_C)):
        line = line_C[c]
        rows_L[line] = rows_L[line] * kept + 1
        seen_LK[line] *= kept
        cost_LK[line] *= kept
        if price_C[c] < 0 or worth_C[c] <= 0:
            continue
        k = int(np.floor((np.log(max(price_C[c], 1) / worth_C[c]) - _LOWEST) / _STEP))
        if k < BINS:
            seen_LK[line, max(k, 0)] += 1
            cost_LK[line, max(k, 0)] += price_C[c]
