"""How many of an item's first takers its vector brings it to, by what is made of few takes: MovieLens-100K.

At five moments of the log its next 3,000 events are searched for, by taste alone: the share whose item is among the
first 10 and 200 that the person does not know, and of those that were taken less than five times by then, the share
among 200. `own` is the factor vector alone; `blend` is n / (n + k) of it beside k / (n + k) of what the catalogue says;
`add` is all of it beside that (`embeddings.content.blended`).

    python -m benchmarks.cold_items
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embeddings import content
from embeddings.candidates import taste
from embeddings.content import WORDS, Content
from embeddings.cooccurrence import CountSettings, PairCounts
from embeddings.ids import item_ids
from streams.lab.datasets import ML_100K_HALF_LIVES, Log, ml_100k

Floats = NDArray[np.float32]
Mix = Callable[[Floats, Floats, Floats], Floats]
HELD, EVENTS, FEW = 50, 3_000, 5
MOMENTS = (10_000, 25_000, 50_000, 75_000, 95_000)
KINDS_OF_WORDS = {"all words": WORDS, "no title": 13, "categories": 6, "none": 0}


@dataclass(frozen=True, slots=True)
class Moment:
    """What was learned by then, N items, and E events that follow: tastes, items, what the person knows."""

    own_ND: Floats
    count_N: Floats
    taste_ED: Floats
    item_E: NDArray[np.int64]
    known_EN: NDArray[np.bool_]

    def found(self, target_ND: Floats) -> NDArray[np.float64]:
        """How many items stand before each event's. Shape (E,)."""
        score_EN = np.where(self.known_EN, -np.inf, self.taste_ED @ target_ND.T)
        at_E = np.arange(len(self.item_E))
        before_E: NDArray[np.float64] = (score_EN > score_EN[at_E, self.item_E][:, None]).sum(1)
        return before_E


def moments(log: Log) -> Iterator[Moment]:
    """The log at its five moments."""
    place = {name: n for n, name in enumerate(log.items)}
    item_R = np.array([place[name] for name in log.item_R], np.int32)
    past_RH, taken = np.full((len(log), HELD), -1, np.int32), dict[str, list[int]]()
    for r, user in enumerate(log.user_R):
        held = taken.setdefault(user, [])
        past_RH[r, : len(held)] = held[: -HELD - 1 : -1]
        held.append(int(item_R[r]))
    pairs, done = PairCounts(CountSettings(half_life_s=ML_100K_HALF_LIVES["pairs_s"])), 0
    for now in MOMENTS:
        pairs.update(item_R[done:now], past_RH[done:now], log.time_s_R[done:now])
        done = now
        factors, known = pairs.factors(64), len(pairs)
        source_ND, own_ND = np.zeros((2, len(place), 64), np.float32)
        source_ND[:known], own_ND[:known] = factors.source_ND, factors.target_ND
        rows = now + np.flatnonzero((past_RH[now : now + EVENTS] >= 0).any(1))
        known_EN = np.zeros((len(rows), len(place)), np.bool_)
        for e, r in enumerate(rows.tolist()):
            user = log.user_R[r]
            known_EN[e, [i for i, who in zip(item_R[:r], log.user_R[:r], strict=True) if who == user]] = True
        count_N = np.zeros(len(place), np.float32)
        count_N[:known] = pairs.counts_N
        taste_ED = taste(past_RH[rows], np.ones((len(rows), HELD), np.float32), source_ND, 0.9)
        yield Moment(own_ND, count_N, taste_ED, item_R[rows].astype(np.int64), known_EN)


def measured(log: Log, cases: list[Moment], mix: Mix, words: int = WORDS) -> str:
    """The three shares, over all moments."""
    words_NW = np.array([facts.words() for facts in log.items.values()], np.int16)
    words_NW[:, words:] = -1
    before, few = [], []
    for case in cases:
        said_ND = Content.learned(words_NW, case.own_ND, case.count_N).vectors(words_NW, item_ids(list(log.items)))
        before.append(case.found(mix(case.own_ND, said_ND, case.count_N)))
        few.append(case.count_N[case.item_E] < FEW)
    before_E, few_E = np.concatenate(before), np.concatenate(few)
    shares = (before_E < 10).mean(), (before_E < 200).mean(), (before_E[few_E] < 200).mean()
    return "@10 {:.4f}  @200 {:.4f}  few @200 {:.4f}".format(*shares)


def main() -> None:
    """Print a line per mixture."""
    log = ml_100k()
    cases = list(moments(log))
    print(f"{'own':24}", measured(log, cases, lambda own, said, n: own))
    for k in (1.0, 4.0, 16.0, 64.0):
        content.TRUST = k

        def left(n: Floats, k: float = k) -> Floats:
            return (k / (n + np.float32(k)))[:, None].astype(np.float32)

        for name, mix in (
            ("blend", lambda own, said, n: own + left(n) * (said - own)),
            ("add", lambda own, said, n: own + left(n) * said),
        ):
            print(f"{f'{name}, k = {k:g}':24}", measured(log, cases, mix), flush=True)
    content.TRUST = 16.0
    for name, words in KINDS_OF_WORDS.items():
        print(f"{f'add, k = 16, {name}':24}", measured(log, cases, content.blended, words), flush=True)


if __name__ == "__main__":
    main()
