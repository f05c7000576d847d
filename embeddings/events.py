"""A batch of behaviour as columns: what a stage takes instead of records.

Actions are codes (`Action`), items are 40-bit ids (`embeddings.ids`), users are indices into the batch's own list of
distinct users, so that nothing on the hot path touches a Python object per event.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Action(IntEnum):
    """What a person did. Codes 1-13 act on an item and fit 4 bits; codes from 16 act on a slate or an ad slot."""

    unknown = 0
    view = 1
    play = 2
    progress = 3
    complete = 4
    skip = 5
    like = 6
    dislike = 7
    unlike = 8
    add = 9
    remove = 10
    share = 11
    purchase = 12
    hide = 13
    impression = 16
    viewable = 17
    click = 18
    conversion = 19
    first_quartile = 20
    midpoint = 21
    third_quartile = 22


class Fate(IntEnum):
    """What became of a consumed record; every record has exactly one."""

    applied = 0
    replayed = 1
    duplicate = 2
    late = 3
    unconsented = 4
    erased = 5
    rate_limited = 6
    unknown_type = 7
    misrouted = 8
    dead_lettered = 9


class Source(NamedTuple):
    """An input partition; what watermarks, fences and totals are kept for."""

    topic: str
    partition: int


#: One flag per action code: does the action put its item into the history (all but unlike, remove and slot events)?
TOUCHES = np.zeros(32, np.bool_)
TOUCHES[[1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 13]] = True
#: One flag per action code: does it say that the person wanted the item?
TAKES = np.zeros(32, np.bool_)
TAKES[[1, 2, 3, 4, 6, 9, 11, 12]] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBatch:
    """B readable events of U users, in offset order inside each source.

    `sources` lists the distinct input partitions of the batch; `source_B` indexes it. `time_s_B` is event time in
    whole epoch seconds (clamped where it was ahead). `dedupe_B` is a 32-bit hash of `ce_source` + `ce_id`, 0 = none.
    `consent_B` holds consent bits (`CONSENT_*`). `refused_B` is `Fate.applied`, or why a row must not be applied.
    """

    user_ids: tuple[str, ...]
    sources: tuple[Source, ...]
    user_B: NDArray[np.int32]
    item_B: NDArray[np.uint64]
    action_B: NDArray[np.uint8]
    value_B: NDArray[np.float32]
    time_s_B: NDArray[np.int64]
    source_B: NDArray[np.int32]
    offset_B: NDArray[np.int64]
    dedupe_B: NDArray[np.uint32]
    consent_B: NDArray[np.uint8]
    refused_B: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.user_B)


#: Consent bits: may the profile be stored, updated by this event, used for content, used for ads?
CONSENT_STORE, CONSENT_PROFILE, CONSENT_CONTENT, CONSENT_ADS = 1, 2, 4, 8
CONSENT_ALL = CONSENT_STORE | CONSENT_PROFILE | CONSENT_CONTENT | CONSENT_ADS
