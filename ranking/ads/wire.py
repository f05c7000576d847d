"""Targeting as campaign records write it, and back: objects are ANDs of their members.

>>> tv = parse({"country": ["US", "CA"], "not": {"genre": "horror"}, "content_rating": {"max": 16}})
>>> to_json(tv)["and"][0]
{'country': ['ca', 'us']}
>>> parse({"country": []})
Traceback (most recent call last):
ranking.errors.TargetingRefused: targeting.country is []; allowed: a word, a list of 1 to 10000 words, ...

`docs/ads.md` has the table of members. What a member means is in `ranking.ads.predicates`.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, get_args

from ranking.ads.conjunctions import disjuncts
from ranking.ads.dayparts import HOURS, require_zone
from ranking.ads.predicates import (
    ANY_LEAST,
    ANY_MOST,
    CLOCK,
    HISTORY,
    KEY_VALUE,
    NUMBERS,
    PLACE,
    WORDS,
    ZONES,
    And,
    Between,
    DayPart,
    Domain,
    In,
    Kind,
    Known,
    Leaf,
    Near,
    Not,
    Or,
    Predicate,
    Prefix,
    Saw,
    except_for,
    fold,
)  # fmt: skip
from ranking.errors import TargetingRefused

MAX_DEPTH, MAX_LEAVES, MAX_WORDS, MAX_LETTERS = 8, 256, 10_000, 128
"""Of one line item: nested ANDs, ORs and NOTs; leaves; words in them; characters of a word."""
MAX_WITHIN_S = 366 * 86_400
MAX_KM = 20_040
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
KeyOf = Callable[[Kind, str], int]


def parse(
    value: object,
    *,
    field: str = "targeting",
    dayparts: Sequence[object] = (),
    zone: str = "UTC",
    key_of: KeyOf | None = None,
) -> Predicate:
    """The predicate that a line item's `targeting` says; without any, every opportunity will do.

    Args:
        value: decoded JSON.
        field: what errors call it.
        dayparts: what the line item says beside it, as the member of that name; errors call it so.
        zone: the campaign's, for day-parts of people whose `utcoffset` is not told.
        key_of: what stands for an item or category in histories (`Saw.key`); without it `saw` is refused.

    Raises:
        TargetingRefused: Names the field, the value and what is allowed. The previous version of the line item stays.
    """
    _zone(zone, f"{field}: zone")
    reader = _Reader(zone, key_of, _Left(MAX_LEAVES, MAX_WORDS))
    predicate = reader.object(value if value is not None else {}, field, MAX_DEPTH)
    if dayparts:
        predicate = And((predicate, reader.dayparts(dayparts, f"{field.removesuffix('targeting')}dayparts")))
    try:
        disjuncts(predicate)
    except TargetingRefused as error:
        raise TargetingRefused(field, error.value, error.allowed) from None
    return predicate


def to_json(predicate: Predicate) -> dict[str, Any]:
    """A predicate as JSON that `parse` reads as an equal one, of the same zone, where its depth is still allowed."""
    match predicate:
        case And(()):
            return {}
        case And(parts):
            return {"and": [to_json(part) for part in parts]}
        case Or(parts):
            return {"or": [to_json(part) for part in parts]}
        case Not(part):
            return {"not": to_json(part)}
        case _:
            return _leaf_json(predicate)


def _leaf_json(leaf: Leaf) -> dict[str, Any]:
    match leaf:
        case In(attribute, words):
            return _member(attribute, sorted(words))
        case Prefix(attribute, prefix):
            return _member(attribute, {"prefix": prefix})
        case Domain(attribute, domain):
            return _member(attribute, {"domain": domain})
        case Between(attribute, least, most):
            ends = {"min": least, "max": most}
            return {attribute: {end: n for end, n in ends.items() if n not in (ANY_LEAST, ANY_MOST)}}
        case Near(lat, lon, km):
            return {"near": {"lat": lat, "lon": lon, "km": km}}
        case Saw(kind, name, within_s):
            return {"saw": {kind: name, "within": f"{within_s}s"}}
        case Known(attribute):
            return {"known": attribute}
        case DayPart():
            clock = {"zone": leaf.zone} if leaf.fixed else {}
            hours = [hour for hour in range(HOURS) if leaf.hours >> hour & 1]
            return {"dayparts": [{"days": [DAYS[h // 24]], "from": h % 24, "until": h % 24 + 1} | clock for h in hours]}


def _member(attribute: str, said: object) -> dict[str, Any]:
    if attribute.startswith(KEY_VALUE):
        return {"keyvalues": {attribute.removeprefix(KEY_VALUE): said}}
    return {attribute: said}


@dataclass(slots=True)
class _Left:
    """What one line item may still say."""

    leaves: int
    words: int


@dataclass(frozen=True, slots=True)
class _Reader:
    zone: str
    key_of: KeyOf | None
    left: _Left

    def object(self, value: object, field: str, depth: int) -> Predicate:
        if not isinstance(value, Mapping):
            raise TargetingRefused(field, value, "an object")
        if depth <= 0:
            raise TargetingRefused(field, "nested deeper", f"at most {MAX_DEPTH} objects in each other")
        parts = [self._read(str(name), said, f"{field}.{name}", depth - 1) for name, said in value.items()]
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _read(self, name: str, said: Any, field: str, depth: int) -> Predicate:
        if name in ("and", "or"):
            inner = [self.object(one, f"{field}[{n}]", depth) for n, one in enumerate(_list(said, field))]
            return (And if name == "and" else Or)(tuple(inner))
        if name in ("not", "known_not"):
            unwanted = self.object(said, field, depth)
            return Not(unwanted) if name == "not" else except_for(unwanted)
        self._spend(1, field)
        if name in NUMBERS:
            return _between(name, said, field)
        if name in WORDS:
            return self._words(name, said, field)
        reader = {
            "keyvalues": self._key_values, "near": _near, "saw": self._saw, "known": _known, "dayparts": self.dayparts
        }.get(name)  # fmt: skip
        if reader is None:
            raise TargetingRefused(field, name, ", ".join((*_OPERATORS, *WORDS, *NUMBERS)))
        return reader(said, field)

    def _spend(self, leaves: int, field: str) -> None:
        self.left.leaves -= leaves
        if self.left.leaves < 0:
            raise TargetingRefused(field, f"leaf {MAX_LEAVES + 1}", f"at most {MAX_LEAVES} leaves in a line item")

    def _words(self, attribute: str, said: Any, field: str) -> Predicate:
        if isinstance(said, Mapping):
            if set(said) not in ({"prefix"}, {"domain"}):
                raise TargetingRefused(field, dict(said), 'a list of words, {"prefix": …} or {"domain": …}')
            kind = Prefix if "prefix" in said else Domain
            words = self._folded(next(iter(said.values())), field)
            self._spend(len(words) - 1, field)
            made = tuple(kind(attribute, word) for word in words)
            return made[0] if len(made) == 1 else Or(made)
        return In(attribute, frozenset(self._folded(said, field)))

    def _folded(self, said: Any, field: str) -> list[str]:
        words = [said] if isinstance(said, str) else said
        if not isinstance(words, list | tuple) or not words:
            raise TargetingRefused(field, said, _A_WORD)
        for word in words:
            if not isinstance(word, str) or not 0 < len(word) <= MAX_LETTERS or word != word.strip():
                raise TargetingRefused(field, word, _A_WORD)
        self.left.words -= len(words)
        if self.left.words < 0:
            raise TargetingRefused(field, f"{len(words)} words", f"at most {MAX_WORDS} words in a line item")
        return sorted({fold(word) for word in words})

    def _key_values(self, said: Any, field: str) -> Predicate:
        if not isinstance(said, Mapping) or not said:
            raise TargetingRefused(field, said, "an object of keys and lists of words")
        for key in said:
            if not isinstance(key, str) or not _KEY.fullmatch(key):
                raise TargetingRefused(field, key, "keys of 1 to 64 letters, digits, _ . and -")
        self._spend(len(said) - 1, field)
        made = [self._words(KEY_VALUE + fold(key), words, f"{field}.{key}") for key, words in said.items()]
        return made[0] if len(made) == 1 else And(tuple(made))

    def _saw(self, said: Any, field: str) -> Predicate:
        allowed = '{"item" or "category": its id, "within": a time such as 90s, 30m, 12h or 7d, at most 366d}'
        kinds = [kind for kind in get_args(Kind) if isinstance(said, Mapping) and kind in said]
        if len(kinds) != 1 or set(said) != {kinds[0], "within"} or not isinstance(said[kinds[0]], str):
            raise TargetingRefused(field, said, allowed)
        span = re.fullmatch(r"(\d{1,9})([smhd])", said["within"]) if isinstance(said["within"], str) else None
        within_s = int(span[1]) * _UNITS[span[2]] if span else 0
        if not 0 < within_s <= MAX_WITHIN_S or not 0 < len(said[kinds[0]]) <= 512:
            raise TargetingRefused(field, said, allowed)
        if self.key_of is None:
            raise TargetingRefused(field, said, "nothing: no history is kept here")
        return Saw(kinds[0], said[kinds[0]], within_s, self.key_of(kinds[0], said[kinds[0]]))

    def dayparts(self, said: Any, field: str) -> Predicate:
        by_clock: dict[tuple[str, bool], list[int]] = {}
        for n, part in enumerate(_list(said, field)):
            hours, zone = _hours(part, f"{field}[{n}]")
            by_clock.setdefault((zone or self.zone, zone is not None), []).append(hours)
        made = [DayPart(reduce(int.__or__, hours), *clock) for clock, hours in by_clock.items()]
        return made[0] if len(made) == 1 else Or(tuple(made))


_OPERATORS = ("and", "or", "not", "known_not", "known", "keyvalues", "near", "saw", "dayparts")
_A_WORD = f"a word, a list of 1 to {MAX_WORDS} words, each of 1 to {MAX_LETTERS} characters without spaces around it"


def _list(said: Any, field: str) -> list[Any]:
    if not isinstance(said, list | tuple) or not said:
        raise TargetingRefused(field, said, "a list with at least one object")
    return list(said)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _between(attribute: str, said: Any, field: str) -> Between:
    ends = {"min": said, "max": said} if _whole(said) else said
    if not isinstance(ends, Mapping) or not ends or set(ends) - {"min", "max"} or not all(map(_whole, ends.values())):
        raise TargetingRefused(field, said, 'a whole number, or {"min": …, "max": …} with one or both of them')
    least, most = ends.get("min", ANY_LEAST), ends.get("max", ANY_MOST)
    if not ANY_LEAST <= least <= most <= ANY_MOST:
        raise TargetingRefused(field, said, "min up to max")
    return Between(attribute, least, most)


def _near(said: Any, field: str) -> Near:
    names = ("lat", "lon", "km")
    lat, lon, km = (said.get(name) if isinstance(said, Mapping) and set(said) == set(names) else None for name in names)
    numbers = [n for n in (lat, lon, km) if isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n)]
    if len(numbers) != 3 or abs(numbers[0]) > 90 or abs(numbers[1]) > 180 or not 0 < numbers[2] <= MAX_KM:
        raise TargetingRefused(field, said, f"lat -90 to 90, lon -180 to 180, km above 0 and up to {MAX_KM}")
    return Near(*map(float, numbers))


def _known(said: Any, field: str) -> Predicate:
    names = [said] if isinstance(said, str) else _list(said, field)
    for name in names:
        key_value = isinstance(name, str) and name.startswith(KEY_VALUE) and _KEY.fullmatch(name)
        if not key_value and name not in (*WORDS, *NUMBERS, PLACE, CLOCK, HISTORY):
            raise TargetingRefused(field, name, ", ".join((*WORDS, *NUMBERS, PLACE, CLOCK, HISTORY, "kv.NAME")))
    made = [Known(fold(name)) for name in names]
    return made[0] if len(made) == 1 else And(tuple(made))


def _hours(part: Any, field: str) -> tuple[int, str | None]:
    """Hours of the week as bits, and the zone if one is said; hours past midnight belong to the day that they begin."""
    if not isinstance(part, Mapping) or set(part) - {"days", "from", "until", "zone"}:
        raise TargetingRefused(field, part, '{"days": [mon …], "from": hour, "until": hour, "zone": IANA name}')
    days, begin, end = part.get("days", DAYS), part.get("from", 0), part.get("until", 24)
    if not isinstance(days, list | tuple) or not days or not all(day in DAYS for day in days):
        raise TargetingRefused(f"{field}.days", days, ", ".join(DAYS))
    if not _whole(begin) or not _whole(end) or not 0 <= begin < 24 or not 0 < end <= 24 or begin == end:
        raise TargetingRefused(field, part, "from 0 to 23, until 1 to 24, and not both the same")
    zone = part.get("zone")
    if zone is not None:
        _zone(zone, f"{field}.zone")
    begins = (DAYS.index(day) * 24 + begin for day in days)
    length = (end - begin) % 24 or 24
    return reduce(int.__or__, (1 << (hour + n) % HOURS for hour in begins for n in range(length))), zone


def _zone(zone: Any, field: str) -> None:
    try:
        require_zone(zone if isinstance(zone, str) else "")
    except ValueError:
        raise TargetingRefused(field, zone, ZONES) from None
