"""Putting something into a `UserStore` without folding anything."""

from collections.abc import Mapping

import numpy as np

from embeddings.store import Loaded, SlateUpdate, UserStore


def save_slates(store: UserStore, loaded: Loaded, slates: Mapping[str, bytes], ttl_s: int, *, width: int) -> None:
    """Save the slates of the users that were loaded, in that order, and nothing else."""
    users = list(slates)
    store.save(
        users,
        loaded.states,
        changed_U=np.zeros(len(users), np.bool_),
        taste_UD=np.zeros((len(users), width), np.float32),
        taste_version=0,
        slates=SlateUpdate(range(len(users)), list(slates.values()), ttl_s),
        marks={},
    )
