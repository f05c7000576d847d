"""Whom line items are for: a conjunction index of 10,000 and more of them, asked for a batch of opportunities at once.

One thread writes (`put`, `remove`) and hands out snapshots; any thread reads those. Taking one copies some heads of
lists, not the lists: these only grow, behind what older snapshots see of them.

>>> from ranking.ads.predicates import In, Not
>>> index = Targeting()
>>> index.put(0, In.of("country", "us")); index.put(1, Not(In.of("country", "us")))
>>> snapshot = index.snapshot()
>>> asked = [Opportunity(now_ms=0, words={"country": ["US"]}), Opportunity(now_ms=0)]
>>> dense(snapshot.match(asked), snapshot.rows).tolist()
[[True, False], [False, True]]
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranking.ads import matching
from ranking.ads.conjunctions import Conjunctions, disjuncts
from ranking.ads.matching import Bits, Compiled
from ranking.ads.opportunities import Histories, Vocabulary, cells_of
from ranking.ads.predicates import (
    NUMBERS,
    Between,
    DayPart,
    Known,
    Leaf,
    Near,
    Opportunity,
    Predicate,
    Saw,
)  # fmt: skip

_WASTE, _AT_ONCE = 10_000, 32
"""Entries of arrays that removed line items leave at least before everything is compiled anew, and how many line items
are at each change then."""
NOTHING = -1
"""The leaf of what wants none."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Targeting of the line items as it was at one moment; it never changes.

    `rows` is one more than the greatest row ever used, and W its bits in words of 64.
    """

    rows: int
    vocabulary: Vocabulary
    compiled: Compiled

    def match(self, asked: Sequence[Opportunity], seen: Histories | None = None) -> Bits:
        """Which line items each of P opportunities is for: bit `row & 63` of word `row >> 6`. Shape (P, W).

        `seen` stands for the opportunities' own `seen`, where histories are at hand as arrays.
        """
        batch = self.vocabulary.encode(asked, seen)
        bits_PW = np.zeros((len(asked), -(-self.rows // 64)), np.uint64)
        matching.match(batch, self.compiled, bits_PW)
        return bits_PW


def listed(bits_PW: Bits) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The rows whose bits are set, in order: where those of each opportunity begin, (P + 1,), and all of them, (M,)."""
    start_P1 = matching.count_rows(bits_PW)
    row_M = np.empty(int(start_P1[-1]), np.int32)
    matching.list_rows(bits_PW, row_M)
    return start_P1, row_M


def dense(bits_PW: Bits, rows: int) -> NDArray[np.bool_]:
    """The same as booleans. Shape (P, rows)."""
    return np.unpackbits(bits_PW.view(np.uint8), axis=1, count=rows, bitorder="little").view(np.bool_)


class Growing:
    """An array that grows at its end; a view of its beginning stays as it is."""

    def __init__(self, dtype: Any, width: int = 0) -> None:
        self._all = np.zeros((16, width) if width else 16, dtype)
        self.size = 0

    def append(self, value: Any) -> int:
        """Add one; its place."""
        self.extend((value,))
        return self.size - 1

    def extend(self, values: Sequence[Any] | NDArray[Any]) -> None:
        """Add some, in their order."""
        end = self.size + len(values)
        if end > len(self._all):
            larger = np.zeros((2 * end, *self._all.shape[1:]), self._all.dtype)
            larger[: self.size] = self.view()
            self._all = larger
        self._all[self.size : end] = values
        self.size = end

    def view(self) -> NDArray[Any]:
        """What is there now, shared."""
        return self._all[: self.size]


class Targeting:
    """The index, for one writer. A line item is a row: a small number that whoever keeps campaigns gives it.

    What removed line items leave behind is gone once it is more than what is live: everything is compiled a second time
    then, a few line items at each change, and the new compilation takes over when it has them all.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._asked_for: dict[int, Conjunctions] = {}
        self._current = Compilation()
        self._next: Compilation | None = None
        self._to_move: list[int] = []
        self._taken: Snapshot | None = None

    def put(self, row: int, predicate: Predicate) -> None:
        """Add a line item, or replace what it asks for.

        Raises:
            TargetingRefused: It comes to too many conjunctions. What the row asked for before stays.
        """
        conjunctions = self._asked_for[row] = disjuncts(predicate)
        self._rows = max(self._rows, row + 1)
        self._current.put(row, conjunctions)
        if self._next is not None:
            self._next.put(row, conjunctions)
        self._changed()

    def remove(self, row: int) -> None:
        """Take a line item out; nothing happens where there is none."""
        if self._asked_for.pop(row, None) is not None:
            self._current.remove(row)
            if self._next is not None:
                self._next.remove(row)
            self._changed()

    def snapshot(self) -> Snapshot:
        """Targeting as it is now; the same one while nothing changes."""
        if self._taken is None:
            self._taken = Snapshot(self._rows, self._current.vocabulary, self._current.compiled())
        return self._taken

    def _changed(self) -> None:
        self._taken = None
        if self._next is None:
            if self._current.dead <= max(_WASTE, self._current.live):
                return
            self._next, self._to_move = Compilation(), list(self._asked_for)
        for row in self._to_move[-_AT_ONCE:]:
            if row in self._asked_for:
                self._next.put(row, self._asked_for[row])
        del self._to_move[-_AT_ONCE:]
        if not self._to_move:
            self._current, self._next = self._next, None


class Compilation:
    """Line items compiled into arrays that grow at their ends."""

    def __init__(self) -> None:
        self.vocabulary = Vocabulary()
        self.live = self.dead = 0  # entries of arrays
        self._leaf_of: dict[Leaf, int] = {}
        self._watched_of: dict[int, int] = {}
        self._made_of: dict[int, tuple[list[int], int]] = {}
        self._arrays = {name: Growing(*shape) for name, shape in _SHAPES.items()}
        self._keys, self._key_K, self._key_token_K = 0, np.zeros(16, np.uint64), _no_tokens(16)

    def put(self, row: int, conjunctions: Conjunctions) -> None:
        """Add a row, or replace what it asks for."""
        self.remove(row)
        before = self._entries()
        made = [self._compile(row, literals) for literals in conjunctions]
        self._made_of[row] = made, self._entries() - before
        self.live += self._made_of[row][1]

    def remove(self, row: int) -> None:
        """Take a row out; nothing happens where there is none."""
        gone, entries = self._made_of.pop(row, ([], 0))
        self._arrays["conjunction_C3"].view()[gone, 0] = -1
        self.live -= entries
        self.dead += entries

    def _entries(self) -> int:
        return sum(self._arrays[name].size for name in ("conjunction_C3", "link_N2", "literal_M", "part_N"))

    def compiled(self) -> Compiled:
        """The arrays as they are now: what changes in place copied, the rest shared."""
        views = {name: array.view() for name, array in self._arrays.items()}
        copies = {name: views[name].copy() for name in _COPIED}
        return Compiled(**views | copies, key_K=self._key_K, key_token_K=self._key_token_K)

    def _compile(self, row: int, literals: tuple[tuple[Leaf, bool], ...]) -> int:
        arrays = self._arrays
        numbers = [2 * self._leaf(leaf) + (not wanted) for leaf, wanted in literals]
        access = numbers[0] // 2 if literals and literals[0][1] else NOTHING
        heads, at, sure = self._place_to_hang(access)
        begin = arrays["literal_M"].size
        arrays["literal_M"].extend(numbers[sure:])
        conjunction = arrays["conjunction_C3"].append((row, begin, arrays["literal_M"].size))
        first = arrays["link_N2"].size
        arrays["link_N2"].extend(np.column_stack((np.full(len(at), conjunction), heads[at])))
        heads[at] = np.arange(first, arrays["link_N2"].size)
        return conjunction

    def _place_to_hang(self, leaf: int) -> tuple[NDArray[np.int32], NDArray[np.int32], bool]:
        """Heads of chains, at which of them what wants a leaf hangs, and whether it is true wherever these are met."""
        arrays = self._arrays
        kind, first, last = arrays["leaf_F3"].view()[leaf] if leaf != NOTHING else (NOTHING, 0, 0)
        if kind == matching.WORDS:
            return arrays["head_T"].view(), arrays["part_N"].view()[first:last], True
        if kind == matching.SEEN:
            return arrays["head_T"].view(), arrays["within_S2"].view()[first : first + 1, 0], False
        if kind == matching.PLACE and (cells := cells_of(*arrays["place_G4"].view()[first, :3])):
            tokens = [self._token_in(self.vocabulary.cells, cell) for cell in cells]
            return arrays["head_T"].view(), np.array(tokens, np.int32), False
        if leaf not in self._watched_of:
            self._watched_of[leaf] = arrays["watched_head_E"].append(-1)
        return arrays["watched_head_E"].view(), np.array([self._watched_of[leaf]], np.int32), False

    def _leaf(self, leaf: Leaf) -> int:
        """Its number; line items that ask for the same share one."""
        if (number := self._leaf_of.get(leaf)) is None:
            number = self._leaf_of[leaf] = self._make(leaf)
        return number

    def _make(self, leaf: Leaf) -> int:
        arrays = self._arrays
        match leaf:
            case Between(attribute, least, most):
                ends = NUMBERS.index(attribute), least, most
                return self._new_leaf(matching.RANGE, arrays["range_R3"].append(ends))
            case Near(lat, lon, km):
                place = (lat, lon, km, math.cos(math.radians(lat)))
                return self._new_leaf(matching.PLACE, arrays["place_G4"].append(place))
            case DayPart(hours, zone, fixed):
                arrays["hours_D3"].append([hours >> shift & (2**64 - 1) for shift in (0, 64, 128)])
                return self._new_leaf(matching.HOURS, arrays["clock_D2"].append((self.vocabulary.zone(zone), fixed)))
            case Saw():
                token = self._token_of_key(leaf.key)
                return self._new_leaf(matching.SEEN, arrays["within_S2"].append((token, leaf.within_s)))
            case Known(attribute):
                tokens = [self._token_of_known(attribute)]
            case _:
                tokens = [self._token_in(terms, word) for terms, word in self.vocabulary.words_of(leaf)]
        first = arrays["part_N"].size
        arrays["part_N"].extend(tokens)
        return self._new_leaf(matching.WORDS, first, arrays["part_N"].size)

    def _new_leaf(self, kind: int, first: int = 0, last: int = 0) -> int:
        return self._arrays["leaf_F3"].append((kind, first, last))

    def _new_token(self) -> int:
        return self._arrays["head_T"].append(-1)

    def _token_in(self, tokens: dict[Any, int], word: str | int) -> int:
        if (token := tokens.get(word)) is None:
            token = tokens[word] = self._new_token()
        return token

    def _token_of_known(self, attribute: str) -> int:
        terms = self.vocabulary.terms_of(attribute)
        if terms.known < 0:
            terms.known = self._new_token()
        return terms.known

    def _token_of_key(self, key: int) -> int:
        """Tokens are written before keys: a reader that meets a new key finds a token beyond its snapshot's."""
        if 2 * self._keys >= len(self._key_K):
            self._spread()
        slot = int(matching.find(np.uint64(key), self._key_K))
        if not self._key_K[slot]:
            self._key_token_K[slot] = self._new_token()
            self._key_K[slot] = key
            self._keys += 1
        return int(self._key_token_K[slot])

    def _spread(self) -> None:
        """Twice the room for keys, in arrays that no snapshot shares."""
        key_K, token_K = np.zeros(2 * len(self._key_K), np.uint64), _no_tokens(2 * len(self._key_K))
        for old in np.flatnonzero(self._key_K):
            slot = int(matching.find(self._key_K[old], key_K))
            key_K[slot], token_K[slot] = self._key_K[old], self._key_token_K[old]
        self._key_K, self._key_token_K = key_K, token_K


#: The arrays of `Compiled` that grow: type, and width of a row.
_SHAPES: dict[str, tuple[Any, int]] = {
    "head_T": (np.int32, 0), "link_N2": (np.int32, 2), "conjunction_C3": (np.int32, 3), "literal_M": (np.int32, 0),
    "leaf_F3": (np.int32, 3), "part_N": (np.int32, 0), "watched_head_E": (np.int32, 0),
    "range_R3": (np.int64, 3), "place_G4": (np.float64, 4), "hours_D3": (np.uint64, 3), "clock_D2": (np.int32, 2),
    "within_S2": (np.int64, 2),
}  # fmt: skip
#: Those of them that change in place as well: a snapshot has its own.
_COPIED = ("head_T", "watched_head_E", "conjunction_C3")


def _no_tokens(slots: int) -> NDArray[np.int32]:
    return np.full(slots, matching.NO_TOKEN, np.int32)
