"""What a line item asks of an opportunity to show an ad: leaves, and AND, OR, NOT over them, as frozen values.

Semantics are two-valued. A leaf about something that the opportunity does not say is false, whatever it asks; `Not` of
it is therefore true (the weak NOT of Whang et al., "Indexing Boolean Expressions", VLDB 2009). That is what ad-ops mean
by "not where key-value sport=golf". Brand safety means the other one: `except_for` is their strong NOT, which is false
as well where the opportunity does not say, so that an unrated film is no film for all ages.

>>> film = Opportunity(now_ms=0, words={"country": ("US",)})
>>> holds(In.of("country", "us"), film), holds(Between("content_rating", 17, ANY_MOST), film)
(True, False)
>>> adult = Between("content_rating", 17, ANY_MOST)
>>> holds(Not(adult), film), holds(except_for(adult), film)
(True, False)
"""

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ranking.ads.dayparts import hour_of_week, local_hour, require_zone
from ranking.errors import TargetingRefused

ANY_LEAST, ANY_MOST = -(2**62), 2**62
"""An open end of a range. Numbers of opportunities beyond them are taken for missing."""
EARTH_KM = 6_371.0088
"""Mean radius, IUGG."""
KEY_VALUE = "kv."
"""What the names of publisher key-values begin with: `kv.section`."""

#: Attributes that are words, and which part of opportunities one word of each is true of, roughly: the index looks at a
#: conjunction only where its rarest leaf is true. A wrong share costs time, never a wrong answer.
WORDS: dict[str, float] = {
    "country": 0.1, "region": 0.03, "city": 0.01,
    "devicetype": 0.3, "os": 0.3, "language": 0.3,
    "tagid": 0.02, "format": 0.3, "surface": 0.2, "domain": 0.02, "bundle": 0.02,
    "genre": 0.1, "cat": 0.05, "series": 0.002, "content_language": 0.3,
    "segment": 0.02,
}  # fmt: skip
KEY_VALUE_SHARE, PREFIX_SHARE, NEAR_SHARE, SAW_SHARE, RANGE_SHARE, KNOWN_SHARE = 0.05, 0.05, 0.002, 0.005, 0.4, 0.9
#: Attributes that are whole numbers: seconds, years of age, pixels.
NUMBERS = ("content_len", "content_rating", "minduration", "maxduration", "w", "h")
ZONES = "a name of the time-zone database such as Europe/Berlin"
PLACE, CLOCK, HISTORY = "geo", "utcoffset", "history"
Kind = Literal["item", "category"]


@dataclass(frozen=True, slots=True)
class In:
    """Any of the attribute's words is one of these; without words never. Words are as `fold` makes them: use `of`."""

    attribute: str
    words: frozenset[str]

    @classmethod
    def of(cls, attribute: str, *words: str) -> "In":
        """Compare without case."""
        return cls(attribute, frozenset(map(fold, words)))


@dataclass(frozen=True, slots=True)
class Prefix:
    """Any of the attribute's words begins with this folded text."""

    attribute: str
    prefix: str


@dataclass(frozen=True, slots=True)
class Domain:
    """Any of the attribute's words is this folded host or lies below it: `news.example` of `example`."""

    attribute: str
    domain: str


@dataclass(frozen=True, slots=True)
class Between:
    """The attribute's number is from `least` to `most`, both included."""

    attribute: str
    least: int
    most: int

    def __post_init__(self) -> None:
        """Raises TargetingRefused: no such attribute, or an end that nobody can hold."""
        if self.attribute not in NUMBERS:
            raise TargetingRefused("attribute", self.attribute, ", ".join(NUMBERS))
        if not ANY_LEAST <= self.least <= self.most <= ANY_MOST:
            raise TargetingRefused(self.attribute, (self.least, self.most), "min up to max, within ±2^62")


@dataclass(frozen=True, slots=True)
class Near:
    """The place is at most `km` from here as the crow flies (haversine on a sphere of `EARTH_KM`). Degrees."""

    lat: float
    lon: float
    km: float


@dataclass(frozen=True, slots=True)
class DayPart:
    """The hour is one of these: bit h of `hours` is hour h of the week, Monday's first is 0.

    Judged on the clock that the person's `utcoffset` shows; on that of `zone` where there is none, or if `fixed`.
    """

    hours: int
    zone: str = ""
    fixed: bool = False

    def __post_init__(self) -> None:
        """Raises TargetingRefused: a zone that nobody knows would stop every batch."""
        try:
            require_zone(self.zone or "UTC")
        except ValueError:
            raise TargetingRefused("zone", self.zone, ZONES) from None


@dataclass(frozen=True, slots=True)
class Saw:
    """The person took this item, or one of this category, at most so many seconds ago.

    `key` is what stands for it in histories: a number from 1 to 2^63 - 1.
    """

    kind: Kind
    name: str
    within_s: int
    key: int

    def __post_init__(self) -> None:
        """Raises TargetingRefused: a key that no history can hold."""
        if not 0 < self.key < 2**63:
            raise TargetingRefused("key", self.key, "1 to 2^63 - 1")


@dataclass(frozen=True, slots=True)
class Known:
    """The opportunity says something of the attribute, if only that there is none: `()` is known, absent is not."""

    attribute: str


@dataclass(frozen=True, slots=True)
class And:
    """All of them; true without any."""

    of: tuple["Predicate", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of them; false without any."""

    of: tuple["Predicate", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Weak: true as well where the opportunity does not say what is asked about."""

    of: "Predicate"


Leaf: TypeAlias = In | Prefix | Domain | Between | Near | DayPart | Saw | Known
Predicate: TypeAlias = Leaf | And | Or | Not
ALWAYS = And(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Opportunity:
    """What is known of one ad slot about to show. What is absent, or out of range, is missing.

    Attributes:
        now_ms: the event time at which it is judged, epoch milliseconds.
        words: per attribute of `WORDS` or `kv.NAME` its words, in any case; `()` says that there are none.
        numbers: per attribute of `NUMBERS` its value.
        place: latitude and longitude in degrees.
        utcoffset: minutes to add to UTC for the person's clock.
        seen: latest time, epoch seconds, at which the person took what a `Saw.key` stands for; None without a history.
    """

    now_ms: int
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    numbers: Mapping[str, int] = field(default_factory=dict)
    place: tuple[float, float] | None = None
    utcoffset: int | None = None
    seen: Mapping[int, int] | None = None


def except_for(unwanted: Predicate) -> Predicate:
    """Strong NOT: `unwanted` is false, and everything that it asks about is known."""
    asked = sorted({name for leaf in leaves(unwanted) if (name := attribute_of(leaf))})
    return And((*map(Known, asked), Not(unwanted)))


def leaves(predicate: Predicate) -> Iterable[Leaf]:
    """Every leaf of a tree, from left to right."""
    match predicate:
        case And(parts) | Or(parts):
            for part in parts:
                yield from leaves(part)
        case Not(part):
            yield from leaves(part)
        case _:
            yield predicate


def attribute_of(leaf: Leaf) -> str:
    """What must be known for a leaf to be able to hold; empty for a day-part that a zone's clock can judge."""
    match leaf:
        case Near():
            return PLACE
        case Saw():
            return HISTORY
        case DayPart():
            return "" if leaf.zone else CLOCK
        case _:
            return leaf.attribute


def fold(word: str) -> str:
    """A word without case and however its accents were typed (Unicode's canonical caseless match, D145).

    >>> fold("ZÜRICH") == fold("zu" + chr(0x308) + "rich")
    True
    """
    if word.isascii():
        return word.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", word).casefold())


def holds(predicate: Predicate, asked: Opportunity) -> bool:
    """Whether one opportunity is what is asked for; the index answers the same for many at once."""
    match predicate:
        case And(parts):
            return all(holds(part, asked) for part in parts)
        case Or(parts):
            return any(holds(part, asked) for part in parts)
        case Not(part):
            return not holds(part, asked)
        case _:
            return _leaf_holds(predicate, asked)


def known(attribute: str, asked: Opportunity) -> bool:
    """Whether an opportunity says anything of an attribute."""
    if attribute in asked.words:
        return True
    if attribute == PLACE:
        return place_of(asked) is not None
    if attribute == CLOCK:
        return local_hour(asked.now_ms, asked.utcoffset) >= 0
    if attribute == HISTORY:
        return asked.seen is not None
    return number_of(attribute, asked) is not None


def place_of(asked: Opportunity) -> tuple[float, float] | None:
    """Latitude and longitude, None where they are none on Earth."""
    lat, lon = asked.place or (math.nan, math.nan)
    return (lat, lon) if abs(lat) <= 90 and abs(lon) <= 180 else None


def number_of(attribute: str, asked: Opportunity) -> int | None:
    """An attribute's number, None where it is missing or beyond what any range can name."""
    number = asked.numbers.get(attribute)
    return number if number is not None and ANY_LEAST <= number <= ANY_MOST else None


def _leaf_holds(leaf: Leaf, asked: Opportunity) -> bool:
    match leaf:
        case Known(attribute):
            return known(attribute, asked)
        case In(attribute, words):
            return not words.isdisjoint(map(fold, asked.words.get(attribute, ())))
        case Prefix(attribute, prefix):
            return any(fold(word).startswith(prefix) for word in asked.words.get(attribute, ()))
        case Domain(attribute, domain):
            return any(("." + fold(word)).endswith("." + domain) for word in asked.words.get(attribute, ()))
        case Between(attribute, least, most):
            number = number_of(attribute, asked)
            return number is not None and least <= number <= most
        case Near(lat, lon, km):
            place = place_of(asked)
            return place is not None and distance_km(lat, lon, *place) <= km
        case Saw():
            seen_s = (asked.seen or {}).get(leaf.key)
            return seen_s is not None and asked.now_ms // 1000 - seen_s <= leaf.within_s
        case DayPart(hours):
            hour = local_hour(asked.now_ms, asked.utcoffset)
            if leaf.zone and (leaf.fixed or hour < 0):
                hour = hour_of_week(asked.now_ms, leaf.zone)
            return hour >= 0 and bool(hours >> hour & 1)


def distance_km(lat_a: float, lon_a: float, lat_b: float, lon_b: float) -> float:
    """Great-circle distance by the haversine formula (Sinnott, "Virtues of the Haversine", 1984); degrees in.

    >>> round(distance_km(52.52, 13.405, 48.8566, 2.3522))
    877
    """
    lat_a, lon_a, lat_b, lon_b = map(math.radians, (lat_a, lon_a, lat_b, lon_b))
    half = math.sin((lat_b - lat_a) / 2) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    return 2 * EARTH_KM * math.asin(math.sqrt(min(half, 1.0)))


def met(predicate: Predicate, asked: Opportunity, *, wanted: bool = True) -> Iterable[tuple[Leaf, bool]]:
    """The leaves that are as a predicate wants them, from left to right, each with whether it was to be true.

    >>> [(leaf.attribute, wanted) for leaf, wanted in met(Not(In.of("genre", "horror")), Opportunity(now_ms=0))]
    [('genre', False)]
    """
    match predicate:
        case And(parts) | Or(parts):
            for part in parts:
                yield from met(part, asked, wanted=wanted)
        case Not(part):
            yield from met(part, asked, wanted=not wanted)
        case _:
            if _leaf_holds(predicate, asked) == wanted:
                yield predicate, wanted
