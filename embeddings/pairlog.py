"""What was done to pair counts, in few bytes: a take changes a hundred counts, and costs what its history holds.

Done again on the same counts it comes to the same, to the bit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FORGOTTEN = -2
"""Stands for the item taken where rows, said as its history, were forgotten."""
MOST_BYTES = 256 << 20
"""A log that is larger is given up: who did not ask for it for so long takes the counts whole."""
Rows = NDArray[np.int32]
Step = tuple[Rows, Rows, NDArray[np.int64]]


@dataclass(slots=True)
class PairLog:
    """Calls of `PairCounts.update` and `forget`, in their order."""

    bytes: int = 0
    _steps: list[Step] = field(default_factory=list)

    def update(self, item_R: Rows, history_RH: Rows, time_s_R: NDArray[np.int64]) -> None:
        """Note an update. The arrays stay as they are."""
        self._steps.append((item_R, history_RH, time_s_R))
        self.bytes += item_R.nbytes + history_RH.nbytes + time_s_R.nbytes

    def forget(self, rows: NDArray[np.intp]) -> None:
        """Note which rows were forgotten."""
        self._steps.append((np.array([FORGOTTEN], np.int32), rows.astype(np.int32)[None], np.zeros(1, np.int64)))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """R rows: item, time, how far the history is filled, and the histories as far as they are, one after another.

        `rows` says how many rows each step has.
        """
        items, times, counts, held = ([np.zeros(0, np.int64)] for _ in range(4))
        for item_R, history_RH, time_s_R in self._steps:
            filled_RH = history_RH >= 0
            width = history_RH.shape[1]
            last_R = np.where(filled_RH.any(1), width - filled_RH[:, ::-1].argmax(1), 0) if width else item_R * 0
            items.append(item_R.astype(np.int64))
            times.append(time_s_R)
            counts.append(last_R.astype(np.int64))
            held.append(history_RH[np.arange(width) < last_R[:, None]].astype(np.int64))
        return {
            "item": np.concatenate(items).astype(np.int32),
            "time_s": np.concatenate(times).astype(np.int64),
            "count": np.concatenate(counts).astype(np.int32),
            "held": np.concatenate(held).astype(np.int32),
            "rows": np.array([len(item_R) for item_R, _, _ in self._steps], np.int32),
        }


def steps(arrays: Mapping[str, NDArray[np.generic]]) -> Iterator[Step]:
    """The calls that `PairLog.arrays` are of: items, histories padded with -1, times."""
    item_R, time_s_R, count_R, held = (np.asarray(arrays[name]) for name in ("item", "time_s", "count", "held"))
    row, at = 0, 0
    for rows in np.asarray(arrays["rows"]).tolist():
        count_r = count_R[row : row + rows]
        history_rH = np.full((rows, int(count_r.max(initial=0))), -1, np.int32)
        end = at + int(count_r.sum())
        history_rH[np.arange(history_rH.shape[1]) < count_r[:, None]] = held[at:end]
        yield item_R[row : row + rows].astype(np.int32), history_rH, time_s_R[row : row + rows].astype(np.int64)
        row, at = row + rows, end
