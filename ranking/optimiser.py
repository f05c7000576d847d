"""One step of a tower: Adam on the shared weights as a single vector, Adagrad on the item rows a batch touched."""

from collections.abc import Collection, Mapping
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, parameters_to_vector, vector_to_parameters

#: An item row's sum of squared gradients fades with so many of its steps: after a million the next still moves it.
HORIZON_STEPS = 10_000
#: A fresh row's sum of squared gradients: small beside any real one, so that its first step is about `item_rate`.
FIRST_SQUARES = 1e-10
#: How fast Adam's moments fade by step, and what keeps it from dividing by zero: as in the paper.
MEAN_DECAY, SQUARE_DECAY, EPSILON = 0.9, 0.999, 1e-8


class Optimiser:
    """Steps one module; its embedding tables declared `sparse` are stepped row by row.

    A row of a table is seen seldom and needs a step size of its own (Duchi et al. 2011); the shared weights see every
    batch and do well with Adam (Kingma & Ba 2015). From here on they are views of one vector, which is stepped.
    """

    def __init__(self, module: nn.Module, *, rate: float, item_rate: float, clip: float) -> None:
        self.rate, self.item_rate, self.clip = rate, item_rate, clip
        self._tables = [m.weight for m in module.modules() if isinstance(m, nn.Embedding) and m.sparse]
        self._dense = [p for p in module.parameters() if all(p is not table for table in self._tables)]
        self._vector = parameters_to_vector(self._dense).detach()
        vector_to_parameters(self._vector, self._dense)
        zero = torch.zeros_like(self._vector)
        self._go_on(zero, zero.clone(), 0, [torch.full_like(table, FIRST_SQUARES) for table in self._tables])

    def step(self, loss: Tensor) -> bool:
        """Step down the gradient of `loss`; False, and nothing moves, when it or the gradient is not finite."""
        for p in (*self._dense, *self._tables):
            p.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        gradient = parameters_to_vector(torch.zeros_like(p) if p.grad is None else p.grad for p in self._dense)
        self._vector.grad = gradient
        rows = [cast(Tensor, table.grad).coalesce() for table in self._tables]
        norm = clip_grad_norm_(self._vector, self.clip)
        if not all(bool(torch.isfinite(value).all()) for value in (loss, norm, *(row.values() for row in rows))):
            return False
        self._steps += 1
        _adam(self._vector, self._mean, self._square, gradient, self._steps, self.rate)
        for table, squares, row in zip(self._tables, self._squares, rows, strict=True):
            _adagrad(table, squares, row, self.item_rate)
        return True

    @torch.no_grad()
    def forget(self, rows: NDArray[np.int64], of: Collection[Tensor]) -> None:
        """Begin anew with these rows of some tables: nothing is known of them, and their next step is a first one."""
        for table, squares in zip(self._tables, self._squares, strict=True):
            if any(table is one for one in of):
                table[rows], squares[rows] = 0.0, FIRST_SQUARES

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Moments and counts; copies."""
        squares = {f"squares.{at}": table.numpy().copy() for at, table in enumerate(self._squares)}
        moments = {"mean": self._mean.numpy().copy(), "square": self._square.numpy().copy()}
        return moments | {"steps": np.array([self._steps], np.int64)} | squares

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Take over `state` of an optimiser of the same module."""
        squares = [torch.tensor(state[f"squares.{at}"]) for at in range(len(self._tables))]
        self._go_on(torch.tensor(state["mean"]), torch.tensor(state["square"]), int(state["steps"][0]), squares)

    def _go_on(self, mean: Tensor, square: Tensor, steps: int, squares: list[Tensor]) -> None:
        self._mean, self._square, self._steps, self._squares = mean, square, steps, squares


@torch.no_grad()
def _adam(weights: Tensor, mean: Tensor, square: Tensor, gradient: Tensor, steps: int, rate: float) -> None:
    """Algorithm 1 of Kingma & Ba; `torch.optim` would load a compiler for it, which takes seconds at every start."""
    mean.lerp_(gradient, 1 - MEAN_DECAY)
    square.mul_(SQUARE_DECAY).addcmul_(gradient, gradient, value=1 - SQUARE_DECAY)
    root = (square / (1 - SQUARE_DECAY**steps)).sqrt_().add_(EPSILON)
    weights.addcdiv_(mean, root, value=-rate / (1 - MEAN_DECAY**steps))


@torch.no_grad()
def _adagrad(table: Tensor, squares: Tensor, gradient: Tensor, rate: float) -> None:
    rows, values = gradient.indices()[0], gradient.values()
    total = squares[rows] * (1 - 1 / HORIZON_STEPS) + values * values
    squares[rows] = total
    table[rows] -= rate * values / total.sqrt()
