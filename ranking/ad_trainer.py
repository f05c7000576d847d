"""Online training of what becomes of ads: a tower of their own, so that nothing an ad teaches moves a slate's order.

Each row is an impression, predicted and then learned, once it is known whether it was clicked. What comes later (a
conversion days after) was learned as if it did not come, and is learned again as it did; so the head of conversions
sees some rows twice, and weighs them so that its expectation is that of the truth (fake negative weighted: Ktena et
al., "Addressing delayed feedback for continuous training with neural networks in CTR prediction", 2019).
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ranking.ads.features import OUTCOMES
from ranking.ads.heads import TOWER, ad_weights, base_logits
from ranking.model import Tower
from ranking.moments import no_moments, normalise, widened
from ranking.optimiser import Optimiser
from ranking.trainer import TrainerSettings
from ranking.weights import NUMERIC, Shape, Tensors, checked, part_of, shape_of

SHAPE = Shape(buckets=1 << 14, width=32, item_width=4, crosses=1)
_DELAYED = OUTCOMES.index("conversion")


class AdModel(nn.Module):
    """The tower and its normalisation. Features go in as they come, log-odds come out."""

    centre_F: Tensor
    scale_F: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.buckets = shape.buckets
        self.register_buffer("centre_F", torch.zeros(NUMERIC))
        self.register_buffer("scale_F", torch.ones(NUMERIC))
        self.ad = Tower(shape, len(OUTCOMES), apart=False)

    def logits(self, x_RX: Tensor, item_R: Tensor) -> Tensor:
        """What the tower adds to `ranking.ads.heads.base_logits`. Shape (R, O)."""
        z_R1F = (x_RX[:, None, :NUMERIC] - self.centre_F).mul_(self.scale_F).clamp_(-6, 6)
        context_R = x_RX[:, NUMERIC].long().clamp(0, len(self.ad.context.weight) - 1)
        logit_RO: Tensor = self.ad(z_R1F, (item_R & (self.buckets - 1))[:, None], context_R)[:, 0]
        return logit_RO


class AdTrainer:
    """Learns the heads of ads from impressions; mutable, one owner.

    Deterministic: the same calls after the same seed give the same bits, across `state` and `restore` too.
    """

    def __init__(self, shape: Shape = SHAPE, settings: TrainerSettings | None = None, *, seed: int = 0) -> None:
        self.settings = settings or TrainerSettings()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._take_model(AdModel(shape))
        self.rows = self.refused = 0
        self._moments = no_moments()

    def _take_model(self, model: AdModel) -> None:
        s = self.settings
        self.model = model
        self._optimiser = Optimiser(model.ad, rate=s.rate, item_rate=s.item_rate, clip=s.clip)

    def learn(
        self,
        x_RX: NDArray[np.floating],
        item_R: NDArray[np.int64],
        label_RO: NDArray[np.bool_],
        weight_RO: NDArray[np.floating],
    ) -> NDArray[np.float32]:
        """Learn what became of R impressions, in order; a weight of 0 leaves an outcome out.

        A row counts alike however many come with it. Rows with a non-finite number are refused and counted. Returns
        the log-odds before a row was learned, not calibrated, NaN where it was refused; shape (R, O).
        """
        finite_R = np.isfinite(x_RX).all(1) & np.isfinite(weight_RO).all(1)
        self.refused += int((~finite_R).sum())
        logit_RO = np.full(label_RO.shape, np.nan, np.float32)
        kept = np.flatnonzero(finite_R)
        for at in range(0, len(kept), self.settings.step_rows):
            rows = kept[at : at + self.settings.step_rows]
            x_Rx = torch.from_numpy(x_RX[rows].astype(np.float32))
            self._moments = widened(self._moments, x_Rx[:, None], torch.ones(len(rows), 1), self.settings.moment_rows)
            normalise(self._moments, self.model.centre_F, self.model.scale_F)
            base_RO = torch.from_numpy(base_logits(x_RX[rows]))
            logit_RO[rows] = self._step(x_Rx, item_R[rows], base_RO, label_RO[rows], weight_RO[rows])
        return logit_RO

    def _step(
        self,
        x_RX: Tensor,
        item_R: NDArray[np.int64],
        base_RO: Tensor,
        label_RO: NDArray[np.bool_],
        weight_RO: NDArray[np.floating],
    ) -> NDArray[np.float32]:
        logit_RO = base_RO + self.model.logits(x_RX, torch.from_numpy(item_R))
        label = torch.from_numpy(label_RO.astype(np.float32))
        loss_RO = nn.functional.binary_cross_entropy_with_logits(logit_RO, label, reduction="none")
        weight = torch.from_numpy(weight_RO.astype(np.float32)).clone()
        p_R = logit_RO[:, _DELAYED].detach().sigmoid()
        weight[:, _DELAYED] *= torch.where(label[:, _DELAYED] > 0, 1 + p_R, (1 - p_R) * (1 + p_R))
        if not self._optimiser.step((loss_RO * weight).sum() / self.settings.step_rows):
            self.refused += len(loss_RO)
            return np.full(label_RO.shape, np.nan, np.float32)
        self.rows += len(loss_RO)
        return logit_RO.detach().numpy()

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """The weights, as `ranking.ads.heads.ad_weights` reads them; copies."""
        return {f"model.{name}": value.numpy().copy() for name, value in self.model.state_dict().items()}

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Everything needed to go on after a restart, optimiser included; copies."""
        optimiser = {f"{TOWER}.{name}": array for name, array in self._optimiser.state().items()}
        rows = np.array([self.rows, self.refused], np.int64)
        return self.tensors() | optimiser | {"rows": rows, "moments": self._moments.copy()}

    def restore(self, state: Tensors) -> None:
        """Go on from `state`; settings stay this trainer's.

        Raises:
            WeightsRefused: an entry is missing, misshapen or not finite; the trainer is unchanged.
        """
        shape = shape_of(state, TOWER)
        blank = AdTrainer(shape, self.settings).state()
        taken: Mapping[str, NDArray[np.generic]] = {
            name: checked(state, name, have.shape) for name, have in blank.items()
        }
        model = AdModel(shape)
        model.load_state_dict({name: torch.from_numpy(weight) for name, weight in ad_weights(taken).items()})
        self._take_model(model)
        self._optimiser.restore(part_of(taken, f"{TOWER}."))
        self.rows, self.refused = (int(count) for count in taken["rows"])
        self._moments = np.array(taken["moments"], np.float64)
