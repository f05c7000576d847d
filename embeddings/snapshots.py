"""One version of everything learned, as a file: vectors, neighbour lists, counts and ranker weights.

A snapshot is a safetensors file (arrays and nothing that could run) beside a manifest that says what it must hash to.
Files appear whole or not at all, and a reader refuses what is not exactly what was announced.
"""

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from aiohttp import ClientTimeout
from fsspec.core import url_to_fs  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as read_tensors
from safetensors.numpy import save as write_tensors

from embeddings.contexts import Popularity
from embeddings.errors import SnapshotRefused, SnapshotUnreachable

Arrays = dict[str, NDArray[np.generic]]
log = logging.getLogger(__name__)

MAX_BYTES = 4 << 30
LEFT_S = 3_600.0
_CHUNK = 1 << 20
_BYTES_PER_S = 16 << 20
_PAUSE_S = 0.5
_CONNECT_S = 5.0
_RANKER, _CONTEXTS = "ranker.", "contexts."
_COLUMNS: dict[str, tuple[str, type[np.generic]]] = {
    "ids_N": ("N", np.uint64),
    "source_ND": ("ND", np.float32),
    "target_ND": ("ND", np.float32),
    "neighbours_NK": ("NK", np.int32),
    "weights_NK": ("NK", np.float32),
    "counts_N": ("N", np.float32),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """N items: 40-bit ids and names, D-wide vectors, K neighbours (indices into this snapshot, -1 padded).

    `source_ND` and `target_ND` are those of `embeddings.svd.Factors`, `neighbours_NK` and `weights_NK` those of
    `PairCounts.neighbours`, `counts_N` are decayed events; `contexts` is what is popular where, `ranker` holds a
    model's weights by name and `meta` whatever JSON can say of how the version came about. Times are epoch
    milliseconds.
    """

    version: int
    ids_N: NDArray[np.uint64]
    names: list[str]
    source_ND: NDArray[np.float32]
    target_ND: NDArray[np.float32]
    neighbours_NK: NDArray[np.int32]
    weights_NK: NDArray[np.float32]
    counts_N: NDArray[np.float32]
    ranker: Mapping[str, NDArray[np.generic]]
    contexts: Popularity = field(default_factory=Popularity.none)
    created_ms: int = 0
    meta: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids_N)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a snapshot file is called, where it lies, and what it must be."""

    version: int
    uri: str
    sha256: str
    bytes: int
    shapes: dict[str, tuple[int, ...]]
    created_ms: int = 0


def write(snapshot: Snapshot, folder: Path, *, base_url: str = "", max_bytes: int = MAX_BYTES) -> Manifest:
    """Write a snapshot and its manifest into a folder, atomically.

    Args:
        snapshot: what to write; a file of the same version is replaced.
        folder: made if missing.
        base_url: where `folder` is served over HTTP; without it the manifest names the file itself.
        max_bytes: what readers take at most.

    Raises:
        SnapshotRefused: it is larger. Nothing is written.
    """
    arrays = _arrays(snapshot)
    if (size := sum(array.nbytes for array in arrays.values())) > max_bytes:
        raise SnapshotRefused(f"snapshot {snapshot.version}: {size} bytes are more than {max_bytes}")
    folder.mkdir(parents=True, exist_ok=True)
    data = write_tensors(arrays)
    path = _path(folder, snapshot.version)
    manifest = Manifest(
        version=snapshot.version,
        uri=address(folder, snapshot.version, base_url),
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        shapes={name: array.shape for name, array in arrays.items()},
        created_ms=snapshot.created_ms,
    )
    _put(path, data)
    _put(path.with_suffix(".json"), json.dumps(asdict(manifest)).encode())
    return manifest


def address(folder: Path, version: int, base_url: str = "") -> str:
    """Where a version in a folder is fetched from: an absolute address, whatever the folder is called here."""
    path = _path(folder, version)
    return f"{base_url.rstrip('/')}/{path.name}" if base_url else path.resolve().as_uri()


def manifests(folder: Path) -> list[Manifest]:
    """The manifests of the versions in a folder, oldest first; one that cannot be read is passed over."""
    known = []
    for path in sorted(folder.glob("snapshot-*.json")):
        try:
            fields = json.loads(path.read_bytes())
            shapes = {name: tuple(shape) for name, shape in fields["shapes"].items()}
            known.append(Manifest(**{**fields, "shapes": shapes}))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s is no manifest: %r", path, error)
    return known


def kept(
    created_ms: Mapping[int, int],
    *,
    now_ms: int,
    last: int = 3,
    hours: int = 0,
    days: int = 0,
    pinned: Set[int] = frozenset(),
) -> set[int]:
    """Which versions to keep: the `last` ones, one of each of the last `hours` hours and `days` days, those pinned.

    The newest of an hour or day (UTC) is kept, so what is kept for its hour now is kept until its hour is too old.

    >>> hour = 3_600_000
    >>> made = {1: 9 * hour, 2: 9 * hour + 1, 3: 10 * hour, 4: 10 * hour + 1, 5: 10 * hour + 2}
    >>> sorted(kept(made, now_ms=10 * hour + 3, last=2)), sorted(kept(made, now_ms=10 * hour + 3, last=1, hours=2))
    ([4, 5], [2, 5])
    """
    newest = sorted(created_ms)
    keep = set(newest[-last:]) | (pinned & created_ms.keys())
    for span_ms, spans in ((3_600_000, hours), (86_400_000, days)):
        of_span = {created_ms[version] // span_ms: version for version in newest}
        keep |= {version for span, version in of_span.items() if span > now_ms // span_ms - spans}
    return keep


def prune(folder: Path, keep: Set[int]) -> None:
    """Delete all other versions from a folder, and what was left there by whoever was killed while writing."""
    wanted = {_path(folder, version).name for version in keep}
    for old in folder.glob("snapshot-*.safetensors"):
        if old.name not in wanted:
            old.with_suffix(".json").unlink(missing_ok=True)
            old.unlink(missing_ok=True)
    drop_left(folder, ".snapshot-*.part")


def drop_left(folder: Path, pattern: str) -> None:
    """Delete files that nobody finished for an hour: who wrote them was killed."""
    for left in folder.glob(pattern):
        if time.time() - left.stat().st_mtime > LEFT_S:
            left.unlink(missing_ok=True)


def _path(folder: Path, version: int) -> Path:
    return folder / f"snapshot-{version:020d}.safetensors"


def load(manifest: Manifest, *, max_bytes: int = MAX_BYTES, timeout_s: float | None = None) -> Snapshot:
    """Fetch a snapshot from a path, an `http:` address or any other that fsspec has a file system for, and check it.

    Args:
        manifest: what was announced; empty `shapes` and `bytes` of 0 are not checked.
        max_bytes: more than this is not read.
        timeout_s: for the whole transfer, which is tried three times where trying again may help; a minute if not
            given, and what is large may take longer.

    Raises:
        SnapshotUnreachable: nobody answers, the file is not there (yet), or not all of it, or it takes too long. Try
            again later.
        SnapshotRefused: too large, another hash, version or other shapes than announced, inconsistent, or not finite.
            The snapshot in use stays; the announcement is counted and skipped.
    """
    if manifest.bytes > max_bytes:
        raise SnapshotRefused(f"snapshot {manifest.version}: {manifest.bytes} bytes are more than {max_bytes}")
    timeout_s = 60 + manifest.bytes / _BYTES_PER_S if timeout_s is None else timeout_s
    data = _fetch(manifest.uri, manifest.bytes or max_bytes, time.monotonic() + timeout_s)
    if len(data) < manifest.bytes:
        raise SnapshotUnreachable(f"{manifest.uri}: {len(data)} of {manifest.bytes} bytes are there")
    if hashlib.sha256(data).hexdigest() != manifest.sha256:
        raise SnapshotRefused(f"snapshot {manifest.version}: the file's sha256 is not the announced one")
    try:
        arrays: Arrays = read_tensors(data)
    except SafetensorError as error:
        raise SnapshotRefused(f"snapshot {manifest.version}: {error}") from error
    if manifest.shapes and {name: array.shape for name, array in arrays.items()} != manifest.shapes:
        raise SnapshotRefused(f"snapshot {manifest.version}: the shapes are not the announced ones")
    snapshot = _checked(arrays)
    if snapshot.version != manifest.version:
        raise SnapshotRefused(f"snapshot {manifest.version}: the file is of version {snapshot.version}")
    return snapshot


def _arrays(snapshot: Snapshot) -> Arrays:
    """Everything of a snapshot as named arrays; names and the rest as UTF-8 bytes."""
    text = {"version": snapshot.version, "created_ms": snapshot.created_ms, "meta": snapshot.meta}
    encoded = [name.encode() for name in snapshot.names]
    arrays: Arrays = {
        "names": np.frombuffer(b"".join(encoded), np.uint8),
        "name_ends_N": np.fromiter(map(len, encoded), np.int64, len(encoded)).cumsum(),
        "json": np.frombuffer(json.dumps(text).encode(), np.uint8),
    }
    arrays |= {name: np.ascontiguousarray(getattr(snapshot, name), kind) for name, (_, kind) in _COLUMNS.items()}
    arrays |= {_CONTEXTS + name: array for name, array in snapshot.contexts._asdict().items()}
    return arrays | {_RANKER + name: np.ascontiguousarray(array) for name, array in snapshot.ranker.items()}


def _checked(arrays: Arrays) -> Snapshot:
    """Build a snapshot from its arrays, or refuse it."""
    try:
        columns = _columns(arrays)
        text = json.loads(arrays["json"].tobytes())
        names = _names(arrays["names"].tobytes(), arrays["name_ends_N"].tolist())
        version, created_ms, meta = int(text["version"]), int(text["created_ms"]), dict(text["meta"])
    except (KeyError, TypeError, ValueError) as error:
        raise SnapshotRefused(f"not a snapshot: {error!r}") from error
    near_NK, count = columns["neighbours_NK"], len(columns["ids_N"])
    if len(names) != count or near_NK.min(initial=0) < -1 or near_NK.max(initial=-1) >= count:
        raise SnapshotRefused("names or neighbours do not fit the items")
    infinite = [name for name, a in arrays.items() if a.dtype.kind == "f" and not math.isfinite(a.sum(dtype="f8"))]
    if infinite:
        raise SnapshotRefused(f"not finite: {', '.join(sorted(infinite))}")
    ranker = {name.removeprefix(_RANKER): array for name, array in arrays.items() if name.startswith(_RANKER)}
    return Snapshot(
        version=version,
        created_ms=created_ms,
        meta=meta,
        names=names,
        ranker=ranker,
        contexts=_contexts(arrays, count),
        **columns,
    )


def _contexts(arrays: Arrays, items: int) -> Popularity:
    """What is popular where; an earlier release says nothing of it.

    Raises:
        SnapshotRefused: it does not fit the items.
    """
    none = Popularity.none()
    if any(_CONTEXTS + name not in arrays for name in none._fields):
        return none
    found: list[Any] = [arrays[_CONTEXTS + name] for name in none._fields]
    contexts = Popularity(*found)
    kinds = all(found[n].dtype == getattr(none, name).dtype for n, name in enumerate(none._fields))
    shapes = contexts.key_C.shape == contexts.total_C.shape and contexts.row_CK.shape == contexts.takes_CK.shape
    rows_fit = contexts.row_CK.min(initial=-1) >= -1 and contexts.row_CK.max(initial=-1) < items
    if not kinds or not shapes or contexts.row_CK.shape[:1] != contexts.key_C.shape or not rows_fit:
        raise SnapshotRefused("what is popular where does not fit the items")
    return contexts


def _columns(arrays: Arrays) -> dict[str, Any]:
    """The arrays every snapshot has, of the right type and agreeing on N, D and K.

    Raises:
        SnapshotRefused: they are not.
    """
    sizes: dict[str, int] = {}
    for name, (letters, kind) in _COLUMNS.items():
        array = arrays[name]
        fits = array.dtype == kind and array.ndim == len(letters)
        if not fits or any(sizes.setdefault(x, n) != n for x, n in zip(letters, array.shape, strict=True)):
            raise SnapshotRefused(f"{name} is {array.dtype} {array.shape} beside sizes {sizes}")
    return {name: arrays[name] for name in _COLUMNS}


def _names(data: bytes, ends: list[int]) -> list[str]:
    return [data[begin:end].decode() for begin, end in zip([0, *ends], ends, strict=False)]


def _fetch(uri: str, most: int, deadline: float, tries: int = 3) -> bytes:
    """The bytes behind an address, at most `most` of them."""
    try:
        return _read(uri, most, deadline)
    except SnapshotRefused:
        raise
    except Exception as error:  # what file systems of other packages raise has no common base
        if isinstance(error, ImportError | ValueError):
            raise SnapshotRefused(f"{uri}: {error!r}") from error
        if isinstance(error, FileNotFoundError) or tries == 1 or time.monotonic() + _PAUSE_S > deadline:
            raise SnapshotUnreachable(f"{uri}: {error!r}") from error
    time.sleep(_PAUSE_S)
    return _fetch(uri, most, deadline, tries - 1)


def _read(uri: str, most: int, deadline: float) -> bytes:
    options: dict[str, Any] = {}
    reading: dict[str, Any] = {}
    if uri.startswith(("http:", "https:")):
        timeout = ClientTimeout(total=max(deadline - time.monotonic(), 0.001), sock_connect=_CONNECT_S)
        options = {"client_kwargs": {"timeout": timeout, "trust_env": True}}
        reading = {"block_size": 0, "size": most}  # one answer, read as it comes, and no question before it
    if uri.startswith("file:"):
        files, path = LocalFileSystem(skip_instance_cache=True), url2pathname(urlsplit(uri).path)
    elif "::" in uri:  # one file system on top of another, of which some write to disk
        raise SnapshotRefused(f"{uri}: a chain of file systems")
    else:
        files, path = url_to_fs(uri, skip_instance_cache=True, **options)
    data = bytearray()
    with files.open(path, "rb", **reading) as file:
        while chunk := file.read(_CHUNK):
            data += chunk
            if len(data) > most:
                raise SnapshotRefused(f"{uri}: more than {most} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError("not read in time")
    return bytes(data)


def _put(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
