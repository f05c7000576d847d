"""The ranking model, top to bottom: two small DCNv2 towers over the columns of `ranking.features`.

P positions, K candidates each, F numeric columns, W hidden width, E item width. The `next` tower asks which of *these*
candidates is taken next, so it also sees how each stands out from the mean of its set. The `outcome` tower asks what
becomes of a shown item (click, completion); a probability must not depend on its rivals, so it sees the item alone.
Neither sees any other position.

What is shown first is looked at most, whatever it is. So the outcome tower learns beside an item's columns how much
each place of a slate adds to the log-odds (a shallow tower of its own; Zhao et al. 2019), and serves as if everything
were shown in the first place: what remains is the item's.
"""

import numpy as np
import torch
from torch import Tensor, nn

from ranking.features import CONTEXTS, Feature
from ranking.weights import NUMERIC, OUTCOMES, Shape, Tensors, checked, shape_of, weights_of

PLACES = 64
"""Places of a slate that are told apart; those beyond count as the last."""
GAIN = 5.0
"""A place's weight is multiplied by so much: it learns faster than what is learned of an item, or that learns first
what is the place's."""
PLACE = "outcome.place.weight"
"""What a place adds to the log-odds, by name; the learner alone has it."""


class Tower(nn.Module):
    """DCNv2 in parallel form (Wang et al. 2021): full-matrix cross layers beside a two-layer MLP, summed at the heads.

    At F = 27 a full F x F matrix is cheaper than low-rank factors of rank above 13. What is learned of an item enters
    twice, as a bias per head and as a vector into the MLP. All heads start at 0 for every input.
    """

    def __init__(self, shape: Shape, heads: int, *, apart: bool, places: int = 0) -> None:
        super().__init__()
        self.crosses = nn.ModuleList(nn.Linear(NUMERIC, NUMERIC) for _ in range(shape.crosses))
        self.wide = nn.Linear(NUMERIC, shape.width)
        if apart:
            self.apart = nn.Linear(NUMERIC, shape.width, bias=False)
        self.deep = nn.Linear(shape.width, shape.width // 2)
        self.item = nn.Embedding(shape.buckets, shape.item_width, sparse=True)
        self.item_in = nn.Linear(shape.item_width, shape.width, bias=False)
        self.item_bias = nn.Embedding(shape.buckets, heads, sparse=True)
        self.context = nn.Embedding(CONTEXTS, shape.width)
        self.from_cross = nn.Linear(NUMERIC, heads, bias=False)
        self.from_deep = nn.Linear(shape.width // 2, heads)
        for cross in self.crosses:
            nn.init.normal_(cross.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(cross.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.item.weight, std=0.01)
        for zero in (self.item_bias, self.context, self.from_cross, self.from_deep):
            nn.init.zeros_(zero.weight)
        nn.init.zeros_(self.from_deep.bias)
        if places:
            self.place = nn.Embedding(places, heads, sparse=True)
            nn.init.zeros_(self.place.weight)

    def forward(self, z_PKF: Tensor, item_PK: Tensor, context_P: Tensor, middle_PF: Tensor | None = None) -> Tensor:
        """Log-odds of each head, shape (P, K, heads). With `middle_PF` also deviations from it are looked at."""
        cross_PKF = z_PKF
        for cross in self.crosses:
            cross_PKF = torch.addcmul(cross_PKF, z_PKF, cross(cross_PKF))
        weight_WF, shared_PW = self.wide.weight, self.context(context_P) + self.wide.bias
        if middle_PF is not None:
            # wide(z) + apart(z - middle), the part that all K share computed once
            weight_WF, shared_PW = weight_WF + self.apart.weight, shared_PW - self.apart(middle_PF)
        wide_PKW = nn.functional.linear(z_PKF, weight_WF) + shared_PW[:, None]
        wide_PKW += self.item_in(self.item(item_PK))
        deep_PKV = self.deep(wide_PKW.relu_()).relu_()
        logit_PKO: Tensor = self.from_deep(deep_PKV) + self.from_cross(cross_PKF) + self.item_bias(item_PK)
        return logit_PKO


class RankingModel(nn.Module):
    """Both towers and the normalisation they share. Features go in as they come, log-odds come out."""

    centre_F: Tensor
    scale_F: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.buckets = shape.buckets
        self.register_buffer("centre_F", torch.zeros(NUMERIC))
        self.register_buffer("scale_F", torch.ones(NUMERIC))
        self.next = Tower(shape, 1, apart=True)
        self.outcome = Tower(shape, len(OUTCOMES), apart=False, places=PLACES)

    def normalised(self, x_PKX: Tensor) -> Tensor:
        """Numeric columns about 0 with about unit spread, cut at +-6. Shape (P, K, F)."""
        return (x_PKX[..., :NUMERIC] - self.centre_F).mul_(self.scale_F).clamp_(-6, 6)

    def next_logits(self, x_PKX: Tensor, z_PKF: Tensor, item_PK: Tensor, weight_PK: Tensor) -> Tensor:
        """Which of the set is taken next, as logits of a softmax over K. Shape (P, K).

        `weight_PK` is how many candidates of the set a row stands for: 0 for none, 1 for itself, 1/q when sampled
        with probability q; so a sample's mean estimates the whole set's.
        """
        total_P1 = weight_PK.sum(1, keepdim=True).clamp(min=1e-6)
        middle_PF = torch.bmm(weight_PK[:, None], z_PKF)[:, 0] / total_P1
        logit_PK1: Tensor = self.next(z_PKF, self._bucket(item_PK), _context(x_PKX), middle_PF)
        return logit_PK1[..., 0]

    def outcome_logits(self, x_PKX: Tensor, z_PKF: Tensor, item_PK: Tensor, place_PK: Tensor) -> Tensor:
        """Log-odds of `OUTCOMES` if shown in these places, before calibration. Shape (P, K, 2).

        Clicks start at the item's smoothed click rate, so that an untaught head is a counter, not a coin.
        """
        logit_PKO: Tensor = self.outcome(z_PKF, self._bucket(item_PK), _context(x_PKX))
        logit_PKO += GAIN * self.outcome.place(place_PK.clamp(0, PLACES - 1))
        rate_PK = x_PKX[..., Feature.click_rate].exp().clamp(1e-4, 0.99)
        logit_PKO[..., 0] += rate_PK.logit()
        return logit_PKO

    def served(self) -> dict[str, Tensor]:
        """The parameters as they serve, `ranking.weights.shapes`: every place is the first, and needs none of its own.

        A copy of those that differ from what is learned.
        """
        served = dict(self.state_dict())
        served["outcome.from_deep.bias"] = served["outcome.from_deep.bias"] + GAIN * served.pop(PLACE)[0]
        return served

    def _bucket(self, item_PK: Tensor) -> Tensor:
        return item_PK & (self.buckets - 1)


def load_model(tensors: Tensors) -> RankingModel:
    """The model whose parameters are the entries `model.*`; its shape is read off them.

    Without a `place` no place counts for more than another: so have it the snapshots, and earlier releases.

    Raises:
        WeightsRefused: a tensor is missing, misshapen or not finite.
    """
    model = RankingModel(shape_of(tensors))
    weights, name = weights_of(tensors), f"model.{PLACE}"
    weights[PLACE] = np.zeros((PLACES, len(OUTCOMES)), np.float32)
    if name in tensors:
        weights[PLACE] = np.array(checked(tensors, name, weights[PLACE].shape), np.float32)
    model.load_state_dict({name: torch.from_numpy(weight) for name, weight in weights.items()})
    return model


def _context(x_PKX: Tensor) -> Tensor:
    """The position's context code, shape (P,); absent candidates hold 0, so it is the largest of the set."""
    return x_PKX[..., Feature.context].amax(1).long().clamp_(0, CONTEXTS - 1)
