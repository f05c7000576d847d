"""Putting something into a `UserStore` without folding anything."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from embeddings.store import Loaded, SlateUpdate, UserStore


def save(store: UserStore, **changes: Any) -> None:
    """Keep and flush; where that fails, nothing stays kept."""
    try:
        store.flush(store.keep(**changes))
    except Exception:
        store.discard()
        raise


def save_slates(store: UserStore, loaded: Loaded, slates: Mapping[str, bytes], ttl_s: int, *, width: int) -> None:
    """Save the slates of the users that were loaded, in that order, and nothing else."""
    users = list(slates)
    save(
        store,
        user_ids=users,
        states=loaded.states,
        changed_U=np.zeros(len(users), np.bool_),
        taste_UD=np.zeros((len(users), width), np.float32),
        taste_version=0,
        unanswered=loaded.unanswered,
        exposures=loaded.exposures,
        slates=SlateUpdate(range(len(users)), list(slates.values()), ttl_s),
        marks={},
    )
