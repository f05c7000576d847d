"""Which items lie nearest to a taste: inner-product search over item rows, on the device that is there.

`build_index` chooses how; the answer says so in `kind` and `why`. An engine (`index_faiss`, `index_torch`) is built
once per snapshot and never changed; what happens between snapshots, items added and items removed, is kept beside it
and merged into every answer.
"""

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, NamedTuple, Protocol
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

_BLOCK = 4_096
"""Rows that are added are laid out in blocks of so many."""
_HIDDEN = 1_000
"""So many answers, and an eighth of all, may be in vain before what searches under a mask is made anew."""

_GPU_DRIVERS = "/dev/nvidiactl", "/dev/nvmap", "/dev/dxg", "/dev/kfd"
"""What Linux has where a GPU can be computed on: NVIDIA's driver, that of its small boards, Windows' own, AMD's."""


class ItemIndex(Protocol):
    """Inner-product search over item rows. `search` is safe in any thread, also while rows are added or removed."""

    device: str  # cpu or gpu
    recall: float  # as measured at the build, 1 where everything is looked at

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

    def holds(self, rows_R: Rows) -> NDArray[np.bool_]:
        """Which of R rows can be found."""


class Engine(Protocol):
    """A finished search structure over N vectors, by their position 0 … N-1; see `ItemIndex` for its recall."""

    count: int
    recall: float
    gpu: bool

    def search(self, query_QD: Vectors, k: int) -> tuple[NDArray[np.int64], Vectors]:
        """Positions (Q, k), -1 padded, and scores, best first; k ≤ count."""

    def restricted(self, allowed_N: NDArray[np.bool_]) -> "Engine | None":
        """An engine over the allowed positions alone, under their numbers here; None where it cannot select."""

    def follow(self, place_R: NDArray[np.intp], allowed_R: NDArray[np.bool_]) -> bool:
        """Take over, as a restricted engine, what some positions are now; False where it lacks one that is allowed."""


class _Added(NamedTuple):
    """Some rows that came since the build, -1 where one went again or none came yet, and their vectors."""

    row_M: Rows
    vectors_MD: Vectors

    @classmethod
    def room(cls, width: int) -> "_Added":
        """Room for as many as a block holds."""
        return cls(np.full(_BLOCK, -1, np.int32), np.zeros((_BLOCK, width), np.float32))


@dataclass(slots=True)
class _Restriction:
    """What searches under a mask, the positions that it may answer and must not, and how far it followed the mask."""

    engine: Engine | None
    hidden_N: NDArray[np.bool_]
    hidden: int
    changes: int

    def follow(self, place_R: NDArray[np.intp], allowed_R: NDArray[np.bool_]) -> bool:
        """Take over what distinct positions are now; False where this is to be made anew."""
        self.hidden += int((~allowed_R).sum()) - int(self.hidden_N[place_R].sum())
        self.hidden_N[place_R] = ~allowed_R
        if self.engine is None:
            return True
        return self.engine.follow(place_R, allowed_R) and self.hidden <= _HIDDEN + len(self.hidden_N) // 8


def _of(mask: Mask, rows_R: Rows) -> NDArray[np.bool_]:
    """Which of R rows a mask allows; those that came after it was made it does not. Shape (R,)."""
    allowed_N = mask.allowed_N
    allowed_R: NDArray[np.bool_] = (rows_R >= 0) & (rows_R < len(allowed_N))
    return allowed_R & allowed_N[np.where(allowed_R, rows_R, 0)]


class LiveIndex:
    """An engine over rows, with later additions searched beside it and removals filtered out of its answers.

    Rows are added and removed in place: each costs what it is, and not what there is.
    """

    def __init__(self, engine: Engine, rows_N: Rows, width: int, kind: str, why: str) -> None:
        """`rows_N` are the distinct rows of the engine's positions."""
        self.kind, self.why = kind, why
        self.device, self.recall = "gpu" if engine.gpu else "cpu", engine.recall
        self._engine = engine
        self._rows_N = np.ascontiguousarray(rows_N, np.int32)
        self._order_N = np.argsort(self._rows_N, kind="stable")
        self._sorted_N = self._rows_N[self._order_N]
        self._lock = threading.Lock()
        self._restricted: WeakKeyDictionary[Mask, _Restriction] = WeakKeyDictionary()
        self._dead_N, self._dead, self._kills = np.zeros(len(rows_N), np.bool_), 0, 0
        self._width, self._blocks, self._used = width, list[_Added](), 0
        self._place_of: dict[int, int] = {}

    @property
    def size(self) -> int:
        """How many rows can be found."""
        return self._engine.count - self._dead + len(self._place_of)

    def search(self, query_QD: Vectors, k: int, mask: Mask | None = None) -> tuple[Rows, Vectors]:
        """See `ItemIndex.search`. Fetches more than k while rows that must not be found leave an answer short."""
        query_QD = np.ascontiguousarray(query_QD, np.float32)
        added_M, added_QM = self._products(query_QD)
        engine, hidden_N, hidden = self._engine, self._dead_N, self._dead
        if mask is not None:
            engine, hidden_N, hidden = self._within(mask)
            added_M = np.where(_of(mask, added_M), added_M, np.int32(-1))
        count = engine.count
        fetch = min(count, k + min(hidden, k))
        while True:
            place_Qk, score_Qk = engine.search(query_QD, fetch)
            out = np.full((len(query_QD), k), -1, np.int32), np.zeros((len(query_QD), k), np.float32)
            short = _merge(place_Qk, score_Qk, self._rows_N, hidden_N, added_M, added_QM, *out)
            if not short or fetch >= count:
                return out
            fetch = min(count, 4 * fetch)

    def _products(self, query_QD: Vectors) -> tuple[Rows, Vectors]:
        """The rows that were added, and the products with their vectors."""
        used, blocks = self._used, list(self._blocks)
        parts = [
            (row_M[: max(used - _BLOCK * n, 0)], query_QD @ vectors_MD[: max(used - _BLOCK * n, 0)].T)
            for n, (row_M, vectors_MD) in enumerate(blocks)
        ]
        if not parts:
            return np.empty(0, np.int32), np.empty((len(query_QD), 0), np.float32)
        return np.concatenate([row_M for row_M, _ in parts]), np.concatenate([each_QM for _, each_QM in parts], 1)

    def _within(self, mask: Mask) -> tuple[Engine, NDArray[np.bool_], int]:
        """The engine to ask under a mask, the positions that it may still answer and must not, and how many they are.

        Made once per mask, while others search; what changes in the mask or is removed is followed.
        """
        with self._lock:
            made, end = self._restricted.get(mask), mask.changed.end
            if made is not None and made.changes != end:
                rows = mask.changed.since(made.changes)
                made.changes = end
                if rows is None or not made.follow(*self._allowed(mask, rows)):
                    made = None
            kills = self._kills
        if made is None:
            made = self._made(mask)
            with self._lock:
                if kills != self._kills:
                    made = self._made(mask)
                self._restricted[mask] = made
        return made.engine or self._engine, made.hidden_N, made.hidden

    def _made(self, mask: Mask) -> _Restriction:
        end, allowed_N = mask.changed.end, _of(mask, self._rows_N) & ~self._dead_N
        hidden = len(allowed_N) - int(allowed_N.sum())
        engine = self._engine.restricted(allowed_N) if hidden > self._dead else None
        if engine is None:
            return _Restriction(None, ~allowed_N, hidden, end)
        return _Restriction(engine, np.zeros(len(allowed_N), np.bool_), 0, end)

    def _allowed(self, mask: Mask, rows_R: Rows) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        place_R = self._places(rows_R)
        return place_R, _of(mask, self._rows_N[place_R]) & ~self._dead_N[place_R]

    def _places(self, rows_R: Rows) -> NDArray[np.intp]:
        """The engine's positions of those rows that it has, each once."""
        if not len(self._rows_N):
            return np.empty(0, np.intp)
        at_R = np.minimum(np.searchsorted(self._sorted_N, rows_R), len(self._sorted_N) - 1)
        return np.unique(self._order_N[at_R[self._sorted_N[at_R] == rows_R]])

    def holds(self, rows_R: Rows) -> NDArray[np.bool_]:
        """See `ItemIndex.holds`."""
        with self._lock:
            place_R = self._places(rows_R)
            built_R = np.isin(rows_R, self._rows_N[place_R[~self._dead_N[place_R]]])
            return built_R | np.fromiter((row in self._place_of for row in rows_R.tolist()), np.bool_, len(rows_R))

    def add(self, rows_R: Rows, vectors_RD: Vectors) -> None:
        """See `ItemIndex.add`; of a row given twice the last vector counts."""
        if not len(rows_R):
            return
        with self._lock:
            self._kill(rows_R)
            _, last = np.unique(rows_R[::-1], return_index=True)
            new = len(rows_R) - 1 - last
            if self._used > 2 * (len(self._place_of) + _BLOCK):
                self._pack()
            self._append(rows_R[new], vectors_RD[new])

    def _append(self, rows_R: Rows, vectors_RD: Vectors) -> None:
        """Lay rows into what room is left, block by block; nothing that lies there is moved."""
        at = 0
        while at < len(rows_R):
            begin = self._used % _BLOCK
            if self._used == _BLOCK * len(self._blocks):
                self._blocks.append(_Added.room(self._width))
            some = min(len(rows_R) - at, _BLOCK - begin)
            block = self._blocks[-1]
            block.vectors_MD[begin : begin + some] = vectors_RD[at : at + some]
            block.row_M[begin : begin + some] = rows_R[at : at + some]
            self._place_of.update(
                zip(rows_R[at : at + some].tolist(), range(self._used, self._used + some), strict=True)
            )
            self._used, at = self._used + some, at + some

    def _pack(self) -> None:
        """Lay anew what is still there: most of what was added went again."""
        places = np.fromiter(self._place_of.values(), np.int64, len(self._place_of))
        row_M = np.array([self._blocks[p // _BLOCK].row_M[p % _BLOCK] for p in places.tolist()], np.int32)
        vectors_MD = np.array([self._blocks[p // _BLOCK].vectors_MD[p % _BLOCK] for p in places.tolist()], np.float32)
        self._blocks, self._used = [], 0
        self._place_of.clear()
        self._append(row_M, vectors_MD.reshape(-1, self._width))

    def remove(self, rows_R: Rows) -> None:
        """See `ItemIndex.remove`."""
        with self._lock:
            self._kill(rows_R)

    def _kill(self, rows_R: Rows) -> None:
        """Hide rows wherever they are. The caller holds the lock."""
        place_R = self._places(rows_R)
        self._kills += len(place_R)
        self._dead += int((~self._dead_N[place_R]).sum())
        self._dead_N[place_R] = True
        for mask, made in list(self._restricted.items()):
            if len(place_R) and not made.follow(place_R, np.zeros(len(place_R), np.bool_)):
                del self._restricted[mask]
        for row in rows_R.tolist() if self._place_of else ():
            if (place := self._place_of.pop(row, None)) is not None:
                self._blocks[place // _BLOCK].row_M[place % _BLOCK] = -1


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
    return LiveIndex(built, rows_N, width, chosen, f"{chosen}, {note}: {reason}; {count:,} vectors of {width}")


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
            if added_M[m] < 0:
                continue
            held = insert(out_Qk[q], rows_Qk[q], held, float(added_QM[q, m]), int(added_M[m]))
    return short
