"""How counts fade: by event time, with a half-life in seconds each, and on a scale that lasts for years.

Nothing is faded as time goes by. A row of event time t weighs 2^(t / half-life), whenever it arrives, and a reader
divides by the weight of a row of now: so the sum depends on the rows alone, not on how they were batched or in which
order they came. The exponents of today's epoch seconds are far beyond a double: a whole number, the *origin*, is taken
from them, and moved on by exact powers of two.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

HOUR_S, DAY_S = 3_600.0, 86_400.0
LARGEST_EXPONENT = 500


class HalfLives(NamedTuple):
    """Seconds after which a count weighs half: takes of an item, four ways, and what people said of it."""

    short_s: float = DAY_S
    mid_s: float = 7 * DAY_S
    long_s: float = 30 * DAY_S
    trending_s: float = 3 * HOUR_S
    reactions_s: float = 30 * DAY_S

    @property
    def popularity_4(self) -> NDArray[np.float64]:
        """Short, middle, long and trending, as the columns of `popularity_N4`."""
        return np.array(self[:4])

    def kept(self, passed_s: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """What is left of a count after so many seconds, by half-life. Shape (…, 5)."""
        left: NDArray[np.float64] = np.exp2(-np.asarray(passed_s, np.float64)[..., None] / np.array(self))
        return left


def weights(
    time_s: NDArray[np.int64], half_life_S: NDArray[np.float64], origin_S: NDArray[np.int64]
) -> NDArray[np.float64]:
    """2^(time / half-life - origin), to the bit the same but for a power of two whatever the origin. Shape (R, S)."""
    exponent_RS = np.asarray(time_s, np.float64)[:, None] / half_life_S
    whole_RS = np.floor(exponent_RS)
    far_RS = np.clip(whole_RS - origin_S, -10_000, 1_000).astype(np.int32)
    scaled: NDArray[np.float64] = np.ldexp(np.exp2(exponent_RS - whole_RS), far_RS)
    return scaled
