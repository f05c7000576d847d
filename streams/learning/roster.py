"""Which items a learner knows: a row and a name each, and never more of them than `learner.max_items`.

When there is no room, those go that no catalogue ever held, the least recently taken first; then, for items of the
catalogue only, the least recently taken of those it holds. Where the catalogue was read to its end and has had any
item, what it lacks is told nobody, and what left it goes.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embeddings.ids import NO_ITEM
from embeddings.idtable import IdTable
from embeddings.names import Names
from streams.learning.catalogue import Catalogue, Ids

log = logging.getLogger(__name__)
SeenAt = Callable[[int], NDArray[np.int64]]
"""When each of so many rows was last taken, in epoch seconds."""
_AT_ONCE = 16
"""Room is made for a sixteenth of all items at least: each time every pair is looked at."""


@dataclass(slots=True)
class Roster:
    """The items of a learner by row, at most `most`.

    Attributes:
        most: `learner.max_items`.
        catalogue: what may be told.
        ids: whose rows they are.
        names: of the rows.
        listed_N: which rows the catalogue held when it was last heard of them.
    """

    most: int
    catalogue: Catalogue = field(default_factory=Catalogue)
    ids: IdTable = field(default_factory=IdTable)
    names: Names = field(default_factory=Names)
    listed_N: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    _unsure: bool = True
    """The catalogue may lack what is listed."""
    _warned: bool = False

    def crowded_out(self, ids: Ids, seen_s: SeenAt) -> NDArray[np.int32]:
        """The rows to be freed before these ids, 0 for none, can have theirs.

        No row of one of these ids is among them; so there may be too few, and some ids get no row.
        """
        if self.ids.held + ids.size <= self.most:
            return np.empty(0, np.int32)
        row_R = self.ids.rows(ids)
        new = self._new(ids, row_R)
        short = self.ids.held + len(new) - self.most
        if short <= 0:
            return np.empty(0, np.int32)
        spare_N = self.ids.ids_N != NO_ITEM
        spare_N[row_R[row_R >= 0]] = False
        listed_N, seen_s_N = self._listed(len(self.ids)), seen_s(len(self.ids))
        least = max(short, self.most // _AT_ONCE)
        strangers = _oldest(np.flatnonzero(spare_N & ~listed_N), seen_s_N, least)
        if min(short - len(strangers), int(self.catalogue.holds(new).sum())) <= 0:
            return strangers
        return np.concatenate([strangers, _oldest(np.flatnonzero(spare_N & listed_N), seen_s_N, least)])

    def rows(self, ids: Ids) -> NDArray[np.int32]:
        """The rows of ids, new ones where there is room, first for those of the catalogue; -1 for the others."""
        return self._rows_below(self.most, ids)

    def rows_held(self, ids: Ids) -> NDArray[np.int32]:
        """The same for items that somebody has held before, of any shape; the last room is not for them.

        They come again with every event of that person: what gave way would be back at once.
        """
        return self._rows_below(self.most - self.most // _AT_ONCE, ids.reshape(-1)).reshape(ids.shape)

    def _rows_below(self, most: int, ids: Ids) -> NDArray[np.int32]:
        if self.ids.held + ids.size <= most:
            return self._given(ids)
        row_R = self.ids.rows(ids)
        if self.ids.held >= most:
            return row_R
        new = self._new(ids, row_R)
        first = new[np.argsort(~self.catalogue.holds(new), kind="stable")]
        self._given(first[: most - self.ids.held])
        return self.ids.rows(ids)

    def _new(self, ids: Ids, row_R: NDArray[np.int32]) -> Ids:
        return np.setdiff1d(ids[row_R < 0], np.zeros(1, np.uint64))

    def _given(self, ids: Ids) -> NDArray[np.int32]:
        """Rows for ids, and which of them are of items of the catalogue."""
        before = self.ids.held
        row_R = self.ids.ensure(ids)
        if self.ids.held > before:
            if len(self.ids) > len(self.listed_N):
                self.listed_N = self._listed(len(self.ids) * 3 // 2)
            of_items_R = row_R >= 0
            self.listed_N[row_R[of_items_R]] |= self.catalogue.holds(ids[of_items_R])
        return row_R

    def _listed(self, count: int) -> NDArray[np.bool_]:
        return np.append(self.listed_N, np.zeros(max(count - len(self.listed_N), 0), np.bool_))[:count]

    def name(self, names: dict[int, str]) -> None:
        """Take over names by id, of items that have a row and no name."""
        row_R = self.ids.rows(np.fromiter(names, np.uint64, len(names)))
        nameless_R = (row_R >= 0) & ~self.names.known(np.maximum(row_R, 0))
        if nameless_R.any():
            told = list(names.values())
            self.names.put(row_R[nameless_R], [told[r] for r in np.flatnonzero(nameless_R).tolist()])

    def named(self, ids: Ids) -> dict[int, str]:
        """The names of these items, by id, where they are known."""
        row_R = self.ids.rows(ids)
        row_R = row_R[row_R >= 0]
        return dict(zip(self.ids.ids_N[row_R].tolist(), self.names.of(row_R), strict=True))

    def heed(self, kept: Ids, removed: Ids) -> Ids:
        """Take over what a part of the catalogue says; returns those items that can be told from now on."""
        self.catalogue.take(kept, removed)
        self._unsure |= len(removed) > 0
        row_R = self.ids.rows(kept)
        row_R = row_R[row_R >= 0]
        self.listed_N = self._listed(max(len(self.ids), len(self.listed_N)))
        new = row_R[~self.listed_N[row_R]]
        self.listed_N[new] = True
        return self.ids.ids_N[new]

    def leavers(self, seen_s: SeenAt) -> NDArray[np.int32]:
        """The rows of items that left the catalogue, and of those beyond `most`, as after it was lowered."""
        self._warn()
        ids_N, listed_N = self.ids.ids_N, self._listed(len(self.ids))
        gone_N = np.zeros(len(ids_N), np.bool_)
        if self.catalogue.binds and self._unsure:
            holds_N = self.catalogue.holds(ids_N)
            gone_N = listed_N & ~holds_N
            listed_N = self.listed_N = listed_N | holds_N
            self._unsure = False
        left = np.flatnonzero((ids_N != NO_ITEM) & ~gone_N)
        if (over := len(left) - self.most) > 0:
            gone_N[left[np.lexsort((seen_s(len(ids_N))[left], listed_N[left]))[:over]]] = True
        return np.flatnonzero(gone_N).astype(np.int32)

    def _warn(self) -> None:
        held, named = len(self.catalogue), self.names.held
        if self.catalogue.binds and not self._warned and held < named // 2:
            self._warned = True
            log.warning("the catalogue has %d items and events name %d: the others are not shown", held, named)

    def told(self) -> NDArray[np.bool_]:
        """Which rows are told: those of the catalogue, or where none binds, all that are an item's. Shape (N,)."""
        of_items_N: NDArray[np.bool_] = self.ids.ids_N != NO_ITEM
        return of_items_N & self._listed(len(self.ids)) if self.catalogue.binds else of_items_N

    def may_tell(self, ids: Ids) -> NDArray[np.bool_]:
        """Which of these items may be told."""
        return self.catalogue.holds(ids) if self.catalogue.binds else np.ones(len(ids), np.bool_)

    def free(self, rows_R: NDArray[np.int32]) -> None:
        """Take back rows, with names and marks."""
        self.names.forget(rows_R)
        self.listed_N[rows_R[rows_R < len(self.listed_N)]] = False
        self.ids.free(rows_R)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Everything needed to go on, as arrays: views, good until the next change."""
        names = {f"names.{name}": array for name, array in self.names.state().items()}
        return {"ids": self.ids.ids_N, "listed": self._listed(len(self.ids)), **names}

    def restore(self, state: Mapping[str, NDArray[np.generic]], names: dict[int, str]) -> None:
        """Go on from a `state`; in one of an earlier release names were apart, and nobody knew of a catalogue."""
        self.ids.restore(np.array(state["ids"], np.uint64))
        self.listed_N = np.array(state.get("listed", np.zeros(len(self.ids))), np.bool_)
        if "names.text" in state:
            self.names.restore({name: state[f"names.{name}"] for name in self.names.state()})
        self.name(names)
        self._unsure = True


def _oldest(rows: NDArray[np.intp], seen_s_N: NDArray[np.int64], count: int) -> NDArray[np.int32]:
    """Those `count` of some rows, at most, that were taken least recently."""
    if count < len(rows):
        rows = rows[np.argpartition(seen_s_N[rows], count)[:count]]
    return rows.astype(np.int32)
