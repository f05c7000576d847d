"""The stages behind one call, chunk by chunk: from histories to slates, for events, requests and evaluation alike.

`query` says what to look for, `retrieve` proposes, `filter` drops what was seen or may not be shown, `rank` scores,
`compose` chooses. Positions go through in chunks that fit a core's cache; a chunk is one search, one pass of each
kernel and one tensor call.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from embeddings.eligibility import ViewerClass
from embeddings.items import Items
from embeddings.state_columns import UserStates
from streams.serving.compose import compose
from streams.serving.examples import examples_of
from streams.serving.filter import drop
from streams.serving.live_model import LiveModel, Serving, Stock
from streams.serving.policies import Policies, Policy
from streams.serving.query import query_of, tastes
from streams.serving.rank import rank
from streams.serving.retrieve import retrieve
from streams.serving.stages import StageTimer, Stamps
from streams.serving.traces import traced
from streams.serving.values import Asked, Examples, Found, Query, Scored, Slates, Traced, joined
from streams.settings import Settings

CHUNK = 32


@dataclass(slots=True)
class Scorer:
    """Scores positions with the live model. One per thread that scores; the model and item table are shared."""

    serving: Serving
    settings: Settings
    policies: Policies = field(init=False)

    def __post_init__(self) -> None:
        self.policies = Policies.of(self.settings)

    @property
    def items(self) -> Items:
        """The item table."""
        return self.serving.items

    def tastes(self, states: UserStates, model: LiveModel) -> NDArray[np.float32]:
        """Taste vectors of U users from their histories, in the space of one model. Shape (U, D)."""
        return tastes(states, self.items, model, self.settings.learner.taste_decay)

    def score(self, asked: Asked, stage: StageTimer, stamps: Stamps, now_ms: Callable[[], int]) -> Scored:
        """Retrieve and rank for every position that is served; the item table is held meanwhile."""
        with self.items.lock:
            stock = self.serving.current() if asked.serve_P.any() else self.serving.stock()
            with stage("retrieve"):
                query = query_of(asked, stock, self.settings)
                found = self._found(asked, query, stock, asked.serve_P)
                stamps.retrieved_ms = now_ms()
            with stage("rank"):
                chosen = [self.choose(asked, each, stock) for each in found]
                stamps.ranked_ms = now_ms()
        return Scored(
            model=stock.model,
            slates=joined([slates for slates, _ in chosen]) if chosen else Slates.none(self.policies.default.size),
            query=query,
            found=found,
            traces={at: each for _, traces in chosen for at, each in traces.items()},
        )

    def examples(self, asked: Asked, scored: Scored) -> Examples:
        """Examples of the positions whose take is told, under the model of their slates."""
        told_P = asked.told.taken_P != 0
        if not told_P.any():
            return Examples.none()
        with self.items.lock:
            stock = self.serving.current()
            stock = replace(stock, model=scored.model.fitted(self.items))  # items may have come since
            found = [each for each in scored.found if told_P[each.query.position_P].any()]
            found += self._found(asked, scored.query, stock, told_P & ~asked.serve_P)
            parts = [examples_of(asked, each, stock, self.settings) for each in found]
        return joined([some for some in parts if len(some.position_E)] or parts[:1])

    def _found(self, asked: Asked, query: Query, stock: Stock, wanted_P: NDArray[np.bool_]) -> list[Found]:
        """The candidates of some positions, in chunks of one class of viewers and one policy: a search has one mask."""
        if not wanted_P.any():
            return []
        whose = list(zip(asked.viewers, asked.policies, strict=True))
        classes: dict[tuple[ViewerClass, Policy], int] = {}
        code_of = {
            (viewer, policy): classes.setdefault((self.items.class_of(viewer), policy), len(classes))
            for viewer, policy in dict.fromkeys(whose)
        }
        class_P = np.array([code_of[each] for each in whose])
        found = []
        for (viewers, policy), code in classes.items():
            chunks = _chunks(asked, wanted_P & (class_P == code))
            theirs = stock if viewers == ViewerClass() else self.serving.for_class(stock, viewers)
            found += [self.find(asked, query.at(at), policy, theirs) for at in chunks]
        return found

    def find(self, asked: Asked, query: Query, policy: Policy, stock: Stock) -> Found:
        """The candidates of a chunk."""
        return drop(retrieve(query, policy, stock, self.settings), query, policy, asked, stock, self.settings)

    def choose(self, asked: Asked, found: Found, stock: Stock) -> tuple[Slates, dict[int, Traced]]:
        """The slates of a chunk, and how they came about where that is traced."""
        ranked = rank(asked, found, stock, self.settings)
        return compose(asked, found, ranked, stock, self.settings), traced(asked, found, ranked)


def _chunks(asked: Asked, wanted_P: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """Positions in the order of how far must be looked for them: a search looks as far for all of a chunk."""
    at = np.flatnonzero(wanted_P)
    if len(at) > CHUNK:
        at = at[np.argsort(asked.seen_P[at], kind="stable")]
    return [at[n : n + CHUNK] for n in range(0, len(at), CHUNK)]
