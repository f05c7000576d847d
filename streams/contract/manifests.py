"""Snapshots as records of the `models` topic: announced by version, withdrawn, pinned.

The topic is compacted. A version is announced under a key of its own, and a null under that key says that its file is
gone. The record under `pin` is the announcement of the version that all workers must serve, as kind `pin`, until a null
releases it. Releases before this one announced every version under `snapshot`, and read whatever was announced last
whatever its key; they pass over the kind `pin`.
"""

from collections.abc import Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from msgspec import MsgspecError, structs

from embeddings.snapshots import Manifest
from streams.contract.records import ModelManifest, decode_model

SNAPSHOT, PIN = "snapshot", "pin"
PIN_KEY = PIN.encode()
_VERSIONS = 1 << 32
"""A state keeps the version of its vector in 32 bits."""


def key_of(version: int) -> bytes:
    """Under which key a version is announced.

    >>> key_of(7)
    b'snapshot/7'
    """
    return f"{SNAPSHOT}/{version}".encode()


def announced(manifest: Manifest, **learned: Any) -> ModelManifest:
    """The record that announces a snapshot; `learned` are the fields that say how it came about."""
    return ModelManifest(
        version=str(manifest.version),
        uri=manifest.uri,
        sha256=manifest.sha256,
        bytes=manifest.bytes,
        shapes=manifest.shapes,
        created_ms=manifest.created_ms,
        **learned,
    )


def pinned(record: ModelManifest) -> ModelManifest:
    """The record that pins an announced snapshot. It says all that is needed to fetch it."""
    return structs.replace(record, kind=PIN)


def manifest_of(record: ModelManifest) -> Manifest:
    """What to fetch for a record whose version is a number."""
    return Manifest(
        version=int(record.version),
        uri=record.uri,
        sha256=record.sha256,
        bytes=record.bytes,
        shapes=record.shapes,
        created_ms=record.created_ms,
    )


def version_of(text: str) -> int | None:
    """The number of a version, None where it is none that a state could hold.

    >>> version_of("1764"), version_of("v2"), version_of("4294967296")
    (1764, None, None)
    """
    good = text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) < _VERSIONS
    return int(text) if good else None


@dataclass(slots=True)
class Announcements:
    """What the `models` topic says now: the last record of each key."""

    _records: dict[bytes, ModelManifest] = field(default_factory=dict)

    def take(self, key: bytes, record: ModelManifest | None) -> None:
        """Take over a record, in the topic's order. One that means nothing here is passed over."""
        self._records.pop(key, None)
        if record is not None and record.kind in (SNAPSHOT, PIN) and version_of(record.version) is not None:
            self._records[key] = record

    def read(self, key: bytes | None, value: bytes | None) -> None:
        """`take` a record as it was published; one that cannot be read is passed over."""
        with suppress(MsgspecError, UnicodeError):
            self.take(key or b"", decode_model(value) if value else None)

    @property
    def versions(self) -> Mapping[int, ModelManifest]:
        """What is announced, oldest first; of a version under two keys the record that came last."""
        found = {int(r.version): r for r in self._records.values() if r.kind == SNAPSHOT}
        return dict(sorted(found.items()))

    @property
    def pin(self) -> ModelManifest | None:
        """The version that must serve, if one is pinned; its address is that of its last announcement."""
        record = self._records.get(PIN_KEY)
        if record is None or record.kind != PIN:
            return None
        latest = self.versions.get(int(record.version), record)
        return latest if latest.sha256 == record.sha256 else record

    def obsolete(self, keep: Set[int]) -> list[bytes]:
        """The keys of versions other than these, and keys that are not a version's own beside its own."""
        mine = [(key, int(record.version)) for key, record in self._records.items() if record.kind == SNAPSHOT]
        return [key for key, v in mine if v not in keep or (key != key_of(v) and key_of(v) in self._records)]
