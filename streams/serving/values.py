"""What passes between the stages of serving, as columns.

`Asked` → `Query` → `Candidates` (`Found`) → `Ranked` → `Slates`; beside them `Examples` for the learner and `Traced`
for whoever wants to know how a slate came about. P positions, H items of history, K candidates, F features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from embeddings.eligibility import Viewer
from embeddings.fatigue import Shown
from embeddings.state_columns import Histories
from embeddings.turnover import Era
from ranking.features import COLUMNS, Features
from streams.serving.live_model import LiveModel
from streams.serving.policies import Policy

Seen = Callable[[NDArray[np.intp], NDArray[np.uint64]], NDArray[np.bool_]]
T = TypeVar("T")


class Kind(IntEnum):
    """What a candidate is."""

    content = 0
    ad = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What was taken after each of P positions, as the learner is told it: seen from one moment.

    Attributes:
        taken_P: item id; 0 = nothing, or it is not told.
        now_s_P: the moment, epoch seconds; `context_P` the context code then.
        moment_P: which it is, `observations.AT_TAKE` or `AT_EVENT`.
        draw_P: what the sample of candidates is drawn by, another one for every event.
        rate: the share of takes that are told.
    """

    taken_P: NDArray[np.uint64]
    now_s_P: NDArray[np.int64]
    context_P: NDArray[np.int16]
    moment_P: NDArray[np.uint8]
    draw_P: NDArray[np.uint64]
    rate: float = 1.0

    @classmethod
    def nothing(cls, positions: int) -> Self:
        """Of these positions nothing is told."""
        none_P = np.zeros(positions, np.uint64)
        return cls(
            taken_P=none_P,
            now_s_P=none_P.astype(np.int64),
            context_P=none_P.astype(np.int16),
            moment_P=none_P.astype(np.uint8),
            draw_P=none_P,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """P positions to look at, in any order.

    Attributes:
        histories: what each user held then, by item id.
        now_s_P: the moment, epoch seconds.
        context_P: context code 0..63.
        key_PC: keys of `embeddings.contexts`, 0 where a word is not said.
        viewers: P of them, who may not be shown everything.
        policies: P of them, what each is served by.
        personal_P: may the profile be used? Where not, candidates are trending and fresh items only.
        serve_P: is a slate wanted?
        trace_P: is it to be told how the slate came about?
        chance_P: what the places of the slate are drawn by, where chance fills some.
        told: what was taken next, where that is to be told with its features.
        seen: which of item ids (R, K) the users of positions (R,) have seen by then.
        seen_P: about how much each has seen, for how far to look.
        shown: what each was shown without an answer, where the profile may be used.
        places_P: places of each slate.
    """

    histories: Histories
    now_s_P: NDArray[np.int64]
    context_P: NDArray[np.int16]
    key_PC: NDArray[np.uint16]
    viewers: Sequence[Viewer]
    policies: Sequence[Policy]
    personal_P: NDArray[np.bool_]
    serve_P: NDArray[np.bool_]
    trace_P: NDArray[np.bool_]
    chance_P: NDArray[np.uint64]
    told: Told
    seen: Seen
    seen_P: NDArray[np.int64]
    shown: Shown
    places_P: NDArray[np.int32]


class Query(NamedTuple):
    """What is looked for at P positions, however it was made of what is known of them.

    Attributes:
        position_P: places in `Asked`.
        row_PH: item rows held, latest first, -1 where none is or none may be used.
        weight_PH: how much each says of taste.
        taste_PD: the vector to search near.
        tasteful_P: is there one? Who has wanted nothing that is known gets what is popular.
        key_PC: the keys of its context.
        begun_PH: `row_PH` where the item was begun and not finished, else -1; no columns where no policy asks for it.
        personal_P: may the profile be used?
        reach_P: how many to look for by score.
        trending_P: how many to look for in what is trending.
    """

    position_P: NDArray[np.intp]
    row_PH: NDArray[np.int32]
    weight_PH: NDArray[np.float32]
    taste_PD: NDArray[np.float32]
    tasteful_P: NDArray[np.bool_]
    key_PC: NDArray[np.uint16]
    begun_PH: NDArray[np.int32]
    personal_P: NDArray[np.bool_]
    reach_P: NDArray[np.int32]
    trending_P: NDArray[np.int32]

    def at(self, at: NDArray[np.intp]) -> "Query":
        """Some of the positions."""
        return Query._make(column[at] for column in self)


class Candidates(NamedTuple):
    """K candidates for each of P positions, best first: what they are, which one, and who proposed it.

    Attributes:
        kind_PK: `Kind`.
        row_PK: row in the table of its kind, -1 where there is none.
        source_PK: `embeddings.candidates.Proposed` bits.
    """

    kind_PK: NDArray[np.uint8]
    row_PK: NDArray[np.int32]
    source_PK: NDArray[np.uint8]

    @classmethod
    def content(cls, row_PK: NDArray[np.int32], source_PK: NDArray[np.uint8]) -> "Candidates":
        """Items, all of them."""
        return cls(np.broadcast_to(np.uint8(Kind.content), row_PK.shape), row_PK, source_PK)


class Dropped(NamedTuple):
    """How many candidates each of P positions had, and how many of them were seen before or blocked for all."""

    proposed_P: NDArray[np.int64]
    seen_P: NDArray[np.int64]
    blocked_P: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Found:
    """What was looked for at P positions of one policy and what remained of it; what did not, where that is traced."""

    query: Query
    policy: Policy
    candidates: Candidates
    dropped: Dropped | None = None

    def at(self, some_P: NDArray[np.bool_]) -> "Found":
        """Some of the positions."""
        if some_P.all():
            return self
        at = np.flatnonzero(some_P)
        dropped = None if self.dropped is None else Dropped._make(column[at] for column in self.dropped)
        return Found(self.query.at(at), self.policy, Candidates._make(c[at] for c in self.candidates), dropped)


class Ranked(NamedTuple):
    """What the candidates of P positions are called, what the ranker saw of them, and what was made of it.

    `shown_PK`: how often each was shown without an answer, None where nothing was or it makes no difference.
    """

    item_PK: NDArray[np.int64]
    features: Features
    score_PK: NDArray[np.float32]
    shown_PK: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slates:
    """Q slates of N places: kinds, rows (-1 past the end), scores, source bits, reasons, features.

    `propensity_QN` is with which probability the item stands in its place (0 past the end, 1 where nothing was drawn),
    `explored_QN` where chance put another than ranking had.
    What a reason names: `because_QN` the row of a held item, `category_QN` a category's code, -1 where it names none;
    `there_QN` whether what is said holds for the viewer's country.
    """

    position_Q: NDArray[np.intp]
    kind_QN: NDArray[np.uint8]
    row_QN: NDArray[np.int32]
    score_QN: NDArray[np.float32]
    source_QN: NDArray[np.uint8]
    reason_QN: NDArray[np.uint8]
    because_QN: NDArray[np.int32]
    category_QN: NDArray[np.int16]
    there_QN: NDArray[np.bool_]
    propensity_QN: NDArray[np.float64]
    explored_QN: NDArray[np.bool_]
    x_QNF: NDArray[np.float32]

    @classmethod
    def none(cls, size: int) -> Self:
        """No slates, of `size` places."""
        return cls(
            position_Q=np.empty(0, np.intp),
            kind_QN=np.empty((0, size), np.uint8),
            row_QN=np.empty((0, size), np.int32),
            score_QN=np.empty((0, size), np.float32),
            source_QN=np.empty((0, size), np.uint8),
            reason_QN=np.empty((0, size), np.uint8),
            because_QN=np.empty((0, size), np.int32),
            category_QN=np.empty((0, size), np.int16),
            there_QN=np.empty((0, size), np.bool_),
            propensity_QN=np.empty((0, size)),
            explored_QN=np.empty((0, size), np.bool_),
            x_QNF=np.empty((0, size, COLUMNS), np.float32),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """E told positions, ascending: slot 0 the item taken, then sampled candidates; ids (0 = none), features, log q."""

    position_E: NDArray[np.intp]
    item_ES: NDArray[np.uint64]
    x_ESF: NDArray[np.float16]
    log_q_ES: NDArray[np.float16]

    @classmethod
    def none(cls) -> Self:
        """No examples."""
        return cls(
            position_E=np.empty(0, np.intp),
            item_ES=np.empty((0, 1), np.uint64),
            x_ESF=np.empty((0, 1, COLUMNS), np.float16),
            log_q_ES=np.empty((0, 1), np.float16),
        )


@dataclass(frozen=True, slots=True)
class Traced:
    """What is kept of one traced position: K candidates with source bits, scores and features, and what was dropped."""

    proposed: int
    seen: int
    blocked: int
    row_K: NDArray[np.int32]
    source_K: NDArray[np.uint8]
    score_K: NDArray[np.float32]
    x_KF: NDArray[np.float32]
    shown_K: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What came of the positions served, under one model version; what was found for them, chunk by chunk.

    Its rows are those of the items found as long as it lives: it keeps `era` (`embeddings.turnover`).
    """

    model: LiveModel
    era: Era | None
    slates: Slates
    query: Query
    found: list[Found]
    traces: dict[int, Traced]


def joined(parts: Sequence[T]) -> T:
    """Parts of a batch as one, in the order of positions, which is their first column."""
    names = [field.name for field in fields(parts[0])]  # type: ignore[arg-type]
    if len(parts) == 1 and (np.diff(getattr(parts[0], names[0])) > 0).all():
        return parts[0]
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    order = np.argsort(columns[names[0]])
    return type(parts[0])(**{name: column[order] for name, column in columns.items()})
