"""What a batch teaches, taken down before the states are stored: one `Observation` per input partition."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from embeddings.events import Fate, Source
from embeddings.fold import Folded
from streams.contract.decode import Decoded
from streams.contract.observations import NO_SLOT, Observation
from streams.serving.planning import Plan
from streams.serving.slates import PublishedSlate
from streams.serving.values import Asked, Examples, Kind, Scored
from streams.serving.viewers import context_keys


def observe(
    decoded: Decoded,
    folded: Folded,
    plan: Plan,
    asked: Asked,
    scored: Scored,
    examples: Examples,
    slates: Sequence[PublishedSlate],
    shown_rate: float,
    logs: Mapping[Source, str] | None = None,
) -> Iterator[Observation]:
    """Each partition's applied rows, its takes with the items held before, examples for the ranker, slates shown.

    `slates` stand in the order of `plan.serve_Q`; those that were sampled, `shown_rate` of them, carry the features of
    their items.
    `logs` names the logs of the partitions, where that is known.
    """
    batch = decoded.batch
    applied_B = folded.fate_B == Fate.applied
    user_U = np.array([xxhash.xxh64_intdigest(user.encode()) for user in batch.user_ids], np.uint64)
    policy_P = np.array([policy.hash for policy in asked.policies], np.uint32)
    sampled_Q, places = np.array([slate.sampled for slate in slates], np.bool_), scored.slates.x_QNF.shape[1:]
    for s, source in enumerate(batch.sources):
        row_R = np.flatnonzero((batch.source_B == s) & applied_B)
        if not len(row_R):
            continue
        mine_T = np.flatnonzero(batch.source_B[plan.take_T] == s)
        take_T = np.searchsorted(row_R, plan.take_T[mine_T]).astype(np.int32)
        at_T = plan.take_at[mine_T]
        told_T, example_E = _told(at_T, examples)
        shown = [slates[q] for q in np.flatnonzero((batch.source_B[plan.serve_Q] == s) & sampled_Q).tolist()]
        yield Observation(
            source=source,
            log=(logs or {}).get(source, ""),
            first=int(batch.offset_B[row_R[0]]),
            last=int(batch.offset_B[row_R[-1]]),
            names={i: decoded.names[i] for i in set(batch.item_B[row_R].tolist()) if i in decoded.names},
            offset_R=batch.offset_B[row_R],
            user_R=user_U[batch.user_B[row_R]],
            item_R=batch.item_B[row_R],
            action_R=batch.action_B[row_R],
            value_R=batch.value_B[row_R],
            time_s_R=batch.time_s_B[row_R],
            consent_R=batch.consent_B[row_R],
            slate_R=_slates_named(decoded, row_R),
            slot_R=_slots_named(decoded, row_R),
            kind_R=np.full(len(row_R), Kind.content, np.uint8),
            context_RC=context_keys([decoded.events[r].context for r in row_R.tolist()], batch.time_s_B[row_R]),
            take_T=take_T,
            history_TH=plan.histories.item_PH[at_T],
            history_action_TH=plan.histories.action_PH[at_T],
            history_time_s_TH=plan.histories.time_PH[at_T],
            example_E=take_T[told_T],
            example_item_ES=examples.item_ES[example_E],
            example_x_ESF=examples.x_ESF[example_E],
            log_q_ES=examples.log_q_ES[example_E],
            moment_E=asked.told.moment_P[examples.position_E[example_E]],
            policy_E=policy_P[examples.position_E[example_E]],
            rate_E=np.full(len(example_E), asked.told.rate, np.float32),
            shown_L=np.array([slate_hash(slate.slate_id) for slate in shown], np.uint64),
            shown_item_LN=np.array([slate.item_N for slate in shown], np.uint64).reshape(-1, *places[:1]),
            shown_x_LNF=np.array([slate.x_NF for slate in shown], np.float16).reshape(-1, *places),
            shown_propensity_LN=np.array([slate.propensity_N for slate in shown], np.float16).reshape(-1, *places[:1]),
            policy_L=np.array([slate.trigger.policy.hash for slate in shown], np.uint32),
            rate_L=np.full(len(shown), shown_rate, np.float32),
        )


def _told(take_at: NDArray[np.intp], examples: Examples) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which takes at these positions have an example, and where it is."""
    example_T = np.searchsorted(examples.position_E, take_at)
    told_T = np.flatnonzero(np.append(examples.position_E, -1)[example_T] == take_at)
    return told_T, example_T[told_T]


def slate_hash(slate_id: str) -> int:
    """What a slate is called in observations."""
    return xxhash.xxh64_intdigest(slate_id.encode())


def _slates_named(decoded: Decoded, rows: NDArray[np.intp]) -> NDArray[np.uint64]:
    """The slate that each event names, or the decision, where it is of an ad."""
    events = [decoded.events[r] for r in rows.tolist()]
    named = [event.decision_id or event.slate_id for event in events]
    return np.array([slate_hash(name) if name else 0 for name in named], np.uint64)


def _slots_named(decoded: Decoded, rows: NDArray[np.intp]) -> NDArray[np.int16]:
    """Which place of a slate each event names; one that no slate has is none."""
    named = [decoded.events[r].slot for r in rows.tolist()]
    return np.array([slot if slot is not None and 0 <= slot < 2**15 else NO_SLOT for slot in named], np.int16)
