"""A predicate as an OR of ANDs of leaves and NOTs of leaves (disjunctive normal form), bounded.

>>> both = And((Or((In.of("os", "ios"), In.of("os", "tvos"))), Not(In.of("country", "us"))))
>>> [[(sorted(leaf.words), wanted) for leaf, wanted in clause] for clause in disjuncts(both)]
[[(['ios', 'tvos'], True), (['us'], False)]]
"""

from collections.abc import Iterable
from typing import TypeAlias

from ranking.ads.predicates import (
    KEY_VALUE_SHARE,
    KNOWN_SHARE,
    NEAR_SHARE,
    PREFIX_SHARE,
    RANGE_SHARE,
    SAW_SHARE,
    WORDS,
    And,
    Between,
    DayPart,
    Domain,
    In,
    Known,
    Leaf,
    Near,
    Not,
    Or,
    Predicate,
    Prefix,
    Saw,
)  # fmt: skip
from ranking.errors import TargetingRefused

MAX_CONJUNCTIONS = 256
"""ANDs that one line item may come to. Sets of words need none of them: `genre` in a, b is one leaf."""
Conjunctions: TypeAlias = tuple[tuple[tuple[Leaf, bool], ...], ...]
Clause: TypeAlias = frozenset[tuple[Leaf, bool]]
"""Leaves that all have to be as wanted: true, or false."""


def disjuncts(predicate: Predicate) -> Conjunctions:
    """The conjunctions of which at least one has to hold, each with its leaves, rarest wanted ones first.

    No conjunction contradicts itself and none is part of another. One without leaves always holds; none never do.

    Raises:
        TargetingRefused: More than `MAX_CONJUNCTIONS` on the way. The line item's previous version stays.
    """
    return tuple(tuple(sorted(clause, key=_rank)) for clause in _clauses(predicate, True))


def share(leaf: Leaf) -> float:
    """Of which part of opportunities a leaf is true, roughly: see `predicates.WORDS`."""
    match leaf:
        case In(attribute, words):
            return min(len(words) * WORDS.get(attribute, KEY_VALUE_SHARE), 1.0)
        case DayPart(hours):
            return hours.bit_count() / 168
        case Prefix() | Domain():
            return PREFIX_SHARE
        case Near(_, _, km):
            return min(NEAR_SHARE * max(km / 50, 1.0) ** 2, 1.0)
        case Saw():
            return SAW_SHARE
        case Between():
            return RANGE_SHARE
        case Known():
            return KNOWN_SHARE


def _rank(literal: tuple[Leaf, bool]) -> tuple[bool, float]:
    """Wanted ones first, the rarest before the others; of the unwanted the most common first."""
    leaf, wanted = literal
    return not wanted, share(leaf) if wanted else -share(leaf)


def _clauses(predicate: Predicate, wanted: bool) -> set[Clause]:
    match predicate:
        case Not(part):
            return _clauses(part, not wanted)
        case And(parts) | Or(parts):
            each = [_clauses(part, wanted) for part in parts]
            return _all_of(each) if isinstance(predicate, And) == wanted else _any_of(each)
        case In(_, words) if not words:
            return set() if wanted else {frozenset()}
        case _:
            return {frozenset(((predicate, wanted),))}


def _any_of(each: Iterable[set[Clause]]) -> set[Clause]:
    """The union; single sets of words of one attribute become one set."""
    union = set[Clause]().union(*each)
    words: dict[str, set[str]] = {}
    for clause in [clause for clause in union if len(clause) == 1]:
        leaf, wanted = next(iter(clause))
        if wanted and isinstance(leaf, In):
            words.setdefault(leaf.attribute, set()).update(leaf.words)
            union.discard(clause)
    union |= {frozenset(((In(attribute, frozenset(some)), True),)) for attribute, some in words.items()}
    return _bounded(union)


def _all_of(each: Iterable[set[Clause]]) -> set[Clause]:
    product: set[Clause] = {frozenset()}
    for part in sorted(each, key=len):
        product = {a | b for a in product for b in part}
        product = _bounded({a for a in product if not any((leaf, not wanted) in a for leaf, wanted in a)})
    return product


def _bounded(clauses: set[Clause]) -> set[Clause]:
    """Without those that another one makes superfluous."""
    kept: list[Clause] = []
    for clause in sorted(clauses, key=len):
        if not any(smaller <= clause for smaller in kept):
            kept.append(clause)
        if len(kept) > MAX_CONJUNCTIONS:
            raise TargetingRefused("targeting", f"more than {MAX_CONJUNCTIONS} conjunctions", _ALLOWED)
    return set(kept)


_ALLOWED = f"at most {MAX_CONJUNCTIONS} once ORs inside ANDs are multiplied out; use lists of words, or more line items"
