"""What a batch teaches, taken down before the states are stored: one `Observation` per input partition."""

from collections.abc import Iterator, Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from embeddings.events import Fate
from embeddings.fold import Folded
from streams.contract.decode import Decoded
from streams.contract.observations import Observation
from streams.serving.planning import Plan
from streams.serving.scoring import Examples, Scored
from streams.serving.slates import PublishedSlate


def observe(
    decoded: Decoded,
    folded: Folded,
    plan: Plan,
    scored: Scored,
    examples: Examples,
    slates: Sequence[PublishedSlate],
) -> Iterator[Observation]:
    """Each partition's applied rows, its takes with the items held before, examples for the ranker, slates shown.

    `slates` stand in the order of `plan.serve_Q`; those that were sampled carry the features of their items.
    """
    batch = decoded.batch
    applied_B = folded.fate_B == Fate.applied
    user_U = np.array([xxhash.xxh64_intdigest(user.encode()) for user in batch.user_ids], np.uint64)
    position_E = examples.position_E
    sampled_Q = np.array([slate.sampled for slate in slates], np.bool_)
    for s, source in enumerate(batch.sources):
        row_R = np.flatnonzero((batch.source_B == s) & applied_B)
        if not len(row_R):
            continue
        mine_T = np.flatnonzero(batch.source_B[plan.take_T] == s)
        row_T = np.searchsorted(row_R, plan.take_T[mine_T]).astype(np.int32)
        at_T = np.searchsorted(position_E, plan.take_at[mine_T])
        told_T = np.flatnonzero((at_T < len(position_E)) & (np.append(position_E, -1)[at_T] == plan.take_at[mine_T]))
        example_E = at_T[told_T]
        shown_L = np.flatnonzero((batch.source_B[plan.serve_Q] == s) & sampled_Q)
        yield Observation(
            source=source,
            first=int(batch.offset_B[row_R[0]]),
            last=int(batch.offset_B[row_R[-1]]),
            model_version=scored.model.version,
            names={i: decoded.names[i] for i in set(batch.item_B[row_R].tolist()) if i in decoded.names},
            offset_R=batch.offset_B[row_R],
            user_R=user_U[batch.user_B[row_R]],
            item_R=batch.item_B[row_R],
            action_R=batch.action_B[row_R],
            value_R=batch.value_B[row_R],
            time_s_R=batch.time_s_B[row_R],
            consent_R=batch.consent_B[row_R],
            slate_R=_slates_named(decoded, row_R),
            take_T=row_T,
            history_TH=plan.histories.item_PH[plan.take_at[mine_T]],
            example_E=row_T[told_T],
            example_item_ES=examples.item_ES[example_E],
            example_x_ESF=examples.x_ESF[example_E],
            log_q_ES=examples.log_q_ES[example_E],
            shown_L=np.array([slate_hash(slates[q].slate_id) for q in shown_L.tolist()], np.uint64),
            shown_item_LN=np.array([slates[q].item_N for q in shown_L.tolist()], np.uint64).reshape(
                -1, scored.slates.row_QN.shape[1]
            ),
            shown_x_LNF=scored.slates.x_QNF[[slates[q].at for q in shown_L.tolist()]].astype(np.float16),
        )


def slate_hash(slate_id: str) -> int:
    """What a slate is called in observations."""
    return xxhash.xxh64_intdigest(slate_id.encode())


def _slates_named(decoded: Decoded, rows: NDArray[np.intp]) -> NDArray[np.uint64]:
    named = [decoded.events[r].slate_id for r in rows.tolist()]
    return np.array([slate_hash(slate) if slate else 0 for slate in named], np.uint64)
