"""What answers to requests teach: observations without rows, of the slates shown, for labels from impressions."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from embeddings.events import Source
from ranking.features import COLUMNS
from streams.contract.observations import Observation
from streams.serving.observation_writer import slate_hash
from streams.serving.slates import PublishedSlate

T = TypeVar("T", bound=np.generic)


def observe_shown(slates: Sequence[PublishedSlate], rate: float) -> Iterator[Observation]:
    """The sampled ones of some slates, `rate` of them, by the partition of the requests that they answer.

    A request changes nothing, so there are no rows; one that is answered again is told again, under the same name.
    """
    sampled = [slate for slate in slates if slate.sampled]
    for source in dict.fromkeys(slate.trigger.source for slate in sampled):
        yield _observation(source, [slate for slate in sampled if slate.trigger.source == source], rate)


def _observation(source: Source, shown: Sequence[PublishedSlate], rate: float) -> Observation:
    offsets = [slate.trigger.offset for slate in shown]
    places = max(min(slate.trigger.size, len(slate.item_N)) for slate in shown)
    item_LN = np.stack([slate.item_N[:places] for slate in shown])
    beyond_LN = np.arange(places) >= np.array([slate.trigger.size for slate in shown])[:, None]
    item_LN[beyond_LN] = 0  # others asked for more
    return Observation(
        source=source,
        first=min(offsets),
        last=max(offsets),
        offset_R=_none(np.int64),
        user_R=_none(np.uint64),
        item_R=_none(np.uint64),
        action_R=_none(np.uint8),
        value_R=_none(np.float32),
        time_s_R=_none(np.int64),
        consent_R=_none(np.uint8),
        slate_R=_none(np.uint64),
        slot_R=_none(np.int16),
        kind_R=_none(np.uint8),
        context_RC=_none(np.uint16, 0),
        take_T=_none(np.int32),
        history_TH=_none(np.uint64, 0),
        history_action_TH=_none(np.uint8, 0),
        history_time_s_TH=_none(np.int64, 0),
        example_E=_none(np.int32),
        example_item_ES=_none(np.uint64, 1),
        example_x_ESF=_none(np.float16, 1, COLUMNS),
        log_q_ES=_none(np.float16, 1),
        moment_E=_none(np.uint8),
        policy_E=_none(np.uint32),
        rate_E=_none(np.float32),
        shown_L=np.array([slate_hash(slate.slate_id) for slate in shown], np.uint64),
        shown_item_LN=item_LN,
        shown_x_LNF=np.stack([slate.x_NF[:places] for slate in shown]).astype(np.float16),
        shown_propensity_LN=(item_LN != 0).astype(np.float16),
        policy_L=np.array([slate.trigger.policy.hash for slate in shown], np.uint32),
        rate_L=np.full(len(shown), rate, np.float32),
    )


def _none(kind: type[T], *shape: int) -> NDArray[T]:
    return np.zeros((0, *shape), kind)
