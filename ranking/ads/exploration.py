"""Thompson sampling on calibrated chances: of an ad that was seldom shown, chance says how good it may be.

The log-odds of a creative are taken to be normal about what the heads say, the wider the less often it was shown
(Chapelle and Li, "An empirical evaluation of Thompson sampling", 2011, with the spread of one logistic weight under
Laplace's approximation). Everything is drawn by numbers that are given, so that a decision made again is the same.
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ranking.ads.auction import GOLDEN, mixed
from ranking.jit import kernel

_LEVELS = 1 << 10
_NORMAL = np.array([NormalDist().inv_cdf((n + 0.5) / _LEVELS) for n in range(_LEVELS)])
_SHIFT = 64 - 10
ROUNDS = 16
_LEAST = 1e-9


def spreads(p_CO: NDArray[np.floating], shown_C: NDArray[np.floating], widest: float) -> NDArray[np.float64]:
    """Standard deviations of log-odds of creatives that were shown so often; `widest` of one that never was. (C, O).

    >>> spreads(np.array([[0.01], [0.01]]), np.array([0.0, 10_000.0]), 0.5).round(3).tolist()
    [[0.5], [0.099]]
    """
    if widest <= 0:
        return np.zeros(p_CO.shape)
    spread_CO: NDArray[np.float64] = 1 / np.sqrt(widest**-2 + shown_C[:, None] * p_CO * (1 - p_CO))
    return spread_CO


def drawn(p_CO: NDArray[np.float64], spread_CO: NDArray[np.float64], draw_C: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Chances of C candidates, each drawn by its own number. Shape (C, O)."""
    normal_C = _NORMAL[(draw_C >> np.uint64(_SHIFT)).astype(np.intp)]
    odds_CO: NDArray[np.float64] = p_CO / np.maximum(1 - p_CO, _LEAST) * np.exp(spread_CO * normal_C[:, None])
    return odds_CO / (1 + odds_CO)


class Shares(NamedTuple):
    """Of C candidates: with which chance each would have a place, and whether it would have one without chance."""

    propensity_C: NDArray[np.float64]
    greedy_C: NDArray[np.bool_]


def shares(
    start_P1: NDArray[np.int64],
    slots_P: NDArray[np.integer],
    tier_C: NDArray[np.integer],
    bid_C: NDArray[np.floating],
    p_C: NDArray[np.float64],
    spread_C: NDArray[np.float64],
    draw_C: NDArray[np.uint64],
    rounds: int = ROUNDS,
) -> Shares:
    """How often candidates would stand among the first of their auction, over further draws and the one that counted.

    Floors and separation are not looked at. A candidate that has a place by its own draw has a propensity of at least
    1 / (`rounds` + 1).

    Args:
        start_P1: where the candidates of each of P auctions begin.
        slots_P: places of each auction.
        tier_C: lower is served first.
        bid_C: micros for the event; for a bid that no chance turns into money, what it is worth, with `p_C` of 1.
        p_C: chances of the event before anything was drawn.
        spread_C: see `spreads`; 0 where nothing is drawn.
        draw_C: the numbers that `drawn` was given.
        rounds: how many further draws.
    """
    auctions = start_P1, slots_P.astype(np.int64), tier_C.astype(np.int64), bid_C.astype(np.float64)
    propensity_C, greedy_C = _shares(*auctions, p_C, spread_C, draw_C, rounds, _NORMAL)
    return Shares(propensity_C, greedy_C)


@kernel
def _shares(
    start_P1: NDArray[np.int64],
    slots_P: NDArray[np.int64],
    tier_C: NDArray[np.int64],
    bid_C: NDArray[np.float64],
    p_C: NDArray[np.float64],
    spread_C: NDArray[np.float64],
    draw_C: NDArray[np.uint64],
    rounds: int,
    normal_L: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    placed_C, greedy_C = np.zeros(len(bid_C)), np.zeros(len(bid_C), np.bool_)
    worth_C, taken_C = np.empty(len(bid_C)), np.empty(len(bid_C), np.int64)
    state_C = draw_C.copy()
    for turn in range(-1, rounds + 1):  # -1 is without chance, 0 the draw that counted
        for c in range(len(bid_C)):
            taken_C[c] = turn - 2
            normal = 0.0 if turn < 0 else normal_L[np.int64(state_C[c] >> np.uint64(_SHIFT))]
            odds = p_C[c] / max(1 - p_C[c], 1e-9) * np.exp(spread_C[c] * normal)
            worth_C[c] = bid_C[c] * (odds / (1 + odds) if spread_C[c] > 0 else p_C[c])
            if turn >= 0:
                state_C[c] = mixed(state_C[c] + GOLDEN)  # splitmix64
        for p in range(len(slots_P)):
            for _ in range(min(slots_P[p], start_P1[p + 1] - start_P1[p])):
                best = -1
                for c in range(start_P1[p], start_P1[p + 1]):
                    free = taken_C[c] != turn
                    if free and (best < 0 or (-tier_C[c], worth_C[c]) > (-tier_C[best], worth_C[best])):
                        best = c
                taken_C[best] = turn
                if turn < 0:
                    greedy_C[best] = True
                else:
                    placed_C[best] += 1
    return placed_C / (rounds + 1), greedy_C
