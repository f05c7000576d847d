"""The one way this package compiles a loop: ahead of time where it can, without the GIL, cached on disk."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile a loop over arrays with numba; arguments and result are NumPy arrays and numbers only.

    The compiled code runs without the GIL, so heartbeats and health pages live beside it, and adds in the written
    order (no fast-math), so that a result does not depend on how rows were batched. The first call of a signature
    compiles (seconds); later processes load it from the cache beside the source, in `NUMBA_CACHE_DIR` or in the user's
    folder, where one of them can be written.
    """
    return cast(F, _compiled(function))


def summing_kernel(function: F) -> F:
    """A `kernel` whose sums may be added several lanes at a time: five times faster where it is nothing but a sum.

    The order of addition is that of the machine's vectors and the same at every call, so a result still does not depend
    on how rows were batched; it may differ in the last bit from one kind of CPU to another.
    """
    return cast(F, _compiled(function, fastmath={"reassoc", "contract"}))


def _compiled(function: Callable[..., object], **options: Any) -> object:
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # nowhere to keep it
        return numba.njit(nogil=True, **options)(function)
