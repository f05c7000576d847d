"""Which items lie nearest to a taste: inner-product search over item rows, on the device that is there.

`build_index` chooses how; the answer says so in `kind` and `why`. An engine (`index_faiss`, `index_torch`) is built
once per snapshot and never changed; what happens between snapshots, items added and items removed, is kept beside it
and merged into every answer.
"""

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Literal, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from embeddings.eligibility import Mask
from embeddings.heap import insert
from embeddings.jit import kernel

Rows = NDArray[np.int32]
Vectors = NDArray[np.float32]
Kind = Literal["auto", "exact", "ivf", "torch"]
Device = Literal["auto", "cpu", "gpu"]

EXACT_BELOW = 10_000
"""Up to this many items exact search on one core takes less than 100 µs per query."""

_GPU_DRIVERS = "/dev/nvidiactl", "/dev/nvmap", "/dev/dxg", "/dev/kfd"
"""What Linux has where a GPU can be computed on: NVIDIA's driver, that of its small boards, Windows' own, AMD's."""


class ItemIndex(Protocol):
    """Inner-product search over item rows. `search` is safe in any thread, also while rows are added or removed."""

    @property
    def size(self) -> int:
        """How many rows can be found."""

    @property
    def kind(self) -> str:
        """What searches, for metrics and slates: `exact`, `ivf`, `gpu-exact`, `gpu-ivf`, `torch`."""

    @property
    def why(self) -> str:
        """Why this kind, with its size, its settings and its recall where that was measured."""

    def search(self, query_QD: Vectors, k: int, mask: Mask | None = None) -> tuple[Rows, Vectors]:
        """The k rows with the greatest products: rows (Q, k), -1 padded, and scores (Q, k); ties to the lower row.

        With a mask they are rows that it allows.

        Approximate kinds may miss rows; which of several equal rows at the end of a list are in it is undefined.
        """

    def add(self, rows_R: Rows, vectors_RD: Vectors) -> None:
        """Make rows findable at once, or replace their vectors. A few thousand at most; the next build takes them."""

    def remove(self, rows_R: Rows) -> None:
        """Make rows unfindable at once; unknown ones are ignored."""


class Engine(Protocol):
    """A finished search structure over N vectors, by their position 0 … N-1."""

    count: int

    def search(self, query_QD: Vectors, k: int) -> tuple[NDArray[np.int64], Vectors]:
        """Positions (Q, k), -1 padded, and scores, best first; k ≤ count."""

    def restricted(self, allowed_N: NDArray[np.bool_]) -> "Engine | None":
        """An engine over the allowed positions alone, under their numbers here; None where it cannot select."""


@dataclass(frozen=True, slots=True)
class _Changes:
    """What happened since the build; replaced whole, so that a search sees one state."""

    dead_N: NDArray[np.bool_]
    dead: int
    added_M: Rows
    vectors_MD: Vectors


@dataclass(slots=True)
class _Restriction:
    """What searches under a mask, if that is another engine, and the positions that were not allowed then."""

    engine: Engine | None
    barred_N: NDArray[np.bool_]
    dead: int = 0


def _of(mask: Mask, rows_R: Rows) -> NDArray[np.bool_]:
    """Which of R rows a mask allows; those that came after it was made it does not. Shape (R,)."""
    allowed_N = mask.allowed_N
    allowed_R: NDArray[np.bool_] = (rows_R < len(allowed_N)) & allowed_N[np.minimum(rows_R, len(allowed_N) - 1)]
    return allowed_R


class LiveIndex:
    """An engine over rows, with later additions searched beside it and removals filtered out of its answers."""

    def __init__(self, engine: Engine, rows_N: Rows, width: int, kind: str, why: str) -> None:
        """`rows_N` are the distinct rows of the engine's positions."""
        self.kind, self.why = kind, why
        self._engine = engine
        self._rows_N = np.ascontiguousarray(rows_N, np.int32)
        self._order_N = np.argsort(self._rows_N, kind="stable")
        self._lock = threading.Lock()
        self._restricted: WeakKeyDictionary[Mask, _Restriction] = WeakKeyDictionary()
        none = np.empty(0, np.int32), np.empty((0, width), np.float32)
        self._changes = _Changes(np.zeros(len(rows_N), np.bool_), 0, *none)

    @property
    def size(self) -> int:
        """How many rows can be found."""
        changes = self._changes
        return self._engine.count - changes.dead + len(changes.added_M)

    def search(self, query_QD: Vectors, k: int, mask: Mask | None = None) -> tuple[Rows, Vectors]:
        """See `ItemIndex.search`. Fetches more than k while rows that must not be found leave an answer short."""
        query_QD = np.ascontiguousarray(query_QD, np.float32)
        changes = self._changes
        engine, dead_N, dead = self._engine, changes.dead_N, changes.dead
        added_M, vectors_MD = changes.added_M, changes.vectors_MD
        if mask is not None:
            engine, dead_N, dead = self._within(mask, changes)
            some_M = _of(mask, added_M)
            added_M, vectors_MD = added_M[some_M], vectors_MD[some_M]
        added_QM, count = query_QD @ vectors_MD.T, engine.count
        fetch = min(count, k + min(dead, k))
        while True:
            place_Qk, score_Qk = engine.search(query_QD, fetch)
            out = np.full((len(query_QD), k), -1, np.int32), np.zeros((len(query_QD), k), np.float32)
            short = _merge(place_Qk, score_Qk, self._rows_N, dead_N, added_M, added_QM, *out)
            if not short or fetch >= count:
                return out
            fetch = min(count, 4 * fetch)

    def _within(self, mask: Mask, changes: _Changes) -> tuple[Engine, NDArray[np.bool_], int]:
        """The engine to ask under a mask, the positions that it may still answer and must not, and how many they are.

        Made once per mask; where rows were removed since, they are filtered out of its answers.
        """
        with self._lock:
            made = self._restricted.get(mask)
            if made is None:
                allowed_N = _of(mask, self._rows_N) & ~changes.dead_N
                all_allowed = int(allowed_N.sum()) == self._engine.count - changes.dead
                made = _Restriction(
                    None if all_allowed else self._engine.restricted(allowed_N), ~allowed_N, changes.dead
                )
                self._restricted[mask] = made
        if made.engine is not None:
            return made.engine, changes.dead_N, max(0, changes.dead - made.dead)
        dead_N = changes.dead_N | made.barred_N
        return self._engine, dead_N, int(dead_N.sum())

    def add(self, rows_R: Rows, vectors_RD: Vectors) -> None:
        """See `ItemIndex.add`; of a row given twice the last vector counts."""
        with self._lock:
            self._kill(rows_R)
            _, last = np.unique(rows_R[::-1], return_index=True)
            new = len(rows_R) - 1 - last
            self._changes = replace(
                self._changes,
                added_M=np.concatenate([self._changes.added_M, rows_R[new].astype(np.int32)]),
                vectors_MD=np.concatenate([self._changes.vectors_MD, vectors_RD[new].astype(np.float32)]),
            )

    def remove(self, rows_R: Rows) -> None:
        """See `ItemIndex.remove`."""
        with self._lock:
            self._kill(rows_R)

    def _kill(self, rows_R: Rows) -> None:
        """Hide rows wherever they are. The caller holds the lock."""
        changes = self._changes
        dead_N = changes.dead_N.copy()
        if len(dead_N):
            at_R = self._order_N[
                np.minimum(np.searchsorted(self._rows_N, rows_R, sorter=self._order_N), len(dead_N) - 1)
            ]
            dead_N[at_R[self._rows_N[at_R] == rows_R]] = True
        kept_M = ~np.isin(changes.added_M, rows_R)
        self._changes = _Changes(dead_N, int(dead_N.sum()), changes.added_M[kept_M], changes.vectors_MD[kept_M])


def build_index(
    rows_N: Rows,
    vectors_ND: Vectors,
    *,
    kind: Kind = "auto",
    device: Device = "auto",
    nprobe: int = 16,
    threads: int = 1,
    memory_mb: int = 1024,
    recall: float = 0.97,
) -> ItemIndex:
    """Build the index that fits the number of vectors and the device.

    Args:
        rows_N: distinct item rows.
        vectors_ND: their target vectors.
        kind: `auto` is exact search up to 10,000 items or on a GPU that has room for it, IVF otherwise. `torch` is
            exact search without FAISS.
        device: `auto` takes a GPU if there is one.
        nprobe: lists an IVF search visits at least; doubled until `recall` is reached on a sample of the vectors.
        threads: CPU threads of one search.
        memory_mb: of a GPU's memory, what this process may take.
        recall: share of the 200 best that IVF shall find.

    Raises:
        ValueError: `gpu` was asked for and there is none. The process does not start.
    """
    from embeddings import index_faiss

    vectors_ND = np.ascontiguousarray(vectors_ND, np.float32)
    count, width = vectors_ND.shape
    chosen, reason = _choose(count, width, kind, device, memory_mb, index_faiss.gpus())
    makers: dict[str, Callable[[], tuple[Engine, str]]] = {
        "exact": lambda: index_faiss.exact(vectors_ND, threads),
        "ivf": lambda: index_faiss.ivf(vectors_ND, nprobe, threads, recall),
        "gpu-exact": lambda: index_faiss.gpu_exact(vectors_ND, memory_mb),
        "gpu-ivf": lambda: index_faiss.gpu_ivf(vectors_ND, nprobe, recall, memory_mb),
        "torch": lambda: _by_torch(vectors_ND, None if device == "auto" else device, memory_mb, threads),
    }
    built, note = makers[chosen]()
    why = f"{chosen}, {note}: {reason}; {count:,} vectors of {width}"
    return LiveIndex(built, rows_N, width, chosen, why)


def _by_torch(vectors_ND: Vectors, device: str | None, memory_mb: int, threads: int) -> tuple[Engine, str]:
    from embeddings.index_torch import TorchEngine

    engine = TorchEngine(vectors_ND, device, memory_mb, threads)
    return engine, engine.device


def _choose(count: int, width: int, kind: Kind, device: Device, memory_mb: int, faiss_gpus: int) -> tuple[str, str]:
    """The kind to build and the reason for it."""
    gpu = device != "cpu" and (faiss_gpus > 0 or _torch_sees_gpu(device))
    if device == "gpu" and not gpu:
        raise ValueError("device gpu: neither FAISS nor torch sees a GPU")
    if not count:
        return "exact", "nothing to search yet"
    if kind == "torch":
        return "torch", "asked for"
    if not gpu:
        if kind != "auto":
            return kind, "asked for"
        small = count <= EXACT_BELOW
        return ("exact" if small else "ivf"), f"{'at most' if small else 'more than'} {EXACT_BELOW:,} items on a CPU"
    if not faiss_gpus:
        return "torch", "torch sees a GPU and FAISS does not"
    room = count * width * 2 <= memory_mb << 19
    if kind == "ivf" or (kind == "auto" and not room):
        return "gpu-ivf", "asked for" if kind == "ivf" else f"exact search needs more than half of {memory_mb} MiB"
    return "gpu-exact", "asked for" if kind == "exact" else "a GPU with room for exact search"


def _torch_sees_gpu(device: Device) -> bool:
    """With `auto` torch, which takes seconds to import, is asked only where a driver of a GPU is loaded."""
    if device == "auto" and sys.platform == "linux" and not any(map(os.path.exists, _GPU_DRIVERS)):
        return False
    if find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


@kernel
def _merge(
    place_QF: NDArray[np.int64],
    score_QF: Vectors,
    rows_N: Rows,
    dead_N: NDArray[np.bool_],
    added_M: Rows,
    added_QM: Vectors,
    rows_Qk: Rows,
    out_Qk: Vectors,
) -> bool:
    """Write the best of the engine's living answers and the added rows; was an answer short for its dead ones?"""
    short = False
    for q in range(len(place_QF)):
        held = 0
        full = True
        for f in range(place_QF.shape[1]):
            place = place_QF[q, f]
            if place < 0:
                full = False
                break
            if not dead_N[place]:
                held = insert(out_Qk[q], rows_Qk[q], held, float(score_QF[q, f]), int(rows_N[place]))
        short |= full and held < rows_Qk.shape[1]
        for m in range(len(added_M)):
            held = insert(out_Qk[q], rows_Qk[q], held, float(added_QM[q, m]), int(added_M[m]))
    return short
