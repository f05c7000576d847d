"""What is taken together: decayed pair counts in bounded memory, their neighbour lists and their factors.

When a user takes item i after j1 (latest), j2 … jH, the counts grow by `C[jk, i] += k^-power` and
`C[i, jk] += backward · k^-power`, the item count by `n[i] += 1`; all fade with one half-life of event time. The
score of x for a history is `Σk decay^(k-1) · M[jk, x]` with `M[j, x] = C[j, x] / (n_j^.5 · n_x^.3)`: `neighbours` gives
the greatest entries of each row of M, `factors` a truncated singular value decomposition of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from embeddings.fading import DAY_S, weights
from embeddings.pairlog import FORGOTTEN, MOST_BYTES, PairLog, steps
from embeddings.pairs import EMPTY, WAYS, best_neighbours, compress, count_rows, erase
from embeddings.svd import Factors, decompose

_LEAST = 1e-60
"""An item taken less than this, in events of now, was forgotten: its pairs left the range of a float long before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountSettings:
    """How pairs are counted. The defaults were found on MovieLens-100K and hold for dense catalogues.

    `half_life_s` is in seconds of event time. `slots` is the most neighbours kept for one item, `budget` the most slots
    for all items together (8 bytes each); both are powers of two times 16 in effect. When an item has no room, the new
    neighbour takes the place of the smallest among sixteen. `target_power` .2 suits sparse retail data better than .3.
    """

    power: float = 1.0
    backward: float = 0.5
    half_life_s: float = 30 * DAY_S
    source_power: float = 0.5
    target_power: float = 0.3
    slots: int = 1024
    budget: int = 1 << 26


class PairCounts:
    """Decayed counts of items and of ordered item pairs, by the caller's item rows.

    Nothing is faded as time goes by: a row weighs 2^(event time / half-life), whenever it comes, and all are scaled
    back by an exact power of two now and then (`embeddings.fading`). The result depends on the order of rows alone,
    never on how they were cut into calls, to the bit.
    """

    def __init__(self, settings: CountSettings | None = None) -> None:
        """Start with no item and no pair."""
        self.settings = settings or CountSettings()
        self._count_N = np.zeros(0, np.float64)
        self._start_N = np.zeros(0, np.int64)
        self._size_N = np.zeros(0, np.int32)
        self._pool_row = np.full(WAYS, EMPTY, np.int32)
        self._pool_weight = np.zeros(WAYS, np.float32)
        self._tally = np.zeros(2, np.int64)
        self._clock = np.zeros(2, np.int64)
        self._log: PairLog | None = None

    def __len__(self) -> int:
        return len(self._count_N)

    @property
    def slots(self) -> int:
        """How many pair slots are in use, of `settings.budget`."""
        return int(self._tally[1])

    @property
    def counts_N(self) -> NDArray[np.float32]:
        """Decayed number of events of each item, in events of now. Shape (N,)."""
        return (self._count_N / self._unit()).astype(np.float32)

    def update(
        self, item_R: NDArray[np.int32], history_RH: NDArray[np.int32], time_s_R: NDArray[np.int64] | int = 0
    ) -> None:
        """Count R events in order: the item taken, and what was held before it, latest first. Mutates.

        `time_s_R` are their event times, in any order. A row with an empty history counts the item and no pair; a row
        with item -1 counts nothing. The k-th latest of a history is that of what is not -1; with itself an item makes
        no pair.
        """
        if not len(item_R):
            return
        if self._log is not None:
            self._log.update(item_R, history_RH, np.broadcast_to(time_s_R, len(item_R)))
            self._log = self._log if self._log.bytes <= MOST_BYTES else None
        self._reserve_items(int(max(item_R.max(), history_RH.max(initial=EMPTY))) + 1)
        settings = self.settings
        weight_H = np.arange(1, history_RH.shape[1] + 1, dtype=np.float64) ** -settings.power
        self._pool_row, self._pool_weight = count_rows(
            np.ascontiguousarray(item_R, np.int32),
            np.ascontiguousarray(history_RH, np.int32),
            np.ascontiguousarray(np.broadcast_to(time_s_R, len(item_R)), np.int64),
            weight_H,
            settings.backward,
            settings.half_life_s,
            (settings.slots, settings.budget),
            self._count_N,
            self._start_N,
            self._size_N,
            self._pool_row,
            self._pool_weight,
            self._tally,
            self._clock,
        )

    def forget(self, gone_N: NDArray[np.bool_]) -> None:
        """Leave nothing of items by their rows, neither counts nor pairs. Looks at every pair."""
        if self._log is not None:
            self._log.forget(np.flatnonzero(gone_N))
        gone_N = np.append(gone_N[: len(self)], np.zeros(max(len(self) - len(gone_N), 0), np.bool_))
        self._count_N[gone_N] = 0
        erase(self._start_N, self._size_N, self._pool_row, self._pool_weight, self._tally, gone_N)

    def neighbours(
        self, k: int, among_N: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The k greatest entries of each row of M, greatest first, ties to the lower row; with a mask, of its columns.

        Returns:
            Rows (N, k), -1 padded, and M's values (N, k), so that `Σk decay^(k-1) · value` is the score above.
        """
        rows_NK = np.empty((len(self), k), np.int32)
        weights_NK = np.empty((len(self), k), np.float32)
        source_N, target_N = self._scales()
        if among_N is not None:
            target_N = target_N * among_N
        best_neighbours(
            self._start_N, self._size_N, self._pool_row, self._pool_weight, source_N, target_N, rows_NK, weights_NK
        )
        return rows_NK, weights_NK

    def factors(self, width: int, previous: Factors | None = None, *, passes: int = 1, seed: int = 0) -> Factors:
        """Source and target vectors whose products approximate M, in the basis of `previous` as far as possible.

        Deterministic for the same counts, previous factors and seed. One power iteration is enough when
        it starts from the previous factors; without them two more are done.
        """
        return decompose(*self._matrix(), width=width, previous=previous, passes=passes, seed=seed)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Everything needed to continue, bit for bit, as arrays: views, good until the next `update`."""
        return {
            "settings": np.array([getattr(self.settings, field.name) for field in fields(CountSettings)], np.float64),
            "count_N": self._count_N,
            "start_N": self._start_N,
            "size_N": self._size_N,
            "pool_row": self._pool_row[: self._tally[0]],
            "pool_weight": self._pool_weight[: self._tally[0]],
            "clock": self._clock,
        }

    def log(self) -> dict[str, NDArray[np.generic]] | None:
        """What was done since the last call, to be done again on its `state`; None if that was not noted."""
        log, self._log = self._log, PairLog()
        return log.arrays() if log is not None else None

    @classmethod
    def restore(
        cls,
        state: Mapping[str, NDArray[np.generic]],
        settings: CountSettings | None = None,
        *,
        clock_s: int = 0,
        logs: Sequence[Mapping[str, NDArray[np.generic]]] = (),
    ) -> "PairCounts":
        """Continue from `state()` and what was done since: every later result is bit-equal to what it would have been.

        With `settings` from then on under these; what the counts come to now stays. A state of a release that faded by
        events knows no time: its counts are taken for those of `clock_s`.
        """
        values = dict(zip((field.name for field in fields(CountSettings)), state["settings"].tolist(), strict=True))
        by_event = "clock" not in state
        whole = {"slots": int(values["slots"]), "budget": int(values["budget"])}
        counts = cls(CountSettings(**{**values, **whole}))
        counts._count_N = np.array(state["count_N"], np.float64)
        counts._start_N = np.array(state["start_N"], np.int64)
        counts._size_N = np.array(state["size_N"], np.int32)
        counts._pool_row = np.array(state["pool_row"], np.int32)
        counts._pool_weight = np.array(state["pool_weight"], np.float32)
        counts._tally = np.array([len(counts._pool_row), counts._size_N.sum()], np.int64)
        if not by_event:
            counts._clock = np.array(state["clock"], np.int64)
        for log in logs:
            for item_R, history_RH, time_s_R in steps(log):
                if item_R[0] == FORGOTTEN:
                    gone_N = np.zeros(len(counts), np.bool_)
                    gone_N[history_RH[history_RH < len(counts)]] = True
                    counts.forget(gone_N)
                else:
                    counts.update(item_R, history_RH, time_s_R)
        now = float(state["unit"][0]) if by_event else counts._unit()
        wanted = settings or counts.settings
        if by_event:
            counts._clock[0] = clock_s
        if by_event or wanted.half_life_s != counts.settings.half_life_s:
            counts.settings = wanted
            counts._clock[1] = int(counts._clock[0] // wanted.half_life_s)
            counts._count_N *= counts._unit() / now
            counts._pool_weight *= np.float32(counts._unit() / now)
        counts.settings = wanted
        return counts

    def _unit(self) -> float:
        """What a row of the latest time weighs."""
        now, half_life, origin = self._clock[:1], np.array([self.settings.half_life_s]), self._clock[1:]
        return float(weights(now, half_life, origin)[0, 0])

    def _reserve_items(self, count: int) -> None:
        """Make room for rows below `count`; a new item has no block yet."""
        more = count - len(self)
        if more > 0:
            self._count_N = np.append(self._count_N, np.zeros(more))
            self._start_N = np.append(self._start_N, np.zeros(more, np.int64))
            self._size_N = np.append(self._size_N, np.zeros(more, np.int32))

    def _scales(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What C's rows and columns are multiplied with; 0 for an item never taken itself."""
        unit = self._unit()
        known_N = self._count_N / unit > _LEAST
        now_N = np.where(known_N, self._count_N / unit, 1.0)
        source_N = known_N * now_N**-self.settings.source_power / unit
        return source_N, known_N * now_N**-self.settings.target_power

    def _matrix(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        """M in compressed rows: end offsets (N+1,), columns, values."""
        source_N, target_N = self._scales()
        return compress(self._start_N, self._size_N, self._pool_row, self._pool_weight, source_N, target_N)
