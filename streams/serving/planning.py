"""Which moments of a batch are looked at: those that get a slate, and those whose next take is told to the learner."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from embeddings.contexts import KEYS
from embeddings.eligibility import Viewer
from embeddings.events import CONSENT_CONTENT, Fate
from embeddings.fatigue import Impressions
from embeddings.fold import Folded
from embeddings.jit import kernel
from embeddings.lessons import TEACHES, Lesson, lessons
from embeddings.state_columns import Histories
from embeddings.store import Loaded
from streams.contract.decode import Decoded
from streams.contract.messages import Part
from streams.contract.observations import AT_EVENT, AT_TAKE
from streams.serving.draws import GOLDEN, chances, seeds, uniform
from streams.serving.policies import Policy
from streams.serving.slates import Trigger
from streams.serving.traces import is_traced
from streams.serving.values import Asked, Told
from streams.serving.viewers import context_code, context_keys, viewer_of
from streams.settings import Settings

T = TypeVar("T", bound=np.generic)
_APPLIED, _REPLAYED = int(Fate.applied), int(Fate.replayed)


@dataclass(frozen=True, slots=True)
class Plan:
    """Which moments of a batch are looked at.

    Attributes:
        serve_Q: rows that get a slate, from the position after them.
        take_T: rows that teach something beside what was held (`embeddings.lessons`), told from the position before.
        new_T: which of them took an item that was not held: those may be told with candidates.
        position_P: the distinct positions of both, ascending.
        serve_at: where in `position_P` each slate's position is; `take_at` likewise.
        user_P: whose positions they are.
        histories: what the users held at `position_P`.
    """

    serve_Q: NDArray[np.int32]
    take_T: NDArray[np.int32]
    new_T: NDArray[np.bool_]
    position_P: NDArray[np.int32]
    serve_at: NDArray[np.intp]
    take_at: NDArray[np.intp]
    user_P: NDArray[np.int32]
    histories: Histories


class Chosen(NamedTuple):
    """Which of T takes are told with candidates, and the share of takes that was."""

    told_T: NDArray[np.bool_]
    rate: float


@dataclass(slots=True)
class ExampleBudget:
    """How many takes may be told with candidates.

    All of them while the ranker is not taught and `first` lasts, so that it is soon; then what fills up with time.
    """

    per_s: float
    rate: float
    """The largest share of takes."""
    first: float = 0
    """So many more may be told while the ranker is not taught."""
    _left: float = field(init=False, default=0.0)
    _filled_ms: int = field(init=False, default=0)

    def spend(self, offset_T: NDArray[np.int64], now_ms: int, *, taught: bool = True) -> Chosen:
        """Which of T takes are told: chosen by offset, as many as there may be now."""
        passed_ms = max(now_ms - self._filled_ms, 0)  # a clock may be set back
        self._left = min(self.per_s, self._left + passed_ms * self.per_s / 1000)
        self._filled_ms = now_ms
        most = max(self._left, 0 if taught else self.first, 0)
        rate = min(self.rate, most / max(len(offset_T), 1))
        told_T: NDArray[np.bool_] = (offset_T.astype(np.uint64) * GOLDEN >> np.uint64(40)) < rate * 2**24
        told = float(told_T.sum())
        beyond = 0 if taught else min(max(told - max(self._left, 0), 0), self.first)
        self.first, self._left = self.first - beyond, self._left - (told - beyond)
        return Chosen(told_T, rate)


def plan_of(
    decoded: Decoded, folded: Folded, parts: Sequence[Part], settings: Settings, *, now_ms: int, foresee: bool
) -> Plan:
    """Which rows are answered and which are told.

    A row is answered when it was applied, now or by an attempt that died before its slate was acknowledged, was not
    committed before, and is young enough for anybody to be waiting. With `foresee` it is answered from the position
    before it.
    """
    batch, slates = decoded.batch, settings.slates
    committed_S = np.array([part.committed for part in parts], np.int64)
    live_B = (folded.fate_B == _APPLIED) | (folded.fate_B == _REPLAYED)
    live_B &= batch.offset_B >= committed_S[batch.source_B]
    live_B &= decoded.published_ms_B >= now_ms - slates.max_age_s * 1000
    each, last = slates.per_event == "all", slates.per_event == "coalesced"
    serve_Q, take_T, serve_at, take_at, position_P, user_P = _positions(
        folded.fate_B, live_B, batch.user_B, batch.action_B, batch.item_B, folded.before_B, folded.final_U,
        each, last, settings.observe.enabled, not foresee,
    )  # fmt: skip
    histories = folded.histories(position_P, user_P)
    done = batch.item_B[take_T], batch.action_B[take_T], batch.time_s_B[take_T]
    lesson_T, held_T = lessons(done, (histories.item_PH, histories.action_PH, histories.time_PH), take_at)
    told_T = lesson_T != 0
    new_T = (lesson_T & Lesson.take != 0) & (held_T < 0)
    return Plan(serve_Q, take_T[told_T], new_T[told_T], position_P, serve_at, take_at[told_T], user_P, histories)


def triggers_of(decoded: Decoded, plan: Plan, surface: str, policy: Policy) -> list[Trigger]:
    """What the slates of a plan answer: nobody asked for them, so all are for one surface."""
    batch = decoded.batch
    return [
        Trigger(
            user_id=batch.user_ids[batch.user_B[r]],
            source=batch.sources[batch.source_B[r]],
            offset=int(batch.offset_B[r]),
            event_ms=decoded.events[r].event_time,
            published_ms=int(decoded.published_ms_B[r]),
            viewer=policy.viewer(viewer_of(decoded.events[r].context, surface)),
            policy=policy,
            size=policy.size,
            headers=decoded.records[r].headers,
        )
        for r in plan.serve_Q.tolist()
    ]


def asked_of(
    decoded: Decoded,
    folded: Folded,
    loaded: Loaded,
    impressions: Impressions,
    plan: Plan,
    chosen: Chosen,
    triggers: Sequence[Trigger],
    policy: Policy,
    settings: Settings,
    *,
    foresee: bool,
) -> Asked:
    """What is asked at the positions of a plan; of its takes only those `chosen` are told with candidates."""
    user_P, position_P, histories = plan.user_P, plan.position_P, plan.histories
    personal_P = (folded.states.consent_U[user_P] & CONSENT_CONTENT) != 0
    take_at, take_T = plan.take_at[chosen.told_T], plan.take_T[chosen.told_T]
    told = _told(decoded, plan, take_at, take_T, chosen, settings)
    now_s_P, context_P, key_PC = _moments(decoded, plan, told, take_at, take_T, foresee)
    viewers = _viewers(decoded, plan, take_at, take_T, triggers, settings.slates.surface, policy)
    unanswered = impressions.at(position_P, user_P)
    chance_Q = chances((trigger.slate_id for trigger in triggers), settings.seed)
    traced_Q = np.array([is_traced(trigger.slate_id, settings.slates.trace_rate) for trigger in triggers], np.bool_)

    def seen(at: NDArray[np.intp], item_PK: NDArray[np.uint64]) -> NDArray[np.bool_]:
        hit_PK = loaded.seen.hits(user_P[at], histories.item_PH[at], item_PK, folded.evicted, position_P[at])
        hit_PK &= personal_P[at, None] & (not policy.repeats)
        return hit_PK

    return Asked(
        histories=histories,
        now_s_P=now_s_P,
        context_P=context_P,
        key_PC=key_PC,
        viewers=viewers,
        policies=[policy] * len(position_P),
        personal_P=personal_P,
        serve_P=_put(len(position_P), plan.serve_at, np.ones(len(plan.serve_at), np.bool_)),
        trace_P=_put(len(position_P), plan.serve_at, traced_Q),
        chance_P=_put(len(position_P), plan.serve_at, chance_Q),
        told=told,
        seen=seen,
        seen_P=(loaded.seen.sizes(user_P, folded.evicted, position_P) + histories.count_P) * (not policy.repeats),
        shown=unanswered.shown(now_s_P, settings.slates.fatigue_half_life_s, personal_P),
        places_P=np.full(len(position_P), policy.size, np.int32),
    )


def _told(
    decoded: Decoded,
    plan: Plan,
    take_at: NDArray[np.intp],
    take_T: NDArray[np.int32],
    chosen: Chosen,
    settings: Settings,
) -> Told:
    """Each take seen from its own moment, as a request would have asked, or from that of the event before it.

    The context is that of the take: where the event before happened is known no more.
    """
    batch, last_s_T, positions = decoded.batch, plan.histories.last_s_P[take_at], len(plan.position_P)
    draw_T = seeds(batch.sources, batch.source_B[take_T], batch.offset_B[take_T], settings.seed)
    at_event_T = (uniform(~draw_T, 1)[:, 0] < settings.observe.at_event) & (last_s_T > 0)
    now_s_T = np.where(at_event_T, last_s_T, np.maximum(batch.time_s_B[take_T], last_s_T))
    context_T = np.array([context_code(decoded.events[r].context) for r in take_T.tolist()], np.int16)
    return Told(
        taken_P=_put(positions, take_at, batch.item_B[take_T]),
        now_s_P=_put(positions, take_at, now_s_T),
        context_P=_put(positions, take_at, context_T),
        moment_P=_put(positions, take_at, np.where(at_event_T, AT_EVENT, AT_TAKE).astype(np.uint8)),
        draw_P=_put(positions, take_at, draw_T),
        rate=chosen.rate,
    )


def _moments(
    decoded: Decoded, plan: Plan, told: Told, take_at: NDArray[np.intp], take_T: NDArray[np.int32], foresee: bool
) -> tuple[NDArray[np.int64], NDArray[np.int16], NDArray[np.uint16]]:
    """The second and the context in which each position is looked at: a slate's where there is one, else as it is told.

    A slate is written at the event before its position and knows nothing of the next; with `foresee` it is asked for
    at the time of the event that it foresees.
    """
    now_s_P, context_P = told.now_s_P.copy(), told.context_P.copy()
    key_PC = np.zeros((len(plan.position_P), KEYS), np.uint16)
    at, rows, last_s_P = plan.serve_at, plan.serve_Q, plan.histories.last_s_P
    now_s_P[at] = np.maximum(decoded.batch.time_s_B[rows], last_s_P[at]) if foresee else last_s_P[at]
    contexts = [decoded.events[r].context for r in rows.tolist()]
    context_P[at] = [context_code(context) for context in contexts]
    key_PC[take_at] = context_keys([decoded.events[r].context for r in take_T.tolist()], now_s_P[take_at])
    key_PC[at] = context_keys(contexts, now_s_P[at])
    return now_s_P, context_P, key_PC


def _viewers(
    decoded: Decoded,
    plan: Plan,
    take_at: NDArray[np.intp],
    take_T: NDArray[np.int32],
    triggers: Sequence[Trigger],
    surface: str,
    policy: Policy,
) -> list[Viewer]:
    """Who looks at each position: whoever a slate is for, else whoever took something."""
    viewers = [Viewer(surface=surface)] * len(plan.position_P)
    for at, r in zip(take_at.tolist(), take_T.tolist(), strict=True):
        viewers[at] = policy.viewer(viewer_of(decoded.events[r].context, surface))
    for at, trigger in zip(plan.serve_at.tolist(), triggers, strict=True):
        viewers[at] = trigger.viewer
    return viewers


def _put(positions: int, at: NDArray[np.intp], values: NDArray[T]) -> NDArray[T]:
    """Values in their places, zeros elsewhere. Shape (P,)."""
    out_P = np.zeros(positions, values.dtype)
    out_P[at] = values
    return out_P


@kernel
def _positions(
    fate_B: NDArray[np.uint8],
    live_B: NDArray[np.bool_],
    user_B: NDArray[np.int32],
    action_B: NDArray[np.uint8],
    item_B: NDArray[np.uint64],
    before_B: NDArray[np.int32],
    final_U: NDArray[np.int32],
    each: bool,
    last: bool,
    observed: bool,
    after: bool,
) -> tuple[
    NDArray[np.int32], NDArray[np.int32], NDArray[np.intp], NDArray[np.intp], NDArray[np.int32], NDArray[np.int32]
]:
    """Rows served and rows that may teach something, and the distinct positions of both with their users."""
    rows, users = len(fate_B), len(final_U)
    last_U = np.full(users, -1, np.int32)
    for r in range(rows):
        if live_B[r]:
            last_U[user_B[r]] = r
    serve_Q, take_T = np.empty(rows, np.int32), np.empty(rows, np.int32)
    served = took = 0
    slot_P = np.full(rows + users, -1, np.int32)
    for r in range(rows):
        if live_B[r] and (each or (last and last_U[user_B[r]] == r)):
            serve_Q[served] = r
            served += 1
            slot_P[before_B[r] + int(after)] = 0
        if observed and fate_B[r] == _APPLIED and action_B[r] < 16 and item_B[r] != 0 and TEACHES[action_B[r]]:
            take_T[took] = r
            took += 1
            slot_P[before_B[r]] = 0
    position_P, user_P = np.empty(len(slot_P), np.int32), np.empty(len(slot_P), np.int32)
    held, u = 0, 0
    for at in range(len(slot_P)):
        while final_U[u] < at:
            u += 1
        if slot_P[at] == 0:
            slot_P[at] = held
            position_P[held], user_P[held] = at, u
            held += 1
    serve_at, take_at = np.empty(served, np.intp), np.empty(took, np.intp)
    for q in range(served):
        serve_at[q] = slot_P[before_B[serve_Q[q]] + int(after)]
    for t in range(took):
        take_at[t] = slot_P[before_B[take_T[t]]]
    return serve_Q[:served], take_T[:took], serve_at, take_at, position_P[:held], user_P[:held]
