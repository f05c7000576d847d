"""What the compacted catalogue holds, as far as a learner needs it: which items may be told."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embeddings.events import Source
from embeddings.ids import NO_ITEM, item_ids
from embeddings.idtable import IdTable
from streams.contract.catalogue_records import read_catalogue
from streams.contract.messages import RawRecord
from streams.contract.parsing import Rules

Ids = NDArray[np.uint64]
_GONE = 1 << 16
"""So many items that are gone are remembered, or a quarter of all."""


@dataclass(slots=True)
class CatalogueRecords:
    """Reads catalogue records; what cannot be read is passed over, workers put it aside."""

    rules: Rules
    _aliases: dict[bytes, str] = field(init=False, default_factory=dict)

    def read(self, source: Source, records: Sequence[RawRecord]) -> tuple[Ids, Ids]:
        """The items that are in it, and those that are not any more, after these records."""
        facts, removed, _ = read_catalogue(source, records, self.rules, self._aliases)
        return item_ids([item.facts.name for item in facts]), item_ids(removed)


@dataclass(slots=True)
class Catalogue:
    """The items that the compacted catalogue holds; `read` once that was read to its end."""

    read: bool = False
    _ids: IdTable = field(default_factory=IdTable)
    _holds_N: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    _ever: bool = False

    def __len__(self) -> int:
        return int(self._holds_N.sum())

    @property
    def binds(self) -> bool:
        """Whether what it lacks is told nobody."""
        return self.read and self._ever

    def take(self, kept: Ids, removed: Ids) -> None:
        """Take over what a part of it says."""
        row_R = self._ids.ensure(kept)
        self._holds_N = np.append(self._holds_N, np.zeros(len(self._ids) - len(self._holds_N), np.bool_))
        self._holds_N[row_R] = True
        gone_R = self._ids.rows(removed)
        self._holds_N[gone_R[gone_R >= 0]] = False
        self._ever |= len(kept) > 0
        empty = np.flatnonzero(~self._holds_N & (self._ids.ids_N != NO_ITEM)).astype(np.int32)
        if len(empty) > max(_GONE, len(self._ids) // 4):
            self._ids.free(empty)

    def holds(self, ids: Ids) -> NDArray[np.bool_]:
        """Which of these items it holds."""
        row_R = self._ids.rows(ids)
        known_R: NDArray[np.bool_] = row_R >= 0
        known_R[known_R] = self._holds_N[row_R[known_R]]
        return known_R
