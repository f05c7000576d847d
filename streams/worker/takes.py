"""Where what people take stood in the slate that they were shown before: the hit rate of what is live."""

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embeddings.ids import murmur2

UNKNOWN, NOT_SHOWN = -2, -1
_PEOPLE = 1 << 16
"""So many people's latest slates are known; another person's in the same slot takes the place of one."""
_PLACES = 20


class LatestSlates:
    """The first places of the latest published slates, by person; of any thread.

    >>> latest = LatestSlates()
    >>> latest.show(["ann"], [np.array([7, 8], np.uint64)])
    >>> latest.places(["ann", "bob"], np.array([0, 0, 1]), np.array([8, 9, 8], np.uint64)).tolist()
    [1, -1, -2]
    """

    def __init__(self) -> None:
        """Nobody was shown anything."""
        self._lock = threading.Lock()
        self._any = False
        self._person_S = np.zeros(_PEOPLE, np.uint32)
        self._item_SK = np.zeros((_PEOPLE, _PLACES), np.uint64)

    def show(self, user_ids: Sequence[str], items: Sequence[NDArray[np.uint64]]) -> None:
        """These people were shown these items, the last of a person's slates counts."""
        if not user_ids:
            return
        person_L = _persons(user_ids)
        item_LK = np.zeros((len(items), _PLACES), np.uint64)
        for at, item_N in enumerate(items):
            item_LK[at, : len(item_N[:_PLACES])] = item_N[:_PLACES]
        slot_L = person_L % _PEOPLE
        with self._lock:
            self._any = True
            self._person_S[slot_L], self._item_SK[slot_L] = person_L, item_LK

    def places(
        self, user_ids: Sequence[str], user_T: NDArray[np.integer], item_T: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        """Where T items stood in their persons' latest slates, 0 is the first; `NOT_SHOWN`, `UNKNOWN`. Shape (T,).

        `user_T` are places in `user_ids`.
        """
        if not self._any:
            return np.full(len(item_T), UNKNOWN)
        person_T = _persons(user_ids)[user_T]
        slot_T = person_T % _PEOPLE
        with self._lock:
            known_T, item_TK = self._person_S[slot_T] == person_T, self._item_SK[slot_T]
        hit_TK = item_TK == item_T[:, None]
        place_T = np.where(hit_TK.any(1), hit_TK.argmax(1), NOT_SHOWN)
        return np.where(known_T, place_T, UNKNOWN)


def _persons(user_ids: Sequence[str]) -> NDArray[np.uint32]:
    """A number above 0 for each person."""
    return murmur2([user_id.encode() for user_id in user_ids]) | np.uint32(1 << 31)
