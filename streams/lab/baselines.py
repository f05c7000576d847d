"""Yardsticks of `marquee evaluate`: plain prequential recommenders over dense arrays, one compiled loop each.

Protocol (all of them, and Marquee): events in time order; rank every item seen so far that the user has not taken;
is the event's item in the top N? then learn from it. An unknown user or item is a miss; a repeat is not scored; ties
count half. A yardstick answers with the 0-based rank of every scored event.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from embeddings.jit import kernel
from streams.lab.datasets import Log

MISS = 1e9
NOT_SCORED = -1.0


@dataclass(frozen=True, slots=True)
class Quality:
    """Recall and NDCG over the scored events of a log; `second_half` is recall@10 of its later half (drift)."""

    recall_10: float
    recall_20: float
    ndcg_10: float
    second_half: float
    events: int

    @classmethod
    def of(cls, rank_R: NDArray[np.float64]) -> "Quality":
        """From the rank of each event; `NOT_SCORED` events are left out."""
        scored = rank_R[rank_R != NOT_SCORED]
        hits = scored < 10
        gain = np.where(hits, 1 / np.log2(np.minimum(scored, 10) + 2), 0)
        half = hits[len(hits) // 2 :]
        return cls(float(hits.mean()), float((scored < 20).mean()), float(gain.mean()), float(half.mean()), len(scored))

    @property
    def error(self) -> float:
        """Standard error of recall@10, from the binomial distribution."""
        return float(np.sqrt(self.recall_10 * (1 - self.recall_10) / max(self.events, 1)))


class TooLarge(Exception):
    """A yardstick's dense arrays do not fit in memory; the message says how large they are. It is left out."""


def measure(name: str, log: Log, seed: int = 0, *, room: int | None = None) -> Quality:
    """Run one yardstick over a log. Deterministic for a seed. Names are in `BASELINES`.

    Args:
        name: Which one.
        log: The events.
        seed: Of what is drawn.
        room: Bytes that it may take; what is available where unset.

    Raises:
        TooLarge: it would take more.
    """
    user_R = np.unique(np.array(log.user_R), return_inverse=True)[1].astype(np.int32)
    item_R = np.unique(np.array(log.item_R), return_inverse=True)[1].astype(np.int32)
    users, items = int(user_R.max()) + 1, int(item_R.max()) + 1
    needed, room = users * items + _BYTES[name](users, items), available() if room is None else room
    if needed > room:
        sizes = f"{needed / 2**30:,.1f} GiB for {users:,} users and {items:,} items"
        raise TooLarge(f"{name} is left out: it takes {sizes}, of {room / 2**30:,.1f} GiB that are free")
    return Quality.of(BASELINES[name](user_R, item_R, seed))


def available() -> int:
    """Bytes of memory that this process may still take: what is free, and what its control group allows."""
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return min(free, int(limit) - int(used)) if limit.isdigit() else free
    except (OSError, ValueError):
        return free


def newcomers(log: Log, early_R: NDArray[np.bool_]) -> Quality:
    """Decayed popularity over people's first events, the first one of all too."""
    user_R, item_R = (np.unique(np.array(x), return_inverse=True)[1].astype(np.int32) for x in (log.user_R, log.item_R))
    rank_R = _run_popularity(user_R, item_R, 2.0 ** (1 / 10_000), True)
    return Quality.of(np.where(early_R, rank_R, NOT_SCORED))


def _popularity(user_R: NDArray[np.int32], item_R: NDArray[np.int32], seed: int) -> NDArray[np.float64]:
    return _run_popularity(user_R, item_R, 1.0, False)


def _decayed_popularity(user_R: NDArray[np.int32], item_R: NDArray[np.int32], seed: int) -> NDArray[np.float64]:
    return _run_popularity(user_R, item_R, 2.0 ** (1 / 10_000), False)


def _isgd(user_R: NDArray[np.int32], item_R: NDArray[np.int32], seed: int) -> NDArray[np.float64]:
    """Incremental SGD matrix factorisation for positive-only feedback (Vinagre, Jorge and Gama, 2014)."""
    random = np.random.default_rng(seed)
    p_UD = random.normal(0, 0.1, (user_R.max() + 1, 160)).astype(np.float32)
    q_ID = random.normal(0, 0.1, (item_R.max() + 1, 160)).astype(np.float32)
    return _run_isgd(user_R, item_R, p_UD, q_ID, 0.1, 0.4, 8)


def _cooccurrence(user_R: NDArray[np.int32], item_R: NDArray[np.int32], seed: int) -> NDArray[np.float64]:
    """Exact recency co-occurrence: H=50, pw=1, d=.9, sym=.5, target exponent .3, half-life 30,000 events."""
    return _run_cooccurrence(user_R, item_R, 50, 1.0, 0.9, 0.5, 0.3, 2.0 ** (1 / 30_000))


BASELINES: dict[str, Callable[[NDArray[np.int32], NDArray[np.int32], int], NDArray[np.float64]]] = {
    "popularity": _popularity,
    "decayed-popularity": _decayed_popularity,
    "isgd": _isgd,
    "cooccurrence": _cooccurrence,
}
#: Bytes of each one's arrays, beside a byte for every user and item.
_BYTES: dict[str, Callable[[int, int], int]] = {
    "popularity": lambda users, items: 8 * items,
    "decayed-popularity": lambda users, items: 8 * items,
    "isgd": lambda users, items: 3 * 160 * 4 * (users + items),
    "cooccurrence": lambda users, items: 4 * items * items + 200 * users,
}


@kernel
def _rank(score_I: NDArray[np.float32], open_I: NDArray[np.bool_], item: int) -> float:
    """0-based rank of an item among the open ones; ties count half."""
    greater, ties = 0, 0
    for other in range(len(score_I)):
        if open_I[other]:
            greater += score_I[other] > score_I[item]
            ties += score_I[other] == score_I[item]
    return greater + (ties - 1) / 2


@kernel
def _run_popularity(
    user_R: NDArray[np.int32], item_R: NDArray[np.int32], growth: float, strangers: bool
) -> NDArray[np.float64]:
    users, items = user_R.max() + 1, item_R.max() + 1
    taken_UI = np.zeros((users, items), np.bool_)
    known_U = np.zeros(users, np.bool_)
    seen_I = np.zeros(items, np.bool_)
    count_I = np.zeros(items, np.float32)
    rank_R = np.empty(len(user_R), np.float64)
    unit = 1.0
    for r in range(len(user_R)):
        u, i = user_R[r], item_R[r]
        if taken_UI[u, i]:
            rank_R[r] = NOT_SCORED
            continue
        known = (known_U[u] or strangers) and seen_I[i]
        rank_R[r] = _rank(count_I, seen_I & ~taken_UI[u], i) if known else MISS
        known_U[u] = seen_I[i] = taken_UI[u, i] = True
        count_I[i] += np.float32(unit)
        unit *= growth
        if unit > 1e30:
            count_I /= np.float32(unit)
            unit = 1.0
    return rank_R


@kernel
def _run_isgd(
    user_R: NDArray[np.int32],
    item_R: NDArray[np.int32],
    p_UD: NDArray[np.float32],
    q_ID: NDArray[np.float32],
    rate: float,
    decay: float,
    steps: int,
) -> NDArray[np.float64]:
    users, items = len(p_UD), len(q_ID)
    taken_UI = np.zeros((users, items), np.bool_)
    known_U = np.zeros(users, np.bool_)
    seen_I = np.zeros(items, np.bool_)
    rank_R = np.empty(len(user_R), np.float64)
    for r in range(len(user_R)):
        u, i = user_R[r], item_R[r]
        if taken_UI[u, i]:
            rank_R[r] = NOT_SCORED
            continue
        known = known_U[u] and seen_I[i]
        if known:  # the best item is the one whose predicted preference is nearest to 1
            score_I = -np.abs(np.float32(1) - q_ID @ p_UD[u])
            rank_R[r] = _rank(score_I, seen_I & ~taken_UI[u], i)
        else:
            rank_R[r] = MISS
        known_U[u] = seen_I[i] = taken_UI[u, i] = True
        for _ in range(steps):
            error = np.float32(1) - np.dot(p_UD[u], q_ID[i])
            p_UD[u] += np.float32(rate) * (error * q_ID[i] - np.float32(decay) * p_UD[u])
            q_ID[i] += np.float32(rate) * (error * p_UD[u] - np.float32(decay) * q_ID[i])
    return rank_R


@kernel
def _score_by_pairs(
    score_I: NDArray[np.float32],
    history_H: NDArray[np.int32],
    pair_II: NDArray[np.float32],
    count_I: NDArray[np.float64],
    unit: float,
    fade: float,
    target_power: float,
) -> None:
    """Write into `score_I` what a history says of every item."""
    score_I[:] = 0
    for k in range(len(history_H)):
        j = history_H[k]
        if j < 0:
            break
        weight = np.float32(fade**k / (count_I[j] / unit) ** 0.5)
        for x in range(len(score_I)):
            score_I[x] += weight * pair_II[j, x]
    for x in range(len(score_I)):
        if count_I[x] > 0:
            score_I[x] *= np.float32((count_I[x] / unit) ** -target_power)


@kernel
def _run_cooccurrence(
    user_R: NDArray[np.int32],
    item_R: NDArray[np.int32],
    held: int,
    power: float,
    fade: float,
    backward: float,
    target_power: float,
    growth: float,
) -> NDArray[np.float64]:
    users, items = user_R.max() + 1, item_R.max() + 1
    taken_UI = np.zeros((users, items), np.bool_)
    seen_I = np.zeros(items, np.bool_)
    count_I = np.zeros(items, np.float64)
    pair_II = np.zeros((items, items), np.float32)
    history_UH = np.full((users, held), -1, np.int32)
    score_I = np.zeros(items, np.float32)
    rank_R = np.empty(len(user_R), np.float64)
    unit = 1.0
    for r in range(len(user_R)):
        u, i = user_R[r], item_R[r]
        if taken_UI[u, i]:
            rank_R[r] = NOT_SCORED
            continue
        rank_R[r] = MISS
        if history_UH[u, 0] >= 0 and seen_I[i]:
            _score_by_pairs(score_I, history_UH[u], pair_II, count_I, unit, fade, target_power)
            rank_R[r] = _rank(score_I, seen_I & ~taken_UI[u], i)
        for k in range(held):
            j = history_UH[u, k]
            if j < 0:
                break
            pair_II[j, i] += np.float32(unit * (k + 1.0) ** -power)
            pair_II[i, j] += np.float32(backward * unit * (k + 1.0) ** -power)
        seen_I[i] = taken_UI[u, i] = True
        count_I[i] += unit
        for k in range(held - 1, 0, -1):
            history_UH[u, k] = history_UH[u, k - 1]
        history_UH[u, 0] = i
        unit *= growth
        if unit > 1e15:
            pair_II /= np.float32(unit)
            count_I /= unit
            unit = 1.0
    return rank_R
