"""One step of a tower: Adam on the shared weights as a single vector, Adagrad on the item rows a batch touched."""

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

#: A fresh row's sum of squared gradients: small beside any real one, so that its first step is about `item_rate`.
FIRST_SQUARES = 1e-10


class Optimiser:
    """Steps one module; its embedding tables declared `sparse` are stepped row by row.

    A row of a table is seen seldom and needs a step size of its own (Duchi et al. 2011); the shared weights see every
    batch and do well with Adam (Kingma & Ba 2015).
    """

    def __init__(self, module: nn.Module, *, rate: float, item_rate: float, clip: float) -> None:
        self.rate, self.item_rate, self.clip = rate, item_rate, clip
        self._tables = [m.weight for m in module.modules() if isinstance(m, nn.Embedding) and m.sparse]
        self._dense = [p for p in module.parameters() if all(p is not table for table in self._tables)]
        self._squares = [torch.full_like(table, FIRST_SQUARES) for table in self._tables]
        weights = sum(p.numel() for p in self._dense)
        self._mean, self._square, self._steps = torch.zeros(weights), torch.zeros(weights), 0

    def step(self, loss: Tensor) -> bool:
        """Step down the gradient of `loss`; False, and nothing moves, when it or the gradient is not finite."""
        for p in (*self._dense, *self._tables):
            p.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        gradient = parameters_to_vector(torch.zeros_like(p) if p.grad is None else p.grad for p in self._dense)
        rows = [cast(Tensor, table.grad).coalesce() for table in self._tables]
        norm = gradient.norm()
        if not all(bool(torch.isfinite(value).all()) for value in (loss, norm, *(row.values() for row in rows))):
            return False
        self._adam(gradient * (self.clip / norm.clamp(min=self.clip)))
        for table, squares, row in zip(self._tables, self._squares, rows, strict=True):
            _adagrad(table, squares, row, self.item_rate)
        return True

    @torch.no_grad()
    def _adam(self, gradient: Tensor) -> None:
        self._steps += 1
        self._mean.lerp_(gradient, 0.1)
        self._square.lerp_(gradient * gradient, 0.001)
        mean = self._mean / (1 - 0.9**self._steps)
        square = self._square / (1 - 0.999**self._steps)
        vector_to_parameters(parameters_to_vector(self._dense) - self.rate * mean / (square.sqrt() + 1e-8), self._dense)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Moments and counts; copies."""
        squares = {f"squares.{at}": table.numpy().copy() for at, table in enumerate(self._squares)}
        steps = np.array([self._steps], np.int64)
        return {"mean": self._mean.numpy().copy(), "square": self._square.numpy().copy(), "steps": steps} | squares

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Take over `state` of an optimiser of the same module."""
        self._mean, self._square = torch.tensor(state["mean"]), torch.tensor(state["square"])
        self._steps = int(state["steps"][0])
        self._squares = [torch.tensor(state[f"squares.{at}"]) for at in range(len(self._tables))]


@torch.no_grad()
def _adagrad(table: Tensor, squares: Tensor, gradient: Tensor, rate: float) -> None:
    rows, values = gradient.indices()[0], gradient.values()
    total = squares[rows] + values * values
    squares[rows] = total
    table[rows] -= rate * values / total.sqrt()
