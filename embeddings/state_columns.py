"""A batch of user states as columns: the values that fold, codec and store hand to each other.

Shapes: U users, H = 50 entries of history, R = 8 remembered event ids, P positions (`embeddings.fold`), E evictions.

>>> states = no_states(2)
>>> states.item_UH.shape, states.count_U.tolist()
((2, 50), [0, 0])
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.events import Source
from embeddings.jit import kernel

HISTORY = 50
#: Ids of this many applied events are remembered per user: a producer's duplicate is recognised while at most seven
#: other applied events of the same user, with ids, lie between it and its original.
RING = 8
#: An event older than the user's latest by more than this cannot be placed: stored times are exact only inside it.
MAX_LATENESS_S = 4095
NO_SOURCE = -1
NO_OFFSET = -1
_PARTITION_BITS = 12


class UserStates(NamedTuple):
    """What is known of U users, one row each; a `NamedTuple` because compiled loops take those as they are.

    Attributes:
        item_UH: 40-bit ids of the last H distinct items, index 0 the latest by (event time, arrival); 0 = empty.
        action_UH: action code of the event that put the item there.
        time_UH: its event time, epoch seconds, as coarse as it is stored (exact within 4,095 s of `last_s_U`).
        share_UH: how far its person got with it, in 255ths of its length; 0 = not begun, or not known.
        count_U: entries in use.
        last_s_U: greatest event time applied, epoch seconds; 0 = none.
        events_U: events applied.
        mark_source_U2: codes (`source_code`) of the last two input partitions, index 0 the one last used; -1 = none.
        mark_offset_U2: last offset considered from each; -1 = none.
        ring_UR: ids of the last R applied events, index 0 the latest; 0 = none.
        consent_U: consent bits of the latest event by event time.
    """

    item_UH: NDArray[np.uint64]
    action_UH: NDArray[np.uint8]
    time_UH: NDArray[np.int64]
    share_UH: NDArray[np.uint8]
    count_U: NDArray[np.int32]
    last_s_U: NDArray[np.int64]
    events_U: NDArray[np.int64]
    mark_source_U2: NDArray[np.int32]
    mark_offset_U2: NDArray[np.int64]
    ring_UR: NDArray[np.uint32]
    consent_U: NDArray[np.uint8]

    def copy(self) -> "UserStates":
        """An independent copy of every column."""
        return UserStates._make(column.copy() for column in self)

    def take(self, user_N: NDArray[np.integer]) -> "UserStates":
        """The rows of N users, copied."""
        return UserStates._make(column[user_N] for column in self)


class Tastes(NamedTuple):
    """The taste vectors of U users as they are kept: 8-bit codes, one scale per user, and the snapshot they are of.

    Attributes:
        code_UD: signed 8-bit codes, D the embedding width.
        scale_U: what a code of 1 stands for.
        version_U: number of the snapshot; 0 = no vector, build it from the history.
    """

    code_UD: NDArray[np.int8]
    scale_U: NDArray[np.float32]
    version_U: NDArray[np.uint32]

    def vectors(self) -> NDArray[np.float32]:
        """The vectors, each component within half a step of what was kept. Shape (U, D)."""
        return self.code_UD * self.scale_U[:, None]


class Histories(NamedTuple):
    """The history at P positions; index 0 of H is the latest. Times are as coarse as `UserStates.time_UH`."""

    item_PH: NDArray[np.uint64]
    action_PH: NDArray[np.uint8]
    time_PH: NDArray[np.int64]
    share_PH: NDArray[np.uint8]
    count_P: NDArray[np.int32]
    last_s_P: NDArray[np.int64]


class Evictions(NamedTuple):
    """E items that left a history, in position order: `item_E[e]` is out of the window from `position_E[e]` on."""

    user_E: NDArray[np.int32]
    item_E: NDArray[np.uint64]
    position_E: NDArray[np.int32]


def no_states(users: int) -> UserStates:
    """The states of U users of whom nothing is known."""
    return UserStates(
        item_UH=np.zeros((users, HISTORY), np.uint64),
        action_UH=np.zeros((users, HISTORY), np.uint8),
        time_UH=np.zeros((users, HISTORY), np.int64),
        share_UH=np.zeros((users, HISTORY), np.uint8),
        count_U=np.zeros(users, np.int32),
        last_s_U=np.zeros(users, np.int64),
        events_U=np.zeros(users, np.int64),
        mark_source_U2=np.full((users, 2), NO_SOURCE, np.int32),
        mark_offset_U2=np.full((users, 2), NO_OFFSET, np.int64),
        ring_UR=np.zeros((users, RING), np.uint32),
        consent_U=np.zeros(users, np.uint8),
    )


def source_code(topics: Sequence[str], source: Source) -> int:
    """The 16-bit name of an input partition in a user's marks: four bits of topic, twelve of partition.

    `topics` is the store's own append-only list, so that a code means the same topic for as long as states live.

    >>> source_code(["events", "more"], Source("more", 3))
    4099

    Raises:
        ValueError: more than 15 topics, or a partition above 4,095. A setting is wrong; nothing was read yet.
    """
    topic = topics.index(source.topic)
    if topic > 14 or source.partition >> _PARTITION_BITS:
        raise ValueError(f"at most 15 topics of 4,096 partitions can feed user states, not {topic}/{source.partition}")
    return topic << _PARTITION_BITS | source.partition


def no_histories(positions: int) -> Histories:
    """Empty histories at P positions."""
    return Histories(
        np.zeros((positions, HISTORY), np.uint64),
        np.zeros((positions, HISTORY), np.uint8),
        np.zeros((positions, HISTORY), np.int64),
        np.zeros((positions, HISTORY), np.uint8),
        np.zeros(positions, np.int32),
        np.zeros(positions, np.int64),
    )


@kernel
def coarsen(time_H: NDArray[np.int64], count: int, last_s: int) -> None:
    """Bring a history's times, latest first, to the resolution at which they are stored, in place.

    A time t is kept as (last >> k) - (t >> k), twelve bits, with the smallest k that fits, at most 15; what is older
    than about four years counts as just that old. Floors nest: coarsening by a later `last` gives the same from the
    exact and from the already coarse time, so that a time does not depend on how often it was stored. Times fall
    along the history, so k only rises.
    """
    k = 0
    for h in range(count):
        while k < 15 and (last_s >> k) - (time_H[h] >> k) > 4095:
            k += 1
        time_H[h] = ((last_s >> k) - min((last_s >> k) - (time_H[h] >> k), 4095)) << k


@kernel
def coarse(time_s: int, last_s: int) -> int:
    """What `coarsen` makes of one time."""
    k = 0
    while k < 15 and (last_s >> k) - (time_s >> k) > 4095:
        k += 1
    return ((last_s >> k) - min((last_s >> k) - (time_s >> k), 4095)) << k
