"""The one way this package compiles a loop: ahead of time where it can, without the GIL, cached on disk."""

import logging
from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])
#: Whether compiled loops are kept. Where neither the folder of the sources nor the user's can be written they are not.
kept = True


def kernel(function: F) -> F:
    """Compile a loop over arrays with numba; arguments and result are NumPy arrays and numbers only.

    The compiled code runs without the GIL, so heartbeats and health pages live beside it, and adds in the written
    order (no fast-math), so that a result does not depend on how rows were batched. The first call of a signature
    compiles (seconds); later processes load it from the cache beside the source, in `NUMBA_CACHE_DIR` or in the user's
    folder, where one of them can be written.
    """
    global kept
    try:
        return cast(F, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # nowhere to keep it
        if kept:
            logging.getLogger(__name__).warning(
                "compiled loops cannot be kept, every start compiles them: set NUMBA_CACHE_DIR to a folder to write to"
            )
        kept = False
        return cast(F, numba.njit(nogil=True)(function))
