"""Vectors of items hardly anybody took yet, made of what the catalogue says of them.

What a record says is cut into *words*: categories, series and creators, language, decade and year, words of the title,
each a hash. A word has learned by how much the vectors of the items that have it differ from what the more telling
words before it say already. The mean of all items, and what its words add, is what an item is taken to be as long as
nobody took it; `blended` goes over from that to the item's own vector as it is taken.

N items, R of them asked for, W words of an item, V hashes, D components; an item's row of words is -1 padded kind by
kind.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from embeddings.jit import kernel

Floats = NDArray[np.float32]
Words = NDArray[np.int16]

_PLACES = [0, 6, 10, 11, 13, 16]
"""Where among an item's words each kind begins, the most telling first: categories, makers, language, year, title."""
_KINDS = np.array(_PLACES)
WORDS = _PLACES[-1]
HASHES = 1 << 15
TRUST = 16.0
"""Takes that leave half of what the words say; found, as the scale below, by `python -m benchmarks.cold_items`."""
_FEW = 2.0
"""Items from which a word has learned half of what they say."""
_TEACHERS = 1 << 17
_SCALE = 0.75
"""How popular an item that nobody took is taken to be, beside the mean item that somebody did."""
_APART = 0.03
"""How far items that the catalogue says the same of stand apart, of the length of their vectors."""
_NOTHING_KNOWN = 1e-6
_TITLE_WORD = re.compile(r"\w{3,}")


def words_of(
    *,
    categories: Sequence[str] = (),
    makers: Sequence[str] = (),
    language: str = "",
    year: int = 0,
    title: str = "",
) -> list[int]:
    """The W words of one catalogue record. Of a kind's words the first count; case does not.

    >>> words_of(categories=("Drama",), year=1997)[10:13] == words_of(categories=("drama",), year=1997)[10:13]
    True
    """
    often = _remembered(0, tuple(categories)) + _remembered(1, tuple(makers))
    often += _remembered(2, (language,) if language else ()) + _dated(year)
    return often + _padded(4, _TITLE_WORD.findall(title))


def _padded(kind: int, words: Sequence[str]) -> list[int]:
    """The words of a kind in its places, -1 in those that are left."""
    places = _PLACES[kind + 1] - _PLACES[kind]
    hashes = [_hash(kind, word) for word in words[:places]]
    return hashes + [-1] * (places - len(hashes))


@lru_cache(maxsize=1 << 13)
def _remembered(kind: int, words: tuple[str, ...]) -> list[int]:
    """As `_padded`, of what many items have alike; the list is not to be changed."""
    return _padded(kind, words)


@lru_cache(maxsize=256)
def _dated(year: int) -> list[int]:
    return _padded(3, (str(year), f"{year // 10}0s") if year else ())


@lru_cache(maxsize=1 << 16)
def _hash(kind: int, word: str) -> int:
    return xxhash.xxh32_intdigest(f"{kind}\0{word.casefold()}".encode()) % HASHES


class Content(NamedTuple):
    """What words say of vectors: the mean of all items, and what each word adds to it."""

    mean_D: Floats
    word_VD: Floats

    @classmethod
    def unlearned(cls, width: int) -> "Content":
        """Nothing is known of any word."""
        return cls(np.zeros(width, np.float32), np.zeros((HASHES, width), np.float32))

    @classmethod
    def learned(cls, words_NW: Words, own_ND: Floats, count_N: Floats) -> "Content":
        """Learn of N items with vectors of their own; one that was taken n times counts n / (n + `TRUST`).

        Kind by kind, of what the kinds before leave unsaid: a word adds the mean over its items, drawn to nothing as
        if a few more items had it. An item with several words of a kind is what they add on average. Of very many items
        only those taken most are learned of.
        """
        if len(own_ND) > _TEACHERS:
            most = np.sort(np.argpartition(-count_N, _TEACHERS)[:_TEACHERS])
            words_NW, own_ND, count_N = words_NW[most], own_ND[most], count_N[most]
        content = cls.unlearned(own_ND.shape[1])
        share_N = (count_N / (count_N + np.float32(TRUST))).astype(np.float32)
        content.mean_D[:] = share_N @ own_ND / max(float(share_N.sum()), 1e-9)
        _learn(words_NW, own_ND, share_N, content.mean_D, content.word_VD, _KINDS)
        return content

    def vectors(self, words_RW: Words, ids_R: NDArray[np.uint64]) -> Floats:
        """Vectors of R items by their words and, a little, by their ids: no two are the same. Shape (R, D)."""
        out_RD = np.empty((len(words_RW), len(self.mean_D)), np.float32)
        _vectors(words_RW, ids_R, self.mean_D, self.word_VD, _KINDS, out_RD)
        return out_RD


def blended(own_RD: Floats, content_RD: Floats, count_R: Floats) -> Floats:
    """Vectors of R items taken n times: their own, and k / (n + k) of what their words say, k = `TRUST`. Shape (R, D).

    The own vector is not weighted by n / (n + k) as well: it is as short as its item is seldom taken already, and
    shortened once more, it brings R@10 of ML-100K by taste alone from .197 to .195.

    >>> own_RD, content_RD = np.array([[0, 0], [1, 8]], np.float32), np.ones((2, 2), np.float32)
    >>> blended(own_RD, content_RD, np.array([0, 48], np.float32)).tolist()
    [[1.0, 1.0], [1.25, 8.25]]
    """
    out_RD: Floats = own_RD + content_RD * (np.float32(TRUST) / (count_R + np.float32(TRUST)))[:, None]
    return out_RD


@kernel
def _said(word_W: Words, kinds: int, mean_D: Floats, word_VD: Floats, kind_K: NDArray[np.int64], out_D: Floats) -> None:
    """The mean item, and what an item's words of the first `kinds` kinds add to it."""
    out_D[:] = mean_D
    for kind in range(kinds):
        held = 0
        for w in range(kind_K[kind], kind_K[kind + 1]):
            held += word_W[w] >= 0
        share = np.float32(1) / np.float32(max(held, 1))
        for w in range(kind_K[kind], kind_K[kind + 1]):
            if word_W[w] >= 0:
                word_D = word_VD[word_W[w]]
                for d in range(len(out_D)):
                    out_D[d] += word_D[d] * share


@kernel
def _learn(
    words_NW: Words, own_ND: Floats, share_N: Floats, mean_D: Floats, word_VD: Floats, kind_K: NDArray[np.int64]
) -> None:
    said_D, items_V = np.empty_like(mean_D), np.zeros(len(word_VD), np.float32)
    sum_VD = np.zeros_like(word_VD)
    for kind in range(len(kind_K) - 1):
        items_V[:] = 0
        sum_VD[:] = 0
        for n in range(len(words_NW)):
            if share_N[n] <= 0:
                continue
            _said(words_NW[n], kind, mean_D, word_VD, kind_K, said_D)
            for w in range(kind_K[kind], kind_K[kind + 1]):
                word = words_NW[n, w]
                if word >= 0:
                    items_V[word] += share_N[n]
                    sum_D, own_D = sum_VD[word], own_ND[n]
                    for d in range(len(mean_D)):
                        sum_D[d] += share_N[n] * (own_D[d] - said_D[d])
        for v in range(len(word_VD)):
            if items_V[v] > 0:
                for d in range(len(mean_D)):
                    word_VD[v, d] += sum_VD[v, d] / (items_V[v] + np.float32(_FEW))


@kernel
def _vectors(
    words_RW: Words,
    ids_R: NDArray[np.uint64],
    mean_D: Floats,
    word_VD: Floats,
    kind_K: NDArray[np.int64],
    out_RD: Floats,
) -> None:
    for r in range(len(words_RW)):
        out_D, length = out_RD[r], np.float32(0)
        _said(words_RW[r], len(kind_K) - 1, mean_D, word_VD, kind_K, out_D)
        for d in range(len(mean_D)):
            out_D[d] *= np.float32(_SCALE)
            length += out_D[d] * out_D[d]
        apart = np.float32(_APART) * np.sqrt(length / np.float32(len(mean_D))) + np.float32(_NOTHING_KNOWN)
        state = ids_R[r]
        for d in range(len(mean_D)):
            state = _drawn(state)
            out_D[d] += apart * np.float32((np.int64(state >> np.uint64(40)) - (1 << 23)) / (1 << 23))


@kernel
def _drawn(state: np.uint64) -> np.uint64:
    """The next of a row of numbers that look drawn (SplitMix64: Steele, Lea and Flood, 2014)."""
    z = state + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
