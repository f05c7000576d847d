"""What may be shown to whom: limits of items as columns, and a mask of item rows per class of viewers.

A limit that an item does not state admits everybody, and what a viewer does not state is not judged. Viewers who cannot
be told apart by any item's limits are of one class, so that a catalogue without limits has one.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.times import Changes

ANY, NOWHERE = -1, -2
"""Bits of words: not judged, and a word that no item names."""
UNREADABLE_AGE = 255
"""The age of a rating that nobody can read: such an item is shown only where there is no limit."""
_BITS = 256
_REMEMBERED = 10_000
_TAG = re.compile(r"([a-z]{2,3})(?:[-_].*)?", re.IGNORECASE | re.DOTALL)
_NO_LANGUAGE = frozenset(("mis", "mul", "und", "zxx"))
_RENAMED = {"in": "id", "iw": "he", "ji": "yi", "jw": "jv", "mo": "ro"}
"""Subtags that the registry of BCP 47 calls deprecated, and what they are today: Java wrote some until release 17."""
_AGES = {
    "g": 0, "tv-g": 0, "tv-y": 0, "u": 0, "all": 0, "tv-y7": 7, "pg": 8, "tv-pg": 10, "pg-13": 13, "tv-14": 14,
    "r": 17, "tv-ma": 17, "nc-17": 17,
}  # fmt: skip


class Viewer(NamedTuple):
    """Who looks, and where: country, age limit in years, surface, language; empty and None where that is not said."""

    country: str = ""
    limit: int | None = None
    surface: str = ""
    language: str = ""


class ViewerClass(NamedTuple):
    """Viewers that the same items may be shown to: the limit, and bits of the other words (`ANY`, `NOWHERE`)."""

    country: int = ANY
    limit: int = UNREADABLE_AGE
    surface: int = ANY
    language: int = ANY


@dataclass(slots=True, eq=False, weakref_slot=True)
class Mask:
    """Which item rows may be shown. Shape (N,), by row.

    One object stays one mask, so that what follows is cached: rows change in place, and `changed` says which did.
    """

    allowed_N: NDArray[np.bool_]
    changed: Changes = field(default_factory=Changes)

    def allow(self, rows_R: NDArray[np.int32], allowed_R: NDArray[np.bool_]) -> None:
        """Change some rows."""
        self.allowed_N[rows_R] = allowed_R
        self.changed.add(rows_R)


class Words:
    """Up to 256 words, each a bit of four 64-bit numbers per item; a word beyond them admits nobody."""

    def __init__(self) -> None:
        self._bit_of: dict[str, int] = {}
        self._limits: dict[tuple[str, ...], NDArray[np.uint64]] = {(): np.full(4, np.iinfo(np.uint64).max, np.uint64)}

    def bit(self, word: str) -> int:
        """The bit that a viewer's word is: `ANY` where it or every item's limit is missing."""
        return self._bit_of.get(word.casefold(), NOWHERE) if word and self._bit_of else ANY

    def limits(self, words: tuple[str, ...]) -> NDArray[np.uint64]:
        """The limit that an item states, as bits; all of them without any word. Shape (4,)."""
        if (known := self._limits.get(words)) is not None:
            return known
        bits = [self._bit_of.setdefault(word.casefold(), min(len(self._bit_of), _BITS)) for word in words]
        flags = np.zeros(_BITS + 1, np.bool_)
        flags[bits] = True
        limit_4 = np.packbits(flags[:_BITS], bitorder="little").view(np.uint64)
        if len(self._limits) < _REMEMBERED:
            self._limits[words] = limit_4
        return limit_4

    def limits_of(self, words_R: Iterable[tuple[str, ...]]) -> NDArray[np.uint64]:
        """The limits that R items state, most of them the same few. Shape (R, 4)."""
        code_of: dict[tuple[str, ...], int] = {}
        codes = [code_of.setdefault(words, len(code_of)) for words in words_R]
        return np.array([self.limits(words) for words in code_of], np.uint64).reshape(-1, 4)[codes]

    @staticmethod
    def admitted(limit_N4: NDArray[np.uint64], bit: int) -> NDArray[np.bool_] | np.bool_:
        """Which items admit viewers with a bit. Shape (N,), or one answer for all."""
        if bit == ANY:
            return np.True_
        if not 0 <= bit < _BITS:
            everywhere_N: NDArray[np.bool_] = (limit_N4 == np.iinfo(np.uint64).max).all(1)
            return everywhere_N
        found_N: NDArray[np.bool_] = (limit_N4[:, bit // 64] >> np.uint64(bit % 64)) & np.uint64(1) != 0
        return found_N


@lru_cache(maxsize=1024)
def age_of(rating: str | None) -> int:
    """The age from which a rating admits: its number, or that of a known US rating; 0 where nothing is rated.

    >>> age_of("PG-13"), age_of("FSK 16"), age_of("12+"), age_of(None), age_of("mature")
    (13, 16, 12, 0, 255)
    """
    word = (rating or "").strip().casefold()
    if not word or word in _AGES:
        return _AGES.get(word, 0)
    digits = "".join(c if c.isascii() and c.isdigit() else " " for c in word).split()
    return int(digits[0]) if len(digits) == 1 and len(digits[0]) < 3 else UNREADABLE_AGE


@lru_cache(maxsize=4096)
def language_of(tag: str | None) -> str:
    """The language that a tag says (BCP 47): its primary subtag; empty where it says none or is no tag.

    >>> language_of("pt-BR"), language_of("DE_at"), language_of("iw"), language_of("zxx"), language_of("German")
    ('pt', 'de', 'he', '', '')
    """
    found = _TAG.fullmatch((tag or "").strip())
    word = found[1].lower() if found else ""
    return "" if word in _NO_LANGUAGE else _RENAMED.get(word, word)
