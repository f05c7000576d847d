"""From a model's log-odds to probabilities that come true, online, and that come true again after they drifted.

>>> platt = Platt()
>>> shown = platt.learn(np.full(2000, 2.0, np.float32), np.arange(2000) % 4 == 0)
>>> bool(0.2 < shown[-1] < 0.3)
True
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ranking.jit import kernel


def _identity() -> NDArray[np.float64]:
    return np.array([1.0, 0.0, 1.0, 1.0])


@dataclass(slots=True, kw_only=True)
class Platt:
    """p = sigmoid(slope x log-odds + intercept), fitted row by row with Adagrad (Platt 1999; Duchi et al. 2011).

    Starts as the identity. `state` is (slope, intercept, squared gradients of both). These fade with `horizon_rows`
    rows: a sum that only grows shortens the steps without end, and after years no drift would be followed any more. A
    row with a non-finite log-odds is predicted at the base of the scale and not learned.
    """

    rate: float = 0.05
    horizon_rows: float = 10_000.0
    state: NDArray[np.float64] = field(default_factory=_identity)

    def learn(self, logit_R: NDArray[np.float32], label_R: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Predict each row, then learn from it, in order; mutates. Returns the predictions, shape (R,)."""
        kept = 1 - 1 / self.horizon_rows
        return _platt(self.state, logit_R.astype(np.float64), label_R.astype(np.float64), self.rate, kept)


@kernel
def _platt(
    state: NDArray[np.float64], logit_R: NDArray[np.float64], label_R: NDArray[np.float64], rate: float, kept: float
) -> NDArray[np.float32]:
    out = np.empty(len(logit_R), np.float32)
    for r in range(len(logit_R)):
        known = np.isfinite(logit_R[r])
        logit = min(max(logit_R[r], -15.0), 15.0) if known else 0.0
        margin = min(max(state[0] * logit + state[1], -15.0), 15.0)
        p = 1 / (1 + np.exp(-margin))
        out[r] = p
        if known:
            error = p - label_R[r]
            state[2] = state[2] * kept + (error * logit) ** 2
            state[3] = state[3] * kept + error * error
            state[0] -= rate * error * logit / np.sqrt(state[2])
            state[1] -= rate * error / np.sqrt(state[3])
    return out
