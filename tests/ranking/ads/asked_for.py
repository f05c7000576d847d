"""Random predicates and opportunities over a small world, and what is true of them by other means than the index's.

Words come in any case and with accents typed in two ways; most things are missing now and then.
"""

import math
import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from ranking.ads.predicates import (
    And,
    Between,
    DayPart,
    Domain,
    In,
    Known,
    Leaf,
    Near,
    Not,
    Opportunity,
    Or,
    Predicate,
    Prefix,
    Saw,
    except_for,
)

WORDS = {
    "country": ("US", "ca", "Île", "I\u0302le"),
    "genre": ("drama", "Horror", "comedy", "sport"),
    "segment": tuple(f"s{n}" for n in range(70)),
    "domain": ("a.news.example", "news.example", "example", "mynews.example", "NEWS.example"),
    "tagid": ("home/top", "home/top/1", "Home", "page", ""),
    "kv.section": ("football", "Golf", "straße", "STRASSE"),
    "kv.": ("x",),
}
NUMBERS = {"content_rating": (0, 12, 16, 17, 18, 2**62, 2**70, -(2**63)), "content_len": (-1, 0, 59, 60, 7_200)}
PLACES = ((52.52, 13.405), (52.4, 13.1), (48.85, 2.35), (-16.5, 179.99), (-16.5, -179.99), (90.0, 0.0), (-90.0, 7.0))
ODD_PLACES = ((math.nan, 0.0), (91.0, 0.0), (0.0, math.inf))
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe")
#: Round the changes of clocks in 2026, and days between.
MOMENTS = tuple(
    int(datetime(2026, month, day, hour, minute, tzinfo=UTC).timestamp() * 1000)
    for month, day in ((3, 8), (3, 29), (4, 4), (7, 1), (10, 25), (11, 1))
    for hour in (0, 1, 2, 6, 15, 23)
    for minute in (0, 29, 59)
)
OFFSETS = (-300, 0, 60, 120, 345, 630, 5_000)
AGES = (-9, 0, 59, 61, 10**6)
KEYS = (1, 7, 2**40 - 1, 2**62)
NOW_S = MOMENTS[0] // 1000


def a_leaf(draw: random.Random) -> Leaf:
    attribute = draw.choice(tuple(WORDS))
    words = WORDS[attribute]
    number = draw.choice(tuple(NUMBERS))
    within = [n for n in NUMBERS[number] if abs(n) <= 2**62]
    kinds = (
        lambda: In.of(attribute, *draw.sample(words, draw.randint(0, len(words)))),
        lambda: In.of(attribute, draw.choice(words)),
        lambda: Prefix(draw.choice(("tagid", "domain")), draw.choice(("home", "home/top", "news", "p", "x"))),
        lambda: Domain("domain", draw.choice(("example", "news.example", "a.news.example", "wrong"))),
        lambda: Between(number, *sorted((draw.choice(within), draw.choice(within)))),
        lambda: Near(*draw.choice(PLACES), draw.choice((1.0, 30.0, 500.0, 20_000.0))),
        lambda: DayPart(draw.getrandbits(168), draw.choice(("", *ZONES)), draw.random() < 0.3),
        lambda: Saw("item", "i", draw.choice((60, 86_400, 10**8)), draw.choice(KEYS)),
        lambda: Known(draw.choice((*WORDS, *NUMBERS, "geo", "utcoffset", "history", "city"))),
    )
    return draw.choice(kinds)()


def a_predicate(draw: random.Random, depth: int = 3) -> Predicate:
    if depth == 0 or draw.random() < 0.3:
        return a_leaf(draw)
    kind = draw.choice((And, Or, Not, Not, except_for))
    if kind in (And, Or):
        return kind(tuple(a_predicate(draw, depth - 1) for _ in range(draw.choice((0, 1, 2, 2, 3)))))
    return kind(a_predicate(draw, depth - 1))


def an_opportunity(draw: random.Random) -> Opportunity:
    present = [attribute for attribute in WORDS if draw.random() < 0.6]
    return Opportunity(
        now_ms=draw.choice(MOMENTS),
        words={one: draw.sample(WORDS[one], draw.randint(0, min(len(WORDS[one]), 64))) for one in present},
        numbers={one: draw.choice(values) for one, values in NUMBERS.items() if draw.random() < 0.6},
        place=draw.choice((None, None, *PLACES, *PLACES, *ODD_PLACES)),
        utcoffset=draw.choice((None, *OFFSETS)),
        seen=draw.choice((None, {}, {key: NOW_S - draw.choice(AGES) for key in draw.sample(KEYS, 2)})),
    )  # fmt: skip


def truly(predicate: Predicate, asked: Opportunity) -> bool:
    """What is true, said as slowly and plainly as can be."""
    if isinstance(predicate, And | Or):
        answers = [truly(part, asked) for part in predicate.of]
        return sum(answers) == len(answers) if isinstance(predicate, And) else sum(answers) > 0
    if isinstance(predicate, Not):
        return not truly(predicate.of, asked)
    return _TRULY[type(predicate)](predicate, asked)


def _plain(word: str) -> str:
    return word.casefold().replace("i\u0302", "î")


def _words(leaf: In | Prefix | Domain, asked: Opportunity) -> list[str]:
    return [_plain(word) for word in asked.words.get(leaf.attribute, ())]


def _below(word: str, domain: str) -> bool:
    labels = domain.split(".")
    return word.split(".")[-len(labels) :] == labels


def _near(leaf: Near, asked: Opportunity) -> bool:
    """By the angle between two vectors."""
    if asked.place is None or not -90 <= asked.place[0] <= 90 or not -180 <= asked.place[1] <= 180:
        return False
    a, b = (
        (math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat))
        for lat, lon in (map(math.radians, place) for place in ((leaf.lat, leaf.lon), asked.place))
    )
    cross = math.dist(a, b)
    return 2 * math.asin(min(cross / 2, 1)) * 6_371.0088 <= leaf.km


def _in_part(leaf: DayPart, asked: Opportunity) -> bool:
    at = datetime.fromtimestamp(asked.now_ms / 1000, UTC)
    told = asked.utcoffset is not None and abs(asked.utcoffset) <= 1_440
    if leaf.zone and (leaf.fixed or not told):
        at = at.astimezone(ZoneInfo(leaf.zone))
    elif told:
        at += timedelta(minutes=asked.utcoffset)
    else:
        return False
    return f"{leaf.hours:0168b}"[::-1][24 * at.weekday() + at.hour] == "1"


def _known(leaf: Known, asked: Opportunity) -> bool:
    said = {
        "geo": asked.place is not None and asked.place not in ODD_PLACES,
        "utcoffset": asked.utcoffset not in (None, 5_000),
        "history": asked.seen is not None,
    }
    number = asked.numbers.get(leaf.attribute)
    return said.get(leaf.attribute, leaf.attribute in asked.words or (number is not None and abs(number) <= 2**62))


_TRULY = {
    In: lambda leaf, asked: any(word in {_plain(w) for w in leaf.words} for word in _words(leaf, asked)),
    Prefix: lambda leaf, asked: any(word[: len(leaf.prefix)] == leaf.prefix for word in _words(leaf, asked)),
    Domain: lambda leaf, asked: any(_below(word, leaf.domain) for word in _words(leaf, asked)),
    Between: lambda leaf, asked: leaf.least <= asked.numbers.get(leaf.attribute, -(2**99)) <= leaf.most,
    Near: _near,
    DayPart: _in_part,
    Saw: lambda leaf, asked: asked.now_ms // 1000 - (asked.seen or {}).get(leaf.key, -(2**60)) <= leaf.within_s,
    Known: _known,
}
