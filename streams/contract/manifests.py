"""A snapshot's manifest as a record of the `models` topic, and back."""

from typing import Any

from embeddings.snapshots import Manifest
from streams.contract.records import ModelManifest


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
