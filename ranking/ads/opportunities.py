"""A batch of opportunities as arrays: words become tokens of the line items' own vocabulary, everything else a number.

Words that no line item names are dropped, so that what publishers send makes nothing grow. This is the one place that
loops over opportunities in Python: their words are Python strings, and each is looked up once.

P opportunities, A numeric attributes, Z zones; lists that differ in length follow each other, with P + 1 starts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ranking.ads.dayparts import local_hour, zone_hours
from ranking.ads.predicates import (
    ANY_LEAST,
    CLOCK,
    EARTH_KM,
    HISTORY,
    NUMBERS,
    PLACE,
    Domain,
    In,
    Opportunity,
    Prefix,
    fold,
    number_of,
    place_of,
)  # fmt: skip

MISSING = ANY_LEAST - 1
_MOST_CELLS = 64
_SLACK = 1e-6
"""Degrees, a tenth of a metre: more than rounding takes."""


class Histories(NamedTuple):
    """What P people took, and when: keys (`Saw.key`) and epoch seconds, in any order; a key may come again.

    `known_P` is false where there is no history to look at (no consent, no store): nothing of it is known then.
    """

    key_N: NDArray[np.uint64]
    time_s_N: NDArray[np.int64]
    start_P1: NDArray[np.int64]
    known_P: NDArray[np.bool_]


class Encoded(NamedTuple):
    """P opportunities as the kernel reads them.

    Attributes:
        token_N: words that some line item names, and what is known, by number; from `start_P1`.
        number_PA: in the order of `predicates.NUMBERS`; `MISSING` where missing.
        place_P2: latitude and longitude in radians, not a number where missing.
        hour_P: hour of the week at the person's own offset, -1 where missing.
        zone_hour_PZ: and in each zone that a line item names.
        now_s_P: epoch seconds.
        seen: the histories, of the same P.
    """

    token_N: NDArray[np.int32]
    start_P1: NDArray[np.int64]
    number_PA: NDArray[np.int64]
    place_P2: NDArray[np.float64]
    hour_P: NDArray[np.int16]
    zone_hour_PZ: NDArray[np.int16]
    now_s_P: NDArray[np.int64]
    seen: Histories


@dataclass(slots=True)
class Terms:
    """Tokens of one attribute: of whole words, of beginnings by their length, of hosts, and of its being known."""

    words: dict[str, int] = field(default_factory=dict)
    prefixes: dict[int, dict[str, int]] = field(default_factory=dict)
    domains: dict[str, int] = field(default_factory=dict)
    known: int = -1

    def tell(self, words: Sequence[str], into: list[int]) -> None:
        """Add the tokens that an attribute of these words has."""
        if self.known >= 0:
            into.append(self.known)
        for word in words:
            token = self.words.get(word)
            if token is None:
                token = self.words.get(fold(word))
            if token is not None:
                into.append(token)
            if self.prefixes or self.domains:
                self._parts(fold(word), into)

    def _parts(self, word: str, into: list[int]) -> None:
        starts = ((prefixes, word[:length]) for length, prefixes in tuple(self.prefixes.items()))
        into.extend(prefixes[start] for prefixes, start in starts if start in prefixes)
        labels = word.split(".") if self.domains else ()
        hosts = map(".".join, (labels[n:] for n in range(len(labels))))
        into.extend(self.domains[host] for host in hosts if host in self.domains)


@dataclass(slots=True)
class Vocabulary:
    """Words that line items name, each with a token. It only grows; one thread adds, others may read meanwhile."""

    terms: dict[str, Terms] = field(default_factory=dict)
    cells: dict[int, int] = field(default_factory=dict)
    zones: tuple[str, ...] = ()

    def terms_of(self, attribute: str) -> Terms:
        """Those of an attribute, made where there are none."""
        return self.terms.setdefault(attribute, Terms())

    def words_of(self, leaf: In | Prefix | Domain) -> list[tuple[dict[str, int], str]]:
        """Each word of a leaf, and where its token is kept."""
        terms = self.terms_of(leaf.attribute)
        match leaf:
            case In(_, words):
                return [(terms.words, word) for word in sorted(words)]
            case Prefix(_, prefix):
                return [(terms.prefixes.setdefault(len(prefix), {}), prefix)]
            case Domain(_, domain):
                return [(terms.domains, domain)]

    def zone(self, name: str) -> int:
        """Its place among the zones; -1 for no zone."""
        if name and name not in self.zones:
            self.zones = (*self.zones, name)
        return self.zones.index(name) if name else -1

    def encode(self, asked: Sequence[Opportunity], seen: Histories | None = None) -> Encoded:
        """P opportunities as arrays; `seen` stands for their own histories where it is given."""
        tokens: list[int] = []
        start_P1 = np.zeros(len(asked) + 1, np.int64)
        terms = self.terms.get
        for p, one in enumerate(asked):
            for attribute, words in one.words.items():
                if (known := terms(attribute)) is not None:
                    known.tell(words, tokens)
            start_P1[p + 1] = len(tokens)
        seen = seen or histories(asked)
        now_ms_P = np.fromiter((one.now_ms for one in asked), np.int64, len(asked))
        batch = Encoded(
            token_N=np.array(tokens, np.int32),
            start_P1=start_P1,
            number_PA=_numbers(asked),
            place_P2=_places(asked),
            hour_P=np.fromiter((local_hour(one.now_ms, one.utcoffset) for one in asked), np.int16, len(asked)),
            zone_hour_PZ=zone_hours(now_ms_P, self.zones),
            now_s_P=now_ms_P // 1000,
            seen=seen,
        )
        return self._with_known(batch)

    def _with_known(self, batch: Encoded) -> Encoded:
        """With the tokens of places, and of `Known` attributes that are no words."""
        known_of = {PLACE: ~np.isnan(batch.place_P2[:, 0]), CLOCK: batch.hour_P >= 0, HISTORY: batch.seen.known_P}
        known_of |= {name: batch.number_PA[:, a] != MISSING for a, name in enumerate(NUMBERS)}
        tokens = {name: self.terms[name].known for name in known_of if name in self.terms}
        for name, token in tokens.items():
            batch = _with_tokens(batch, np.where(known_of[name], token, -1))
        if self.cells:
            cells = _cells(batch.place_P2).tolist()
            batch = _with_tokens(batch, np.fromiter((self.cells.get(cell, -1) for cell in cells), np.int64, len(cells)))
        return batch


def histories(asked: Sequence[Opportunity]) -> Histories:
    """What opportunities say themselves of what their people took."""
    count_P = np.fromiter((len(one.seen or ()) for one in asked), np.int64, len(asked))
    seen = [one.seen for one in asked if one.seen]
    return Histories(
        key_N=np.fromiter(chain.from_iterable(seen), np.uint64, int(count_P.sum())),
        time_s_N=np.fromiter(chain.from_iterable(one.values() for one in seen), np.int64, int(count_P.sum())),
        start_P1=np.concatenate(([0], np.cumsum(count_P))),
        known_P=np.fromiter((one.seen is not None for one in asked), np.bool_, len(asked)),
    )


def cells_of(lat: float, lon: float, km: float) -> list[int]:
    """Squares of a degree that a circle may reach into; none where they would be more than `_MOST_CELLS`.

    The half width in longitude is asin(sin r / cos latitude), r the radius as an angle; a circle round a pole has none.
    """
    reach = math.degrees(km / EARTH_KM) + _SLACK
    top = math.cos(math.radians(lat))
    if abs(lat) + reach >= 90 or reach > 45:
        return []
    wide = math.degrees(math.asin(min(math.sin(math.radians(reach)) / top, 1.0))) + _SLACK
    lats = range(math.floor(lat - reach), math.floor(lat + reach) + 1)
    lons = range(math.floor(lon - wide), math.floor(lon + wide) + 1)
    if len(lats) * len(lons) > _MOST_CELLS:
        return []
    return [(y + 90) * 360 + (x + 180) % 360 for y in lats for x in lons]


def _cells(place_P2: NDArray[np.float64]) -> NDArray[np.int64]:
    """The square of a degree that each of P places lies in; -1 for none. Shape (P,)."""
    nowhere_P = np.isnan(place_P2[:, 0])
    y_P, x_P = np.floor(np.degrees(np.where(nowhere_P[:, None], 0.0, place_P2))).astype(np.int64).T
    return np.where(nowhere_P, -1, (y_P + 90) * 360 + (x_P + 180) % 360)


def _with_tokens(batch: Encoded, token_P: NDArray[np.int64]) -> Encoded:
    """With one more token for each opportunity, where it is not negative."""
    more_P = token_P >= 0
    token_N = np.insert(batch.token_N, batch.start_P1[1:][more_P], token_P[more_P])
    return batch._replace(token_N=token_N, start_P1=batch.start_P1 + np.concatenate(([0], np.cumsum(more_P))))


def _numbers(asked: Sequence[Opportunity]) -> NDArray[np.int64]:
    number_PA = np.full((len(asked), len(NUMBERS)), MISSING, np.int64)
    for p, one in enumerate(asked):
        for name in one.numbers:
            if name in _COLUMN and (number := number_of(name, one)) is not None:
                number_PA[p, _COLUMN[name]] = number
    return number_PA


def _places(asked: Sequence[Opportunity]) -> NDArray[np.float64]:
    nowhere = (np.nan, np.nan)
    return np.radians(np.array([place_of(one) or nowhere for one in asked], np.float64).reshape(-1, 2))


_COLUMN = {name: a for a, name in enumerate(NUMBERS)}
