"""Mean and spread of each column over the latest rows: what a model takes for about 0 and about 1."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ranking.weights import NUMERIC

Moments = NDArray[np.float64]
"""Rows, mean, mean square distance from it. Shape (3, F)."""


def no_moments() -> Moments:
    """Of no rows."""
    return np.zeros((3, NUMERIC))


def widened(before: Moments, x_RSX: Tensor, weight_RS: Tensor, most: float) -> Moments:
    """Add rows that stand for so many (Chan et al. 1979), fading what was before where it comes to more than `most`."""
    x = x_RSX[..., :NUMERIC].double()
    weight = weight_RS.double()[..., None]
    count = float(weight_RS.sum())
    mean = ((x * weight).sum((0, 1)) / count).numpy()
    square = (((x - torch.from_numpy(mean)) ** 2 * weight).sum((0, 1)) / count).numpy()
    share = count / (before[0, 0] + count)
    shift = mean - before[1]
    return np.stack(
        [
            np.full(NUMERIC, min(before[0, 0] + count, most)),
            before[1] + share * shift,
            before[2] * (1 - share) + square * share + share * (1 - share) * shift**2,
        ]
    )


def normalise(moments: Moments, centre_F: Tensor, scale_F: Tensor) -> None:
    """Put a model's normalisation to these moments, in place."""
    centre_F.copy_(torch.from_numpy(moments[1]))
    scale_F.copy_(torch.from_numpy(1 / np.sqrt(moments[2] + 1e-3)))
