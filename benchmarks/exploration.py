"""What chance and weights do for the click head: excess loss on all candidates and on those that are ranked first.

A made-up click rate of twelve features, one product among them; slates of 20 of 200 candidates by a ranking that is
half right; chance fills a share of places, and impressions count for one over their propensity up to a cap.

python -m benchmarks.exploration
"""

import argparse

import numpy as np
from numpy.typing import NDArray

from ranking.features import COLUMNS, Feature
from ranking.ranker import Ranker
from ranking.slate import best, explore
from ranking.trainer import Trainer

CANDIDATES, PLACES, WIDTH, CHUNK, JUDGED, HORIZON = 200, 20, 12, 32, 100, 5_000
_ITEM_1K = np.arange(CANDIDATES)[None]


def a_draw(rng: np.random.Generator, weights_2D: NDArray[np.float64], count: int) -> tuple[NDArray[np.float32], ...]:
    """Features, true click rates and ranking scores of the candidates of some slates."""
    x_PKX = np.zeros((count, CANDIDATES, COLUMNS), np.float32)
    z_PKD = rng.normal(size=(count, CANDIDATES, WIDTH))
    x_PKX[..., :WIDTH], x_PKX[..., Feature.click_rate] = z_PKD, np.log(0.1)
    true_PK, other_PK = z_PKD @ weights_2D[0], z_PKD @ weights_2D[1]
    odd_PK = 0.6 * np.tanh(z_PKD[..., 0] * z_PKD[..., 1]) + 0.5 * np.abs(z_PKD[..., 2])
    click_PK = 1 / (1 + np.exp(2.6 - 0.35 * true_PK - odd_PK))
    return x_PKX, click_PK, (true_PK + 0.7 * other_PK).astype(np.float32)


def first(score_PK: NDArray[np.float32]) -> NDArray[np.int32]:
    """The best of each."""
    shape = score_PK.shape
    return best(score_PK, np.broadcast_to(_ITEM_1K, shape).copy(), np.ones(shape, np.bool_), PLACES)[0]


def learned(rng: np.random.Generator, weights_2D: NDArray[np.float64], share: float, cap: float, slates: int) -> Ranker:
    """What a click head has learned of so many slates."""
    trainer, mass, seen, row_P1 = Trainer(), 0.0, 0.0, np.arange(CHUNK)[:, None]
    for _ in range(slates // CHUNK):
        x_PKX, click_PK, score_PK = a_draw(rng, weights_2D, CHUNK)
        index_PN = first(score_PK)
        propensity_PN, _ = explore(
            index_PN,
            np.ones(score_PK.shape, np.bool_),
            np.full(CHUNK, PLACES, np.int32),
            rng.random((CHUNK, PLACES), np.float32),
            rng.integers(0, 2**64, (CHUNK, CANDIDATES + PLACES), np.uint64),
            share,
        )
        rate_R = click_PK[row_P1, index_PN].ravel()
        weight_R = 1 / np.clip(propensity_PN.ravel(), 1 / cap, 1)
        kept = np.exp(-len(weight_R) / HORIZON)
        mass, seen = mass * kept + weight_R.sum(), seen * kept + len(weight_R)
        x_RX, ones_R = x_PKX[row_P1, index_PN].reshape(-1, COLUMNS), np.ones(len(rate_R), np.int64)
        label_R = rng.random(len(rate_R)) < rate_R
        trainer.learn_pointwise(x_RX, ones_R, label_R, "click", (weight_R * seen / mass).astype(np.float32))
    return Ranker.from_tensors(trainer.tensors(), version=1)


def judged(seed: int, share: float, cap: float, slates: int) -> tuple[float, float, float]:
    """Excess loss on all candidates and on those ranked first; clicks of those that the head would rank first."""
    rng = np.random.default_rng(seed)
    weights_2D = rng.normal(size=(2, WIDTH))
    ranker = learned(rng, weights_2D, share, cap, slates)
    x_PKX, p_PK, score_PK = a_draw(rng, weights_2D, JUDGED)
    q_PK = ranker.score(x_PKX, np.ones(p_PK.shape, np.int64), np.ones(p_PK.shape, np.bool_)).click_PK
    excess_PK = p_PK * np.log(p_PK / q_PK) + (1 - p_PK) * np.log((1 - p_PK) / (1 - q_PK))
    row_P1 = np.arange(JUDGED)[:, None]
    shown, chosen = first(score_PK), first(q_PK.astype(np.float32))
    return float(excess_PK.mean()), float(excess_PK[row_P1, shown].mean()), float(p_PK[row_P1, chosen].mean())


def main() -> None:
    """Print a line per share and cap."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slates", type=int, default=3_000)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    for share in (0.0, 0.02, 0.05, 0.1):
        for cap in (1, 2, 5, 10, 20) if share else (1,):
            figures = np.mean([judged(seed, share, cap, args.slates) for seed in range(args.seeds)], axis=0)
            everywhere, shown, clicks = figures.tolist()
            print(f"share {share:4} cap {cap:2}: {everywhere * 1e3:6.2f} {shown * 1e3:6.2f} e-3, clicks {clicks:.4f}")


if __name__ == "__main__":
    main()
