"""Retrieve and rank behind one call: from histories to scored candidates, the same for events, requests and evaluation.

Several sources propose candidates (vector search, exact neighbours of the last items, trending, fresh); what was seen
or may not be shown is dropped; features are computed, the ranker scores, the best are chosen. Positions go through in
chunks that fit a core's cache; a chunk is one search, one pass of each kernel and one tensor call.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings import candidates as sources
from embeddings.events import APPEAL, TAKES
from embeddings.ids import ids_of
from embeddings.items import Items
from embeddings.state_columns import Histories, UserStates
from ranking import features as ranking
from ranking.slate import Reason, SlateRows, compose, objective
from streams.serving.live_model import LiveModel, Serving
from streams.serving.slates import Stamps
from streams.serving.traces import Traced
from streams.settings import Settings

StageTimer = Callable[[Any], AbstractContextManager[object]]
Seen = Callable[[NDArray[np.intp], NDArray[np.uint64]], NDArray[np.bool_]]
CHUNK = 32
_GIVEN = np.zeros(1 << len(sources.Proposed), np.uint8)
_GIVEN[[sources.Proposed.trending, sources.Proposed.fresh]] = Reason.trending, Reason.fresh
"""By source bits: the reason of what nobody else proposed."""
_WEIGHT = TAKES.astype(np.float32)
"""How much an item says of its holder's taste, by the action that put it into the history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """P positions to look at, in any order.

    Attributes:
        histories: what each user held then, by item id.
        now_s_P: the moment, epoch seconds.
        context_P: context code 0..63.
        personal_P: may the profile be used? Where not, candidates are trending and fresh items only.
        serve_P: is a slate wanted?
        trace_P: is it to be told how the slate came about?
        taken_P: item id that was taken next and is to be told with its features; 0 = none.
        seen: which of item ids (R, K) the users of positions (R,) have seen by then.
        seen_P: about how much each has seen, for how far to look.
        places_P: places of each slate.
        seed: for the sampling of candidates that are told.
    """

    histories: Histories
    now_s_P: NDArray[np.int64]
    context_P: NDArray[np.int16]
    personal_P: NDArray[np.bool_]
    serve_P: NDArray[np.bool_]
    trace_P: NDArray[np.bool_]
    taken_P: NDArray[np.uint64]
    seen: Seen
    seen_P: NDArray[np.int64]
    places_P: NDArray[np.int32]
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slates:
    """Q slates of N places: item rows (-1 past the end), scores, source bits, reasons, features."""

    position_Q: NDArray[np.intp]
    row_QN: NDArray[np.int32]
    score_QN: NDArray[np.float32]
    source_QN: NDArray[np.uint8]
    reason_QN: NDArray[np.uint8]
    because_QN: NDArray[np.int32]
    x_QNF: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """E told positions, ascending: slot 0 the item taken, then sampled candidates; ids (0 = none), features, log q."""

    position_E: NDArray[np.intp]
    item_ES: NDArray[np.uint64]
    x_ESF: NDArray[np.float16]
    log_q_ES: NDArray[np.float16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What came of the positions served, under one model version; what was retrieved for them, chunk by chunk."""

    model: LiveModel
    slates: Slates
    held: "_Held"
    found: list[tuple[NDArray[np.intp], "_Found"]]
    traces: dict[int, Traced]


@dataclass(slots=True)
class Scorer:
    """Scores positions with the live model. One per thread that scores; the model and item table are shared."""

    serving: Serving
    settings: Settings

    @property
    def items(self) -> Items:
        """The item table."""
        return self.serving.items

    def tastes(self, states: UserStates, model: LiveModel) -> NDArray[np.float32]:
        """Taste vectors of U users from their histories, in the space of one model. Shape (U, D)."""
        return self._tastes(self.items.ids.rows(states.item_UH), _WEIGHT[states.action_UH], model)

    def _tastes(
        self, row_PH: NDArray[np.int32], weight_PH: NDArray[np.float32], model: LiveModel
    ) -> NDArray[np.float32]:
        return sources.taste(row_PH, weight_PH, model.source_ND, self.settings.learner.taste_decay)

    def score(self, asked: Asked, stage: StageTimer, stamps: Stamps, now_ms: Callable[[], int]) -> Scored:
        """Retrieve and rank for every position that is served; the item table is held meanwhile."""
        chunks = _chunks(asked, np.flatnonzero(asked.serve_P))
        with self.items.lock:
            model = self.serving.current() if chunks else self.serving.live
            with stage("retrieve"):
                held = self._held(asked, model)
                found = [(chunk, self._retrieve(asked, held, chunk, model)) for chunk in chunks]
                stamps.retrieved_ms = now_ms()
            with stage("rank"):
                parts = [self._rank(asked, at, f, model) for at, f in found]
                stamps.ranked_ms = now_ms()
        slates = [chosen for chosen, _ in parts]
        return Scored(
            model=model,
            slates=_joined(Slates, slates) if slates else self._no_slates(self.settings.slates.size),
            held=held,
            found=found,
            traces={at: traced for _, traces in parts for at, traced in traces.items()},
        )

    def examples(self, asked: Asked, scored: Scored) -> Examples:
        """Examples of the positions whose take is told, under the model of their slates."""
        told_P = asked.taken_P != 0
        if not told_P.any():
            return self._no_examples()
        with self.items.lock:
            self.serving.current()
            model = scored.model.fitted(self.items)  # items may have come since
            found = [(at, f) for at, f in scored.found if told_P[at].any()]
            chunks = _chunks(asked, np.flatnonzero(told_P & ~asked.serve_P))
            found += [(chunk, self._retrieve(asked, scored.held, chunk, model)) for chunk in chunks]
            examples = [self._examples(asked, at, f, model) for at, f in found]
        joined: Examples = _joined(Examples, [some for some in examples if len(some.position_E)] or examples[:1])
        return joined

    def _held(self, asked: Asked, model: LiveModel) -> "_Held":
        h, size = asked.histories, self.settings.slates.candidates
        row_PH, weight_PH = self.items.ids.rows(h.item_PH), _WEIGHT[h.action_PH]
        row_PH[~asked.personal_P] = -1
        return _Held(
            row_PH,
            weight_PH,
            self._tastes(row_PH, weight_PH, model),
            (size + np.minimum(asked.seen_P // 2, size)).astype(np.int32),
            np.maximum(self.settings.retrieval.trending, 3 * asked.places_P).astype(np.int32),
        )

    def _retrieve(self, asked: Asked, held: "_Held", at: NDArray[np.intp], model: LiveModel) -> "_Found":
        row_PH, taste_PD = held.row_PH[at], held.taste_PD[at]
        reach_P, trending_P = held.reach_P[at], held.trending_P[at]
        s, size, personal_P = self.settings.retrieval, self.settings.slates.candidates, asked.personal_P[at]
        reach = min(int(reach_P.max()), max(model.index.size, 1))
        vector_row, vector_score = model.index.search(taste_PD, reach)
        vector_row[~personal_P] = -1
        gathered = sources.gather(
            row_PH,
            held.weight_PH[at],
            (vector_row, vector_score),
            (model.neighbours_NM, model.weights_NM),
            trending_T=self.serving.trending[: trending_P.max()],
            fresh_F=self.serving.fresh[: s.fresh],
            size_P=reach_P,
            trending_P=trending_P,
            latest=s.neighbour_items,
            decay=self.settings.learner.taste_decay,
        )
        seen_PM = asked.seen(at, ids_of(gathered.row_PM, self.items.ids.ids_N))
        kept = sources.keep(gathered, seen_PM, self.serving.blocked_N, size, reserve=s.fresh)
        dropped = None
        if asked.trace_P[at].any():
            there_PM = gathered.row_PM >= 0
            blocked_PM = self.serving.blocked_N[np.maximum(gathered.row_PM, 0)]
            dropped = np.stack(
                [there_PM.sum(1), (there_PM & seen_PM).sum(1), (there_PM & blocked_PM & ~seen_PM).sum(1)]
            )
        return _Found(row_PH, taste_PD, kept.row_PM, kept.source_PM, dropped)

    def _rank(
        self, asked: Asked, at: NDArray[np.intp], found: "_Found", model: LiveModel
    ) -> tuple[Slates, dict[int, Traced]]:
        """Choose the slates of these positions."""
        item_PK = ids_of(found.row_PK, self.items.ids.ids_N).view(np.int64)
        mask_PK = found.row_PK >= 0
        x = self._features(asked, at, found, model)
        weights = self._objectives()
        outcomes = bool(weights["click"] or weights["complete"])
        total_PK = objective(model.ranker.score(x.x_PKX, item_PK, mask_PK, outcomes=outcomes), weights)
        chosen = compose(total_PK, x, _GIVEN[found.source_PK], item_PK, mask_PK, int(asked.places_P.max()))
        return _slates(at, found, x.x_PKX, chosen), _traces(asked, at, found, total_PK, x.x_PKX)

    def _features(self, asked: Asked, at: NDArray[np.intp], found: "_Found", model: LiveModel) -> ranking.Features:
        h = asked.histories
        return ranking.features(
            ranking.Histories(
                found.row_PH, APPEAL[h.action_PH[at]], h.time_PH[at], asked.now_s_P[at], asked.context_P[at]
            ),
            ranking.Candidates(
                found.row_PK, found.source_PK, ranking.dots(found.taste_PD, model.target_ND, found.row_PK)
            ),
            ranking.Neighbours(model.neighbours_NM, model.weights_NM),
            self.serving.item_rows,
            lists=max(self.settings.retrieval.neighbour_items, 1),
        )

    def _objectives(self) -> dict[str, float]:
        weights = self.settings.slates.objectives
        return {"next": weights.next_item, "click": weights.engage, "complete": weights.complete}

    def _examples(self, asked: Asked, at: NDArray[np.intp], found: "_Found", model: LiveModel) -> Examples:
        """The items taken, each with a uniform sample of the other candidates and log inclusion probabilities.

        Features are computed for these alone: nothing here has to be ranked.
        """
        taken_P = self.items.ids.rows(asked.taken_P[at])
        told_P = taken_P >= 0
        at, found, row_E = at[told_P], found.of(told_P), taken_P[told_P]
        if not len(at):
            return self._no_examples()
        match_EK = found.row_PK == row_E[:, None]
        others_EK = (found.row_PK >= 0) & ~match_EK
        wanted = min(self.settings.observe.negatives, others_EK.shape[1])
        random = np.random.default_rng((asked.seed, int(at[0])))
        draw_EK = random.random(others_EK.shape, np.float32) + ~others_EK
        slot_ES = np.sort(np.argpartition(draw_EK, wanted - 1, axis=1)[:, :wanted], axis=1)
        drawn_ES = np.take_along_axis(others_EK, slot_ES, 1)
        sample = found.at(
            np.c_[row_E, np.where(drawn_ES, np.take_along_axis(found.row_PK, slot_ES, 1), -1)].astype(np.int32),
            np.c_[(found.source_PK * match_EK).max(1), np.take_along_axis(found.source_PK, slot_ES, 1) * drawn_ES],
        )
        share_E = np.minimum(wanted / np.maximum(others_EK.sum(1), 1), 1.0)
        log_q_ES = np.repeat(np.log(share_E)[:, None], 1 + wanted, axis=1).astype(np.float16)
        log_q_ES[:, 0] = 0
        return Examples(
            position_E=at,
            item_ES=ids_of(sample.row_PK, self.items.ids.ids_N),
            x_ESF=self._features(asked, at, sample, model).x_PKX.astype(np.float16),
            log_q_ES=log_q_ES,
        )

    def _no_slates(self, size: int) -> Slates:
        return Slates(
            position_Q=np.empty(0, np.intp),
            row_QN=np.empty((0, size), np.int32),
            score_QN=np.empty((0, size), np.float32),
            source_QN=np.empty((0, size), np.uint8),
            reason_QN=np.empty((0, size), np.uint8),
            because_QN=np.empty((0, size), np.int32),
            x_QNF=np.empty((0, size, ranking.COLUMNS), np.float32),
        )

    def _no_examples(self) -> Examples:
        return Examples(
            position_E=np.empty(0, np.intp),
            item_ES=np.empty((0, 1), np.uint64),
            x_ESF=np.empty((0, 1, ranking.COLUMNS), np.float16),
            log_q_ES=np.empty((0, 1), np.float16),
        )


class _Held(NamedTuple):
    """What is held at each of P positions, and how far to look for them: in the vector search, in what is trending.

    The vector search gives as many as are wanted and half of what was seen: on ML-100K twice that finds nothing better.
    """

    row_PH: NDArray[np.int32]
    weight_PH: NDArray[np.float32]
    taste_PD: NDArray[np.float32]
    reach_P: NDArray[np.int32]
    trending_P: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class _Found:
    """What was retrieved for P positions."""

    row_PH: NDArray[np.int32]
    taste_PD: NDArray[np.float32]
    row_PK: NDArray[np.int32]
    source_PK: NDArray[np.uint8]
    dropped_3P: NDArray[np.int64] | None

    def of(self, some_P: NDArray[np.bool_]) -> "_Found":
        """Some of the positions."""
        if some_P.all():
            return self
        dropped_3P = None if self.dropped_3P is None else self.dropped_3P[:, some_P]
        return _Found(
            self.row_PH[some_P], self.taste_PD[some_P], self.row_PK[some_P], self.source_PK[some_P], dropped_3P
        )

    def at(self, row_PK: NDArray[np.int32], source_PK: NDArray[np.uint8]) -> "_Found":
        """The same positions with other candidates."""
        return replace(self, row_PK=row_PK, source_PK=source_PK)


def _chunks(asked: Asked, at: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Positions in the order of how far must be looked for them: a search looks as far for all of a chunk."""
    if len(at) > CHUNK:
        at = at[np.argsort(asked.seen_P[at], kind="stable")]
    return [at[n : n + CHUNK] for n in range(0, len(at), CHUNK)]


def _slates(at: NDArray[np.intp], found: _Found, x_PKX: NDArray[np.float32], chosen: SlateRows) -> Slates:
    here_QN, row_Q1 = np.maximum(chosen.index_PN, 0), np.arange(len(at))[:, None]
    told_QN = (chosen.reason_PN == Reason.similar_to_recent) & (chosen.because_PN >= 0)
    return Slates(
        position_Q=at,
        row_QN=np.where(chosen.index_PN >= 0, found.row_PK[row_Q1, here_QN], -1).astype(np.int32),
        score_QN=chosen.score_PN,
        source_QN=found.source_PK[row_Q1, here_QN],
        reason_QN=chosen.reason_PN,
        because_QN=np.where(told_QN, found.row_PH[row_Q1, np.maximum(chosen.because_PN, 0)], -1).astype(np.int32),
        x_QNF=x_PKX[row_Q1, here_QN],
    )


def _traces(
    asked: Asked,
    at: NDArray[np.intp],
    found: _Found,
    score_PK: NDArray[np.float32],
    x_PKX: NDArray[np.float32],
) -> dict[int, Traced]:
    if found.dropped_3P is None:
        return {}
    return {
        int(at[p]): Traced(
            proposed=int(found.dropped_3P[0, p]),
            seen=int(found.dropped_3P[1, p]),
            blocked=int(found.dropped_3P[2, p]),
            row_K=found.row_PK[p],
            source_K=found.source_PK[p],
            score_K=score_PK[p],
            x_KF=x_PKX[p],
        )
        for p in np.flatnonzero(asked.trace_P[at]).tolist()
    }


def _joined(kind: type[Any], parts: list[Any]) -> Any:
    """The parts as one, in the order of positions, which is their first column."""
    if len(parts) == 1 and (np.diff(getattr(parts[0], kind.__slots__[0])) > 0).all():
        return parts[0]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in kind.__slots__}
    order = np.argsort(columns[kind.__slots__[0]])
    return kind(**{name: column[order] for name, column in columns.items()})
