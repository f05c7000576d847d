"""Who looks, where and when: what may be shown there, and whose counts say what is popular there."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import zip_longest

import numpy as np
import xxhash
from numpy.typing import NDArray

from embeddings.contexts import KEYS, hour_keys, keys_of
from embeddings.eligibility import Viewer, language_of
from ranking.features import CONTEXTS
from streams.contract import records


def context_keys(
    contexts: Sequence[records.Context | None], time_s_P: NDArray[np.int64], surfaces: Sequence[str | None] = ()
) -> NDArray[np.uint16]:
    """The keys of each of P contexts and moments, 0 where a word is not said. Shape (P, `KEYS`).

    `surfaces` are those that requests name themselves, which count before those of their contexts.
    """
    key_PC = np.zeros((len(contexts), KEYS), np.uint16)
    for p, (context, surface) in enumerate(zip_longest(contexts, surfaces)):
        if context is not None:
            key_PC[p, :-1] = keys_of(surface or context.surface, context.country, context.language, context.device)
        elif surface:
            key_PC[p, :-1] = keys_of(surface, None, None, None)
    key_PC[:, -1] = hour_keys(time_s_P)
    return key_PC


def viewer_of(context: records.Context | None, surface: str) -> Viewer:
    """Who looks at a surface, as far as what may be shown depends on it."""
    if context is None:
        return Viewer(surface=surface)
    return Viewer(context.country or "", context.age_limit, surface, language_of(context.language))


def context_code(context: records.Context | None, surface: str | None = None) -> int:
    """Surface and device as one of 64 codes; 0 where neither is said. `surface` is the one that a request names."""
    if context is None:
        return _code(surface, None)
    return _code(surface or context.surface, context.device)


@lru_cache(maxsize=4096)
def _code(surface: str | None, device: str | None) -> int:
    return 1 + xxhash.xxh32_intdigest(f"{surface}\0{device}".encode()) % (CONTEXTS - 1) if surface or device else 0
