"""What an impression must bring at least: by placement and whatever else the house says, by duration, by deal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranking.ads.auction import At
from ranking.ads.predicates import fold

ANY = -1
"""In place of a code: the rule holds whatever the request says. A request's code that no rule names is `ANY` too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pattern:
    """The rules that say something of the same fields: their codes as rows in order, and the floor of each."""

    fields: tuple[int, ...]
    code_NF: NDArray[np.int64]
    micros_N: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Floors:
    """Rules over fields of a request, most specific first: the earlier a field, the more it counts.

    Words are compared without case. As in Prebid's floors: between two rules that fit, the one that names the first
    field in which they differ holds.

    >>> floors = Floors.of(("placement", "country"), {("home", "*"): 300, ("*", "AT"): 200, ("*", "*"): 50})
    >>> codes = floors.codes([("home", "AT"), ("feed", "AT"), ("feed", "DE")])
    >>> floors.of_requests(codes).tolist()
    [300, 200, 50]
    """

    fields: tuple[str, ...]
    code_of: tuple[Mapping[str, int], ...]
    patterns: tuple[_Pattern, ...]

    @classmethod
    def of(cls, fields: Sequence[str], rules: Mapping[tuple[str, ...], int]) -> "Floors":
        """Floors in micros per impression by value of each field, `*` for any.

        Raises:
            ValueError: a rule of another length, or a negative floor; the message names it.
        """
        for rule, micros in rules.items():
            if len(rule) != len(fields):
                raise ValueError(f"floor {'|'.join(rule)}: {len(rule)} values for {len(fields)} fields {list(fields)}")
            if micros < 0:
                raise ValueError(f"floor {'|'.join(rule)} = {micros}: 0 or more micros per impression")
        rules = {tuple(map(fold, rule)): micros for rule, micros in rules.items()}
        words = [sorted({rule[f] for rule in rules} - {"*"}) for f in range(len(fields))]
        code_of = tuple({word: code for code, word in enumerate(values)} for values in words)
        shapes: dict[tuple[int, ...], list[tuple[tuple[int, ...], int]]] = {}
        for rule, micros in rules.items():
            named = tuple(f for f, word in enumerate(rule) if word != "*")
            shapes.setdefault(named, []).append((tuple(code_of[f][rule[f]] for f in named), micros))
        order = sorted(shapes, key=lambda named: [f not in named for f in range(len(fields))])
        return cls(tuple(fields), code_of, tuple(_pattern(named, shapes[named]) for named in order))

    def codes(self, requests: Sequence[tuple[str, ...]]) -> NDArray[np.int64]:
        """Requests' values as the codes that `of_requests` takes. Shape (R, F)."""
        code_RF = [
            [code_of.get(fold(word), ANY) for code_of, word in zip(self.code_of, words, strict=True)]
            for words in requests
        ]
        return np.array(code_RF, np.int64).reshape(len(requests), len(self.fields))

    def of_requests(self, code_RF: NDArray[np.int64]) -> NDArray[np.int64]:
        """The floor of each request in micros per impression, 0 where no rule fits. Shape (R,)."""
        floor_R = np.zeros(len(code_RF), np.int64)
        open_R = np.ones(len(code_RF), np.bool_)
        for pattern in self.patterns:
            at_R = _found(pattern.code_NF, code_RF[:, list(pattern.fields)])
            fits_R = open_R & (at_R >= 0)
            floor_R[fits_R] = pattern.micros_N[at_R[fits_R]]
            open_R &= ~fits_R
        return floor_R


def _pattern(named: tuple[int, ...], rules: list[tuple[tuple[int, ...], int]]) -> _Pattern:
    rules = sorted(rules)
    code_NF = np.array([codes for codes, _ in rules], np.int64).reshape(len(rules), len(named))
    return _Pattern(fields=named, code_NF=code_NF, micros_N=np.array([micros for _, micros in rules], np.int64))


def _found(sorted_NF: NDArray[np.int64], wanted_RF: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row of each wanted combination, -1 where there is none. Shape (R,)."""
    if not sorted_NF.shape[1]:
        return np.zeros(len(wanted_RF), np.int64)
    both, number = np.unique(np.concatenate((sorted_NF, wanted_RF)), axis=0, return_inverse=True)
    row_of = np.full(len(both), -1, np.int64)
    row_of[number[: len(sorted_NF)].ravel()] = np.arange(len(sorted_NF))
    return row_of[number[len(sorted_NF) :].ravel()]


def reserves(
    floor_C: NDArray[np.int64],
    per_second_C: NDArray[np.int64],
    duration_s_C: NDArray[np.int64],
    deal_C: NDArray[np.int8],
    deal_floor_C: NDArray[np.int64],
) -> NDArray[np.int64]:
    """What each candidate must bid at least, in micros per impression: `Auction.reserve_C`. Shape (C,).

    Without a deal, the higher of its request's floor and of `mincpmpersec` times the seconds it runs; with one, the
    deal's own floor alone, as OpenRTB has it. A house ad is no sale: give it 0.

    Args:
        floor_C: the floor of the candidate's request.
        per_second_C: micros per impression and second, 0 where the slot has none.
        duration_s_C: seconds of the creative, 0 for what is not video.
        deal_C: members of `At`.
        deal_floor_C: the deal's floor, or its price if it is fixed.
    """
    return np.where(deal_C == At.market, np.maximum(floor_C, per_second_C * duration_s_C), deal_floor_C)


def per_impression(cpm_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Floors per thousand impressions (OpenRTB's `bidfloor`, in micros) as micros per impression, rounded up."""
    return -(-cpm_N // 1000)
