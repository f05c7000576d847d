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
_FURTHER, _FURTHEST = 4, 32
"""A search that left places empty is made again so many times as far, up to so many times the candidates."""


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
        self.serving.prepare(set(asked.viewers))
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
            era=stock.era,
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
            stock = replace(self.serving.current(), model=scored.model)
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
            found += [each for at in chunks for each in self.find(asked, query.at(at), policy, theirs)]
        return found

    def find(self, asked: Asked, query: Query, policy: Policy, stock: Stock) -> list[Found]:
        """The candidates of a chunk; who has seen most of what is near and has empty places is searched for again."""
        found = drop(retrieve(query, policy, stock, self.settings), query, policy, asked, stock, self.settings)
        furthest = min(_FURTHEST * policy.candidates, stock.model.index.size)
        short_P = (found.candidates.row_PK >= 0).sum(1) < asked.places_P[query.position_P]
        short_P &= query.tasteful_P & (query.reach_P < furthest) & ("vector" in policy.sources)
        if not short_P.any():
            return [found]
        again = query.at(np.flatnonzero(short_P))
        again = again._replace(reach_P=np.minimum(_FURTHER * again.reach_P, furthest).astype(np.int32))
        rest = [] if short_P.all() else [found.at(~short_P)]
        return rest + self.find(asked, again, policy, stock)

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
