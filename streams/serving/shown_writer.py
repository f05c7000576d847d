"""What answers to requests teach: observations without rows, of the slates shown, for labels from impressions."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from embeddings.events import Source
from ranking.features import COLUMNS
from streams.contract.observations import Observation, blank
from streams.serving.observation_writer import slate_hash
from streams.serving.slates import PublishedSlate


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
    propensity_LN = np.stack([slate.propensity_N[:places] for slate in shown])
    item_LN[beyond_LN], propensity_LN[beyond_LN] = 0, 0  # others asked for more
    columns: dict[str, Any] = blank(S=1, F=COLUMNS) | {
        "shown_L": np.array([slate_hash(slate.slate_id) for slate in shown], np.uint64),
        "shown_item_LN": item_LN,
        "shown_x_LNF": np.stack([slate.x_NF[:places] for slate in shown]).astype(np.float16),
        "shown_propensity_LN": propensity_LN.astype(np.float16),
        "policy_L": np.array([slate.trigger.policy.hash for slate in shown], np.uint32),
        "rate_L": np.full(len(shown), rate, np.float32),
    }
    return Observation(source=source, first=min(offsets), last=max(offsets), **columns)
