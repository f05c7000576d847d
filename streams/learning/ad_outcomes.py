"""What ads teach: chances per impression, whether they come true, how creatives did and whom they suit.

An impression is learned when it has waited `learner.attribution_s` for a click; what comes later is learned when it
comes: such a row was learned as if it would not (`ranking.ad_trainer`). Only people who let their profile be learned of
and used for ads teach anything. Nothing here touches what organic slates are made of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embeddings.events import CONSENT_ADS, CONSENT_PROFILE, OF_ADS
from ranking.ad_trainer import AdTrainer
from ranking.ads.features import OUTCOMES, RATES, AdFeature
from ranking.ads.heads import base_logits, new_calibrations
from ranking.ads.prediction import Calibrated, Calibration, Drift, measured
from ranking.features import COLUMNS
from ranking.trainer import TrainerSettings
from ranking.weights import part_of
from streams.contract.observations import Observation
from streams.learning.ad_impressions import AdImpressions, Happened
from streams.learning.creative_counts import CreativeCounts, Numbers
from streams.process.ad_learning_metrics import AdOutcome
from streams.settings import Settings

Arrays = Mapping[str, NDArray[np.generic]]
CLICK, COMPLETE, CONVERSION = range(len(OUTCOMES))
_TEACHES = CONSENT_PROFILE | CONSENT_ADS
_PLACEMENTS, _ADVERTISERS = 4_096, 1 << 14
"""So many are told apart; those beyond are calibrated like all together."""


@dataclass(slots=True)
class AdOutcomes:
    """The heads of ads and all they are served with. Mutable, one owner.

    Attributes:
        impressions: decisions, and what became of them.
        calibrations: of each of `OUTCOMES`.
        drifts: whether what was told when decisions were made comes true, by advertiser, of clicks and completed views;
            of conversions nobody knows before their window ends.
        counts: of creatives.
        placements, advertisers: the numbers of their hashes.
    """

    settings: Settings
    impressions: AdImpressions = field(init=False)
    calibrations: tuple[Calibration, ...] = field(init=False, default_factory=new_calibrations)
    drifts: tuple[Drift, ...] = field(init=False, default_factory=lambda: tuple(Drift() for _ in OUTCOMES[:CONVERSION]))
    counts: CreativeCounts = field(init=False)
    placements: Numbers = field(init=False, default_factory=lambda: Numbers(_PLACEMENTS))
    advertisers: Numbers = field(init=False, default_factory=lambda: Numbers(_ADVERTISERS))
    _trainer: AdTrainer | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.impressions = AdImpressions(self.settings.learner.attribution_s)
        self.counts = CreativeCounts(self.settings.half_lives.counters.reactions_s)

    @property
    def trainer(self) -> AdTrainer:
        """The heads; made when the first ad teaches something."""
        if self._trainer is None:
            rate = TrainerSettings(rate=self.settings.learner.learning_rate)
            self._trainer = AdTrainer(settings=rate, seed=self.settings.seed)
        return self._trainer

    @property
    def rows(self) -> int:
        """How many rows the heads have learned."""
        return self._trainer.rows if self._trainer else 0

    def show(self, o: Observation) -> None:
        """Remember the decisions that an observation tells, unless a release with other features told them."""
        if len(o.ad_A) and o.ad_x_AF.shape[1] == COLUMNS and o.ad_p_AO.shape[1] == len(OUTCOMES):
            self.impressions.show(o)

    def learn(self, o: Observation, new_R: NDArray[np.bool_]) -> int:
        """Learn what the new rows of an observation make known; returns how many impressions were waited for."""
        if not len(self.impressions) and not OF_ADS[o.action_R].any():
            return 0
        may_R = ~OF_ADS[o.action_R] | ((o.consent_R & _TEACHES) == _TEACHES)
        rows = np.flatnonzero(new_R & may_R)
        happened = self.impressions.happen(o.source, o.action_R[rows], o.slate_R[rows], o.time_s_R[rows])
        if len(happened.closed_C) or len(happened.late_L):
            self._learn(happened)
        return len(happened.closed_C)

    def _learn(self, happened: Happened) -> None:
        """Learn impressions as they stand, and late outcomes; then count them.

        An impression was clicked or not, seen to the end or not, and not converted so far; of a late outcome it is
        learned that it came, and no more.
        """
        closed = len(happened.closed_C)
        place_B = np.concatenate((happened.closed_C, happened.late_L))
        label_BO, x_BF = self.impressions.labels(place_B), self._seen(place_B)
        label_BO[:closed, CONVERSION] = False
        weight_BO = np.ones(label_BO.shape, np.float32)
        weight_BO[:, COMPLETE] = x_BF[:, AdFeature.video] + x_BF[:, AdFeature.audio]
        late_LO = np.eye(len(OUTCOMES), dtype=np.float32)[happened.outcome_L]
        label_BO[closed:], weight_BO[closed:] = late_LO > 0, late_LO
        self._teach(place_B, x_BF, label_BO, weight_BO)
        shown_BO = weight_BO.copy()
        shown_BO[closed:] = 0
        c = self.impressions.columns
        self._watch(place_B, label_BO, weight_BO, shown_BO)
        self.counts.count(self.counts.number(c["ad_item_A"][place_B]), label_BO, shown_BO, c["shown_s"][place_B])
        self._suit(happened.closed_C, x_BF[:closed], label_BO[:closed, CLICK])

    def _watch(
        self,
        place_B: NDArray[np.intp],
        label_BO: NDArray[np.bool_],
        weight_BO: NDArray[np.float32],
        shown_BO: NDArray[np.float32],
    ) -> None:
        """Set what came beside what decisions were told with; who is late was expected when the impression was."""
        c = self.impressions.columns
        advertiser_B = self.advertisers.of(c["ad_advertiser_A"][place_B])
        for outcome, drift in enumerate(self.drifts):
            p_B = c["ad_p_AO"][place_B, outcome].astype(np.float64) * (shown_BO[:, outcome] > 0)
            of = weight_BO[:, outcome] > 0
            drift.learn(advertiser_B[of], p_B[of], label_BO[of, outcome])

    def _suit(self, place_C: NDArray[np.intp], x_CF: NDArray[np.float32], clicked_C: NDArray[np.bool_]) -> None:
        """Learn whom creatives suit, from people whose taste may be used."""
        c, at = self.impressions.columns, np.flatnonzero(x_CF[:, AdFeature.personal] > 0)
        place_C, x_CF = place_C[at], x_CF[at]
        rate_C = (base_logits(x_CF)[:, CLICK] - x_CF[:, AdFeature.learned]).astype(np.float64)
        number_C, taste_CD = self.counts.number(c["ad_item_A"][place_C]), c["ad_taste_AD"][place_C].astype(np.float32)
        self.counts.suit(number_C, taste_CD, rate_C, clicked_C[at])

    def _seen(self, place_C: NDArray[np.intp]) -> NDArray[np.float32]:
        """What heads saw of impressions, with what is known of the creatives by now.

        Where heads begin is then never further from the truth than counts are: what they had learned beside rates of
        long ago would be counted twice once those have moved. Shape (C, F).
        """
        c = self.impressions.columns
        x_CF = c["ad_x_AF"][place_C].astype(np.float32)
        taste_CD = c["ad_taste_AD"][place_C].astype(np.float32)
        number_C = self.counts.number(c["ad_item_A"][place_C])
        x_CF[:, RATES], x_CF[:, AdFeature.shown], x_CF[:, AdFeature.learned] = self.counts.columns(number_C, taste_CD)
        return x_CF

    def _teach(
        self,
        place_C: NDArray[np.intp],
        x_CF: NDArray[np.float32],
        label_CO: NDArray[np.bool_],
        weight_CO: NDArray[np.floating],
    ) -> None:
        """Teach heads, and calibrations by what these said before."""
        c = self.impressions.columns
        item_C = c["ad_item_A"][place_C].astype(np.int64)
        logit_CO = self.trainer.learn(x_CF, item_C, label_CO, weight_CO).astype(np.float64)
        placement_C = self.placements.of(c["ad_placement_A"][place_C])
        advertiser_C = self.advertisers.of(c["ad_advertiser_A"][place_C])
        for at, calibration in enumerate(self.calibrations):
            of = (weight_CO[:, at] > 0) & np.isfinite(logit_CO[:, at])
            calibration.learn(logit_CO[of, at], label_CO[of, at], placement_C[of], advertiser_C[of])

    def figures(self) -> dict[AdOutcome, Calibrated]:
        """How true the chances came that decisions were told with, of the impressions held; by outcome."""
        place_C = self.impressions.closed()
        if not len(place_C):
            return {}
        p_CO, label_CO = self.impressions.columns["ad_p_AO"][place_C], self.impressions.labels(place_C)
        x_CF = self.impressions.columns["ad_x_AF"][place_C]
        timed_C = x_CF[:, AdFeature.video] + x_CF[:, AdFeature.audio] > 0
        of_O: dict[AdOutcome, Any] = {"click": slice(None), "complete": timed_C, "conversion": slice(None)}
        return {
            name: measured(p_CO[of, at].astype(np.float64), label_CO[of, at])
            for at, (name, of) in enumerate(of_O.items())
        }

    def take_dropped(self) -> int:
        """How many decisions gave way before their impressions had waited long enough, since the last call."""
        dropped, self.impressions.dropped = self.impressions.dropped, 0
        return dropped

    def alarms(self) -> dict[AdOutcome, int]:
        """Of how many advertisers the chances are wrong, by outcome."""
        names: tuple[AdOutcome, ...] = ("click", "complete")
        return {name: int(drift.alarms().sum()) for name, drift in zip(names, self.drifts, strict=True)}

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """What a snapshot carries and `ranking.ads.heads.AdHeads.from_tensors` reads; nothing before the first row."""
        if not self.rows:
            return {}
        placements, advertisers = len(self.placements), len(self.advertisers)
        factor_GO = np.ones((advertisers, len(OUTCOMES)))
        for outcome, drift in enumerate(self.drifts):
            factor_G = drift.factors()[:advertisers]
            factor_GO[: len(factor_G), outcome] = factor_G
        tensors: dict[str, NDArray[np.generic]] = {
            "shared": np.stack([calibration.shared_X for calibration in self.calibrations]),
            "by_placement": np.stack([_cut(each.placement_GX, placements) for each in self.calibrations]),
            "by_advertiser": np.stack([_cut(each.advertiser_GX, advertisers) for each in self.calibrations]),
            "placement": self.placements.names(),
            "advertiser": self.advertisers.names(),
            "factor": factor_GO,
            **self.counts.tensors(),
            **self.trainer.tensors(),
        }
        return {f"ads.{name}": array for name, array in tensors.items()}

    def state(self) -> tuple[dict[str, NDArray[np.generic]], list[list[Any]]]:
        """Everything needed to go on: arrays, and partitions with their clocks; nothing where no ad was told yet."""
        if not len(self.impressions):
            return {}, []
        held, clocks = self.impressions.state()
        arrays = {f"impressions.{name}": array for name, array in held.items()}
        for at, calibration in enumerate(self.calibrations):
            arrays[f"shared.{at}"] = calibration.shared_X.copy()
            arrays[f"by_placement.{at}"] = calibration.placement_GX.copy()
            arrays[f"by_advertiser.{at}"] = calibration.advertiser_GX.copy()
        arrays |= {f"drift.{at}": drift.sum_GX.copy() for at, drift in enumerate(self.drifts)}
        arrays |= {f"counts.{name}": array for name, array in self.counts.state().items()}
        arrays |= {"placement": self.placements.names(), "advertiser": self.advertisers.names()}
        if self._trainer is not None:
            arrays |= {f"trainer.{name}": array for name, array in self._trainer.state().items()}
        return arrays, clocks

    def restore(self, arrays: Arrays, clocks: Sequence[Sequence[Any]]) -> None:
        """Go on from a `state`; one of an earlier release knows nothing of ads.

        Raises:
            WeightsRefused: a weight is missing, misshapen or not finite.
        """
        if not arrays:
            return
        self.impressions.restore(part_of(arrays, "impressions."), clocks)
        for at, calibration in enumerate(self.calibrations):
            calibration.shared_X = np.array(arrays[f"shared.{at}"], np.float64)
            calibration.placement_GX = np.array(arrays[f"by_placement.{at}"], np.float64)
            calibration.advertiser_GX = np.array(arrays[f"by_advertiser.{at}"], np.float64)
        for at, drift in enumerate(self.drifts):
            drift.sum_GX = np.array(arrays[f"drift.{at}"], np.float64)
        self.counts.restore(part_of(arrays, "counts."))
        self.placements.restore(arrays["placement"])
        self.advertisers.restore(arrays["advertiser"])
        if trainer := part_of(arrays, "trainer."):
            self.trainer.restore(trainer)


def _cut(group_GX: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The deviations of so many groups; of those that never learned, none."""
    out_GX = np.zeros((count, 2))
    out_GX[: len(group_GX)] = group_GX[:count]
    return out_GX
