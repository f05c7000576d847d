"""What becomes of an ad if it is shown: frozen weights and calibration of one snapshot, as chances per impression.

Without a snapshot the chances are the smoothed rates of each creative. Immutable, for any thread.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ranking.ads.features import OUTCOMES, RATES, AdFeature
from ranking.ads.prediction import UNKNOWN, Calibration, CalibrationSettings
from ranking.errors import WeightsRefused
from ranking.frozen import FrozenTower
from ranking.weights import NUMERIC, Floats, Shape, Tensors, checked, part_of, shape_of, tower_sizes

TOWER = "ad"
_DELAYED = OUTCOMES.index("conversion")
CENTRES = (-5.0, 0.0, -7.0)
"""About which log-odds the calibration of each of `OUTCOMES` turns."""
_LEAST_RATE, _MOST_RATE = 1e-6, 0.99
PRIOR_RATES = (0.01, 0.5, 0.0005)
"""Of each of `OUTCOMES`, as long as nothing came of any ad."""
_PRIOR_EVENTS = 2.0
"""So many events of each outcome, and the impressions they take on average, are added to what a creative counted."""


def new_calibrations() -> tuple[Calibration, ...]:
    """One for each of `OUTCOMES`, which change nothing yet."""
    return tuple(Calibration(settings=CalibrationSettings(centre=centre)) for centre in CENTRES)


def base_logits(x_RX: NDArray[np.floating]) -> Floats:
    """Where heads begin: at the creative's rates, and for clicks at what was learned of whom it suits. (..., O)."""
    rate_RO = np.exp(x_RX[..., RATES].astype(np.float64)).clip(_LEAST_RATE, _MOST_RATE)
    base_RO: Floats = np.log(rate_RO / (1 - rate_RO)).astype(np.float32)
    base_RO[..., 0] += x_RX[..., AdFeature.learned]
    base_RO[..., 2] += x_RX[..., AdFeature.learned]
    return base_RO


def smoothed(count_NO: NDArray[np.floating], shown_N: NDArray[np.floating], rate_O: NDArray[np.floating]) -> Floats:
    """Log of rates of N creatives by what they counted, drawn towards the rate of all. Shape (N, O).

    >>> rate_O = np.array([0.01, 0.5, 0.001])
    >>> np.exp(smoothed(np.array([[0, 0, 0]]), np.array([200.0]), rate_O).astype(float)).round(4).tolist()
    [[0.005, 0.0098, 0.0009]]
    """
    prior_O = _PRIOR_EVENTS / rate_O
    return np.log((count_NO + _PRIOR_EVENTS) / (shown_N[:, None] + prior_O)).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class AdHeads:
    """The heads of one snapshot, and what it knows by name of creative, placement and advertiser.

    Attributes:
        tower: None as long as nothing was learned.
        calibrations: of each of `OUTCOMES`.
        placement_G: names (hashes) of placements by number; `advertiser_G` of advertisers.
        factor_GO: what to multiply the chances of an advertiser's ads with: below 1 where too much was promised.
        creative_G: ids of creatives that were shown; `count_GO` what came of them, `shown_G` how often.
        learned_GD: whom they suit.
        rate_O: the rates of all.
    """

    tower: FrozenTower | None = None
    calibrations: tuple[Calibration, ...] = field(default_factory=new_calibrations)
    placement_G: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    advertiser_G: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    factor_GO: NDArray[np.float64] = field(default_factory=lambda: np.ones((0, len(OUTCOMES))))
    creative_G: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    count_GO: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, len(OUTCOMES)), np.float32))
    shown_G: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    learned_GD: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    rate_O: NDArray[np.float64] = field(default_factory=lambda: np.array(PRIOR_RATES))

    @classmethod
    def from_tensors(cls, tensors: Tensors) -> Self:
        """The heads among a snapshot's tensors, `ads.*`; untaught ones where nothing was learned of ads yet.

        Raises:
            WeightsRefused: a tensor is missing, misshapen or not finite. Keep the heads in use.
        """
        if "ads.shared" not in tensors:
            return cls()
        named = part_of(tensors, "ads.")
        placement_G, advertiser_G, creative_G = (_listed(named, n) for n in ("placement", "advertiser", "creative"))
        P, A, N, O = len(placement_G), len(advertiser_G), len(creative_G), len(OUTCOMES)  # noqa: E741  # axes
        calibrations = new_calibrations()
        for at, calibration in enumerate(calibrations):
            calibration.shared_X = checked(named, "shared", (O, 5))[at].astype(np.float64)
            calibration.placement_GX = checked(named, "by_placement", (O, P, 2))[at].astype(np.float64)
            calibration.advertiser_GX = checked(named, "by_advertiser", (O, A, 2))[at].astype(np.float64)
        width = named["learned"].shape[-1] if "learned" in named else 0
        return cls(
            tower=FrozenTower(ad_weights(named), TOWER),
            calibrations=calibrations,
            placement_G=placement_G,
            advertiser_G=advertiser_G,
            factor_GO=checked(named, "factor", (A, O)).astype(np.float64),
            creative_G=creative_G,
            count_GO=checked(named, "count", (N, O)).astype(np.float32),
            shown_G=checked(named, "shown", (N,)).astype(np.float32),
            learned_GD=checked(named, "learned", (N, width)).astype(np.float32),
            rate_O=checked(named, "rate", (O,)).astype(np.float64).clip(_LEAST_RATE, _MOST_RATE),
        )

    def logits(self, x_PKX: Floats, item_PK: NDArray[np.int64], mask_PK: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Log-odds of `OUTCOMES` before calibration. Shape (P, K, O)."""
        logit_PKO = base_logits(x_PKX)
        if self.tower is not None and x_PKX.size:
            logit_PKO += self.tower.logits(x_PKX, item_PK, mask_PK)
        return logit_PKO

    def calibrated(
        self, logit_CO: NDArray[np.floating], placement_C: NDArray[np.int64], advertiser_C: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Chances of C candidates, by numbers of placements and advertisers (`numbers`). Shape (C, O).

        Calibration learned each conversion twice, first as none: p = b / (1 - b) (Ktena et al. 2019).
        """
        chances = [
            calibration.predict(logit_CO[:, at], placement_C, advertiser_C)
            for at, calibration in enumerate(self.calibrations)
        ]
        p_CO = np.stack(chances, 1)
        p_CO[:, _DELAYED] = np.minimum(p_CO[:, _DELAYED] / np.maximum(1 - p_CO[:, _DELAYED], 0.5), 1)
        return p_CO

    def factors(self, advertiser_C: NDArray[np.int64]) -> NDArray[np.float64]:
        """What to multiply the chances of C candidates with before they bid. Shape (C, O)."""
        factor_GO = np.concatenate((self.factor_GO, np.ones((1, len(OUTCOMES)))))
        known_C = (advertiser_C >= 0) & (advertiser_C < len(self.factor_GO))
        return factor_GO[np.where(known_C, advertiser_C, len(self.factor_GO))]


def numbers(names_G: NDArray[np.uint64], name_C: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
    """The places of C names in a list, `UNKNOWN` for those that are not in it."""
    if not len(names_G):
        return np.full(len(name_C), UNKNOWN, np.int64)
    order_G = np.argsort(names_G, kind="stable")
    at_C = np.minimum(np.searchsorted(names_G, name_C.astype(np.uint64), sorter=order_G), len(names_G) - 1)
    found_C = order_G[at_C]
    return np.where(names_G[found_C] == name_C, found_C, UNKNOWN)


def ad_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters and buffers of the ad tower and its normalisation."""
    sizes = tower_sizes(shape, len(OUTCOMES), apart=False)
    return {"centre_F": (NUMERIC,), "scale_F": (NUMERIC,), **{f"{TOWER}.{name}": size for name, size in sizes.items()}}


def ad_weights(named: Tensors) -> dict[str, Floats]:
    """The weights of the ad tower among tensors, the entries `model.*`, copied.

    Raises:
        WeightsRefused: a tensor is missing, misshapen or not finite.
    """
    sizes = ad_shapes(shape_of(named, TOWER))
    return {name: np.array(checked(named, f"model.{name}", size), np.float32) for name, size in sizes.items()}


def _listed(named: Tensors, name: str) -> NDArray[np.uint64]:
    array = named.get(name)
    if array is None or array.ndim != 1 or array.dtype != np.uint64:
        raise WeightsRefused(f"ads.{name} is no list of names")
    return array.astype(np.uint64)
