import numpy as np
import pytest
import torch
from torch import nn

from ranking.optimiser import FIRST_SQUARES, HORIZON_STEPS, Optimiser


class Small(nn.Module):
    """A shared weight and one number per item."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Linear(3, 1, bias=False)
        self.item = nn.Embedding(4, 1, sparse=True)
        nn.init.zeros_(self.shared.weight)
        nn.init.zeros_(self.item.weight)

    def loss(self, x_F, row, scale=1.0):
        return scale * (self.shared(torch.tensor(x_F)) + self.item(torch.tensor(row))).sum()


def an_optimiser(module):
    return Optimiser(module, rate=0.1, item_rate=0.5, clip=1.0)


def test_shared_weights_step_by_adam_after_the_gradient_is_cut():
    module = Small()
    optimiser, mean_F, square_F, weight_F = an_optimiser(module), np.zeros(3), np.zeros(3), np.zeros(3)
    for step, x_F in enumerate([[3.0, 0.0, 4.0], [0.1, 0.2, 0.0], [0.0, 2.0, -1.0]], 1):
        assert optimiser.step(module.loss(x_F, 0))
        gradient_F = np.array(x_F) / max(np.linalg.norm(x_F), 1.0)
        mean_F = 0.9 * mean_F + 0.1 * gradient_F
        square_F = 0.999 * square_F + 0.001 * gradient_F**2
        weight_F -= 0.1 * mean_F / (1 - 0.9**step) / (np.sqrt(square_F / (1 - 0.999**step)) + 1e-8)
        assert module.shared.weight[0].tolist() == pytest.approx(weight_F.tolist(), rel=1e-4)


def test_an_items_row_steps_by_adagrad_and_no_other_row_moves():
    module = Small()
    optimiser = an_optimiser(module)
    for _ in range(2):
        optimiser.step(module.loss([0.0, 0.0, 0.0], [2, 2], scale=3.0))
    assert module.item.weight[:, 0].tolist() == pytest.approx([0, 0, -0.5 - 0.5 / np.sqrt(2), 0], rel=1e-4)
    assert optimiser.state()["squares.0"][:, 0].tolist() == pytest.approx(
        [FIRST_SQUARES] * 2 + [72, FIRST_SQUARES], rel=2 / HORIZON_STEPS
    )


def test_an_items_row_is_still_moved_after_a_million_steps():
    module = Small()
    optimiser = an_optimiser(module)
    optimiser.step(module.loss([0.0, 0.0, 0.0], 1))
    optimiser._squares[0][1] = 1e6
    for _ in range(1_000):
        optimiser.step(module.loss([0.0, 0.0, 0.0], 1, scale=1e-3))
    before = float(optimiser.state()["squares.0"][1, 0])
    assert before == pytest.approx(1e6 * (1 - 1 / HORIZON_STEPS) ** 1000, rel=1e-3)


@pytest.mark.parametrize("scale", [np.nan, np.inf])
def test_nothing_moves_where_the_loss_or_the_gradient_is_not_finite(scale):
    module = Small()
    optimiser = an_optimiser(module)
    assert optimiser.step(module.loss([1.0, 1.0, 1.0], 1))
    weights, state = [p.detach().clone() for p in module.parameters()], optimiser.state()
    assert not optimiser.step(module.loss([1.0, 1.0, 1.0], 1, scale))
    assert all(torch.equal(a, b) for a, b in zip(weights, module.parameters(), strict=True))
    assert all(np.array_equal(state[name], value) for name, value in optimiser.state().items())


def test_a_state_holds_one_vector_of_the_shared_weights_moments_and_a_table_of_squares_for_each_table():
    """Checkpoints hold it: another layout would be refused as unreadable."""
    shapes = {name: (array.shape, array.dtype.str) for name, array in an_optimiser(Small()).state().items()}
    floats = "<f4"
    wanted = {"mean": ((3,), floats), "square": ((3,), floats), "steps": ((1,), "<i8"), "squares.0": ((4, 1), floats)}
    assert shapes == wanted
