"""What decisions about ads teach: observations without rows, of the ads that were chosen, for labels from their events.

An event names its decision where others name a slate, so a decision is told under the same hash.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embeddings.events import Source
from ranking.ads.campaigns import LineItem
from ranking.ads.features import Viewers
from ranking.features import COLUMNS
from streams.contract.observations import Observation, blank
from streams.serving.ad_scoring import AdCandidates, Chances
from streams.serving.creatives import Creatives, name_hash
from streams.serving.observation_writer import slate_hash

_LONGEST_S = 366 * 86_400


def observe_ads(
    source: Source,
    offset_A: Sequence[int],
    decision_id_A: Sequence[str],
    lines_A: Sequence[LineItem],
    at_A: NDArray[np.intp],
    creatives: Creatives,
    viewers: Viewers,
    candidates: AdCandidates,
    chances: Chances,
    propensity_A: NDArray[np.floating],
) -> Observation:
    """A ads that were decided in answer to records of one partition; told again, they are the same.

    Args:
        source: where the requests lie, or the events that led to slates.
        offset_A: their offsets.
        decision_id_A: what the spend ledger calls the decisions.
        lines_A: whose ads they are.
        at_A: which of the C candidates won.
        creatives: as they were scored.
        viewers: by whom.
        candidates: C of them.
        chances: what was expected of them.
        propensity_A: with which chance each would be shown (`ranking.ads.exploration.shares`), 1 where nothing was
            drawn.
    """
    auction_A, number_A = candidates.auction_C[at_A], candidates.creative_C[at_A]
    columns: dict[str, Any] = blank(S=1, F=COLUMNS) | {
        "ad_A": np.array([slate_hash(decision_id) for decision_id in decision_id_A], np.uint64),
        "ad_item_A": creatives.item_N[number_A],
        "ad_advertiser_A": np.array([name_hash(line.advertiser) for line in lines_A], np.uint32),
        "ad_placement_A": candidates.placement_P[auction_A].astype(np.uint32),
        "ad_x_AF": chances.x_CF[at_A].astype(np.float16),
        "ad_taste_AD": _directions(viewers.taste_UD[candidates.viewer_P[auction_A]]),
        "ad_p_AO": chances.p_CO[at_A].astype(np.float32),
        "ad_propensity_A": propensity_A.astype(np.float32),
        "ad_click_s_A": np.array([_seconds(line.click_window_ms) for line in lines_A], np.int32),
        "ad_view_s_A": np.array([_seconds(line.view_window_ms) for line in lines_A], np.int32),
    }
    return Observation(source=source, first=min(offset_A), last=max(offset_A), **columns)


def _directions(taste_AD: NDArray[np.float32]) -> NDArray[np.float16]:
    """Tastes of length 1, zeros where there is none."""
    length_A1 = np.linalg.norm(taste_AD, axis=1, keepdims=True)
    unit_AD: NDArray[np.float16] = (taste_AD / np.maximum(length_A1, np.float32(1e-12))).astype(np.float16)
    return unit_AD


def _seconds(window_ms: int) -> int:
    return min(window_ms // 1000, _LONGEST_S)
