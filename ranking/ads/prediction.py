"""From a model's log-odds to chances that come true, online, by placement and advertiser; an alarm if they do not.

One calibration for everything, and a deviation for each placement and each advertiser that stays near zero until its
own rows say otherwise.

>>> calibration = Calibration()
>>> nobody_R = np.full(3000, UNKNOWN)
>>> shown_R = calibration.learn(np.full(3000, -3.0), np.arange(3000) % 100 == 0, nobody_R, nobody_R)
>>> bool(shown_R[0] > 0.04), bool(0.008 < shown_R[-1] < 0.015)
(True, True)
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ranking.jit import kernel

UNKNOWN = -1
"""In place of a placement or advertiser: there is no deviation to know or to learn."""
ECE_BINS = 15
_LEAST = 1e-12
_MOST_LOGIT = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSettings:
    """How far calibration may stray from the model, and how long it remembers.

    Spreads are standard deviations of a normal prior: the smaller, the more rows it takes to move. The slope turns
    about `centre`, a log-odds in the middle of what clicks have, so that slope and intercept hardly depend on each
    other. Evidence fades with `horizon_rows`, and what faded is given back to the prior.
    """

    slope_spread: float = 0.3
    intercept_spread: float = 2.0
    group_spread: float = 0.5
    centre: float = -5.0
    horizon_rows: float = 30_000.0


@dataclass(slots=True, kw_only=True)
class Calibration:
    """p = sigmoid(centre + slope (log-odds - centre) + intercept + placement + advertiser), learned row by row.

    Platt's scaling (1999) as a Bayesian regression: one Newton step a row on the Laplace approximation (Spiegelhalter
    and Lauritzen 1990), the three blocks taken as independent; older evidence decays (stabilised forgetting, Kulhavy
    and Zarrop 1993). Beside `ranking.calibration.Platt`, which suits balanced labels, it needs no step size: where one
    row in a thousand is a click, Adagrad's steps are small long before the intercept has arrived. Mutable, one owner.

    `shared_X` is slope, intercept and their precision (three numbers of a symmetric matrix); `placement_GX` and
    `advertiser_GX` are deviation and precision of each.
    """

    settings: CalibrationSettings = field(default_factory=CalibrationSettings)
    shared_X: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    placement_GX: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    advertiser_GX: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))

    def __post_init__(self) -> None:
        if not len(self.shared_X):
            said = self.settings
            self.shared_X = np.array([1.0, 0.0, said.slope_spread**-2, 0.0, said.intercept_spread**-2])

    def predict(
        self, logit_R: NDArray[np.floating], placement_R: NDArray[np.integer], advertiser_R: NDArray[np.integer]
    ) -> NDArray[np.float64]:
        """Chances of rows, without learning; shape (R,). A group that is new or `UNKNOWN` has no deviation.

        A log-odds that is not finite is a chance of 0: such an ad does not bid.
        """
        slope, intercept = self.shared_X[:2]
        known_R = np.isfinite(logit_R)
        centred_R = np.clip(np.where(known_R, logit_R, 0.0), -_MOST_LOGIT, _MOST_LOGIT) - self.settings.centre
        margin_R = self.settings.centre + slope * centred_R + intercept
        margin_R += _deviation(self.placement_GX, placement_R) + _deviation(self.advertiser_GX, advertiser_R)
        return np.where(known_R, 1 / (1 + np.exp(-np.clip(margin_R, -_MOST_LOGIT, _MOST_LOGIT))), 0.0)

    def learn(
        self,
        logit_R: NDArray[np.floating],
        label_R: NDArray[np.bool_],
        placement_R: NDArray[np.integer],
        advertiser_R: NDArray[np.integer],
    ) -> NDArray[np.float64]:
        """Predict each row, then learn from it, in order; mutates. Returns the predictions, shape (R,).

        Rows whose log-odds is not finite are predicted 0 and not learned. Groups are numbered by the caller, from 0;
        tables grow as they come.
        """
        said = self.settings
        self.placement_GX = _grown(self.placement_GX, placement_R, said.group_spread)
        self.advertiser_GX = _grown(self.advertiser_GX, advertiser_R, said.group_spread)
        prior_5 = np.array([1.0, 0.0, said.slope_spread**-2, said.intercept_spread**-2, said.group_spread**-2])
        return _learn(
            self.shared_X,
            self.placement_GX,
            self.advertiser_GX,
            logit_R.astype(np.float64),
            label_R.astype(np.float64),
            placement_R.astype(np.int64),
            advertiser_R.astype(np.int64),
            prior_5,
            said.centre,
            1 - 1 / said.horizon_rows,
        )


def _deviation(group_GX: NDArray[np.float64], group_R: NDArray[np.integer]) -> NDArray[np.float64]:
    known_R = (group_R >= 0) & (group_R < len(group_GX))
    if not len(group_GX):
        return np.zeros(len(group_R))
    return np.where(known_R, group_GX[np.where(known_R, group_R, 0), 0], 0.0)


def _grown(group_GX: NDArray[np.float64], group_R: NDArray[np.integer], spread: float) -> NDArray[np.float64]:
    needed = int(group_R.max(initial=UNKNOWN)) + 1
    if needed <= len(group_GX):
        return group_GX
    fresh_GX = np.tile([0.0, spread**-2], (max(needed, 2 * len(group_GX)) - len(group_GX), 1))
    return np.concatenate((group_GX, fresh_GX))


@kernel
def _learn(
    shared_X: NDArray[np.float64],
    placement_GX: NDArray[np.float64],
    advertiser_GX: NDArray[np.float64],
    logit_R: NDArray[np.float64],
    label_R: NDArray[np.float64],
    placement_R: NDArray[np.int64],
    advertiser_R: NDArray[np.int64],
    prior_5: NDArray[np.float64],
    centre: float,
    kept: float,
) -> NDArray[np.float64]:
    p_R = np.zeros(len(logit_R))
    given = 1 - kept
    for r in range(len(logit_R)):
        if not np.isfinite(logit_R[r]):
            continue
        x = min(max(logit_R[r], -_MOST_LOGIT), _MOST_LOGIT) - centre
        i, j = placement_R[r], advertiser_R[r]
        margin = centre + shared_X[0] * x + shared_X[1]
        margin += placement_GX[i, 0] if i >= 0 else 0.0
        margin += advertiser_GX[j, 0] if j >= 0 else 0.0
        p = 1 / (1 + np.exp(-min(max(margin, -_MOST_LOGIT), _MOST_LOGIT)))
        p_R[r] = p
        aa = shared_X[2] * kept + prior_5[2] * given
        ab = shared_X[3] * kept
        bb = shared_X[4] * kept + prior_5[3] * given
        area = aa * bb - ab * ab
        vaa, vab, vbb = bb / area, -ab / area, aa / area  # the covariance
        ga, gb = given * prior_5[2] * (shared_X[0] - prior_5[0]), given * prior_5[3] * (shared_X[1] - prior_5[1])
        va, vb = vaa * x + vab, vab * x + vbb
        spread = va * x + vb
        vi = _faded(placement_GX, i, prior_5[4], kept)
        vj = _faded(advertiser_GX, j, prior_5[4], kept)
        weight = max(p * (1 - p), _LEAST)
        gain = (label_R[r] - p) / (1 + weight * (spread + vi + vj))
        shared_X[0] += va * gain - (vaa * ga + vab * gb)
        shared_X[1] += vb * gain - (vab * ga + vbb * gb)
        shared_X[2], shared_X[3], shared_X[4] = aa + weight * x * x, ab + weight * x, bb + weight
        if i >= 0:
            placement_GX[i, 0] += vi * gain
            placement_GX[i, 1] += weight
        if j >= 0:
            advertiser_GX[j, 0] += vj * gain
            advertiser_GX[j, 1] += weight
    return p_R


@kernel
def _faded(group_GX: NDArray[np.float64], g: int, precision: float, kept: float) -> float:
    """Let a group's evidence fade towards no deviation; its variance then. 0 for `UNKNOWN`."""
    if g < 0:
        return 0.0
    group_GX[g, 1] = group_GX[g, 1] * kept + precision * (1 - kept)
    group_GX[g, 0] -= (1 - kept) * precision * group_GX[g, 0] / group_GX[g, 1]
    return 1 / group_GX[g, 1]  # type: ignore[no-any-return]


def unsampled(p_R: NDArray[np.float64], kept_R: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Chances of a model that learned a share of the negatives: q = p / (p + (1 - p) / r) (He et al. 2014).

    >>> unsampled(np.array([0.5]), 0.01).round(4).tolist()
    [0.0099]
    """
    return p_R / (p_R + (1 - p_R) / kept_R)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """How true predictions came, over R rows.

    `ratio` is the sum of predictions over that of labels. `error` is the expected calibration error: the mean over
    rows of |mean prediction - mean label| of their bin, 15 bins of equal mass. `entropy` is the log loss over that of
    always saying the mean label: below 1 it is better than that (He et al. 2014). NaN where labels are all alike.
    """

    rows: int
    ratio: float
    error: float
    loss: float
    entropy: float


def measured(p_R: NDArray[np.float64], label_R: NDArray[np.bool_]) -> Calibrated:
    """Figures of predictions beside what came of them."""
    R = len(p_R)
    if not R:
        return Calibrated(0, np.nan, np.nan, np.nan, np.nan)
    loss, mean = log_loss(p_R, label_R), label_R.mean()
    base = log_loss(np.full(R, mean), label_R)
    order = np.argsort(p_R, kind="stable")
    bins = [part for part in np.array_split(order, ECE_BINS) if len(part)]
    error = sum(abs(p_R[part].mean() - label_R[part].mean()) * len(part) for part in bins) / R
    mixed = 0 < mean < 1
    ratio = float(p_R.sum() / label_R.sum()) if mean else np.nan
    return Calibrated(R, ratio, float(error), loss, loss / base if mixed else np.nan)


def log_loss(p_R: NDArray[np.float64], label_R: NDArray[np.bool_]) -> float:
    """Mean of -log of the chance that was given to what happened."""
    p_R = np.clip(p_R, _LEAST, 1 - _LEAST)
    return float(-np.where(label_R, np.log(p_R), np.log1p(-p_R)).mean())


@dataclass(slots=True, kw_only=True)
class Drift:
    """Whether predictions still come true, by group; mutable, one owner.

    `sum_GX` is the predicted and the observed sum and the variance of their difference, fading with `horizon_rows` rows
    of the group. An alarm needs both: a difference that chance does not explain (`deviations` of it) and one that
    matters (the ratio is outside 1 ± `tolerance`).
    """

    horizon_rows: float = 10_000.0
    deviations: float = 4.0
    tolerance: float = 0.1
    least_factor: float = 0.25
    sum_GX: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))

    def learn(self, group_R: NDArray[np.integer], p_R: NDArray[np.float64], label_R: NDArray[np.bool_]) -> None:
        """Count rows of groups, numbered from 0, that were predicted before their label was known."""
        needed = int(group_R.max(initial=UNKNOWN)) + 1 - len(self.sum_GX)
        if needed > 0:
            self.sum_GX = np.concatenate((self.sum_GX, np.zeros((needed, 3))))
        kept = 1 - 1 / self.horizon_rows
        _count(self.sum_GX, group_R.astype(np.int64), p_R.astype(np.float64), label_R.astype(np.float64), kept)

    def alarms(self) -> NDArray[np.bool_]:
        """Which groups' predictions are wrong in either direction. Shape (G,)."""
        predicted_G, observed_G, variance_G = self.sum_GX.T
        off_G = np.abs(predicted_G - observed_G)
        return np.asarray((off_G > self.deviations * np.sqrt(variance_G)) & (off_G > self.tolerance * observed_G))

    def factors(self) -> NDArray[np.float64]:
        """What to multiply bids with: below 1 where an alarm says that too much was promised. Shape (G,).

        Never above 1: who is better than predicted gains from calibration, not from a switch.
        """
        predicted_G, observed_G, _ = self.sum_GX.T
        factor_G = np.clip((observed_G + 1) / (predicted_G + 1), self.least_factor, 1.0)
        return np.where(self.alarms(), factor_G, 1.0)


@kernel
def _count(
    sum_GX: NDArray[np.float64],
    group_R: NDArray[np.int64],
    p_R: NDArray[np.float64],
    label_R: NDArray[np.float64],
    kept: float,
) -> None:
    for r in range(len(group_R)):
        g = group_R[r]
        if g < 0:
            continue
        sum_GX[g, 0] = sum_GX[g, 0] * kept + p_R[r]
        sum_GX[g, 1] = sum_GX[g, 1] * kept + label_R[r]
        sum_GX[g, 2] = sum_GX[g, 2] * kept * kept + p_R[r] * (1 - p_R[r])
