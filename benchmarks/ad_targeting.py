"""Whom 10,000 line items are for: the conjunction index beside brute force, and how soon a new line item is live.

Opportunities say country, city, device, placement, genres, 20 segments, key-values, a place and 50 items of history.
Line items ask for a country, and most for segments, key-values, a place, hours, genres that must not be there, or
items seen or not. *Brute force* evaluates each line item's tree with NumPy over the whole batch, given the truth of
every word as a matrix for nothing. The *floor* looks up every word of the batch in a dictionary and clears the answer:
what no index behind Python strings can do without. All in one run, taking turns; the best of each.

    python -m benchmarks.ad_targeting --line-items 10000
"""

import argparse
import gc
import random
import time
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from ranking.ads import matching
from ranking.ads.dayparts import local_hour
from ranking.ads.opportunities import MISSING, Encoded, histories
from ranking.ads.predicates import EARTH_KM, NUMBERS, And, Between, DayPart, In, Near, Not, Opportunity, Or, Predicate
from ranking.ads.targeting import Snapshot, Targeting, dense
from ranking.ads.wire import parse

BATCH, ROUNDS, ADDED = 512, 5, 15_000
NOW_MS = 1_790_000_000_000
CITIES, TAGS, GENRES, SEGMENTS, ITEMS = 1_000, 300, 30, 5_000, 20_000
Bools = NDArray[np.bool_]


def some(draw: random.Random, name: str, count: int, most: int = 1, skew: float = 2.0) -> list[str]:
    """Words of which the first ones are the common ones."""
    return [f"{name}{int(count * draw.random() ** skew)}" for _ in range(draw.randint(1, most))]


def a_line_item(draw: random.Random) -> dict[str, object]:
    """Targeting as a campaign record writes it."""
    said: dict[str, object] = {"country": some(draw, "c", 60, 4)}
    more: list[tuple[float, str, Callable[[], object]]] = [
        (0.6, "segment", lambda: some(draw, "s", SEGMENTS, 12)),
        (0.4, "devicetype", lambda: some(draw, "d", 7, 3, 1)),
        (0.3, "tagid", lambda: some(draw, "t", TAGS, 6)),
        (0.3, "genre", lambda: some(draw, "g", GENRES, 4)),
        (0.2, "keyvalues", lambda: {f"k{draw.randrange(20)}": some(draw, "v", 30, 3) for _ in range(2)}),
        (0.1, "near", lambda: {"lat": draw.uniform(-60, 60), "lon": draw.uniform(-180, 180), "km": 50}),
        (0.15, "dayparts", lambda: [{"from": draw.randrange(12), "until": draw.randrange(13, 24)}]),
        (0.2, "content_rating", lambda: {"max": draw.choice((12, 16))}),
        (0.2, "known_not", lambda: {"genre": some(draw, "g", GENRES, 3)}),
        (0.15, "not", lambda: {"saw": {"item": str(draw.randrange(1, ITEMS)), "within": f"{draw.randint(1, 30)}d"}}),
        (0.1, "or", lambda: [{"city": some(draw, "y", CITIES, 5)}, {"segment": some(draw, "s", SEGMENTS, 5)}]),
    ]
    return said | {name: make() for share, name, make in more if draw.random() < share}


def an_opportunity(draw: random.Random) -> Opportunity:
    """As an OpenRTB request would say it."""
    return Opportunity(
        now_ms=NOW_MS + draw.randrange(60_000),
        words={
            "country": some(draw, "c", 60), "city": some(draw, "y", CITIES), "devicetype": some(draw, "d", 7, 1, 1),
            "tagid": some(draw, "t", TAGS), "genre": some(draw, "g", GENRES, 3), "os": ("ios",), "language": ("en",),
            "segment": [word for _ in range(20) for word in some(draw, "s", SEGMENTS)],
            **{f"kv.k{n}": some(draw, "v", 30) for n in range(0, 20, 4)},
        },
        numbers={"content_rating": draw.choice((0, 6, 12, 16, 18))},
        place=(draw.uniform(-60, 60), draw.uniform(-180, 180)),
        utcoffset=draw.choice((-300, 0, 120)),
        seen={draw.randrange(1, ITEMS): NOW_MS // 1000 - draw.randrange(3_000_000) for _ in range(50)},
    )  # fmt: skip


class BruteForce:
    """Every line item over the batch, leaf by leaf."""

    def __init__(self, asked: Sequence[Opportunity], batch: Encoded) -> None:
        words = sorted({(name, word) for one in asked for name, said in one.words.items() for word in said})
        self.column = {word: n for n, word in enumerate(words)}
        self.said_TP = np.zeros((len(words), len(asked)), np.bool_)
        self.seen_s = {}
        for p, one in enumerate(asked):
            for name, said in one.words.items():
                self.said_TP[[self.column[name, word] for word in said], p] = True
            for key, time_s in (one.seen or {}).items():
                self.seen_s.setdefault(key, np.full(len(asked), -(2**60)))[p] = time_s
        self.batch, self.none_P = batch, np.zeros(len(asked), np.bool_)
        self.known = {name: np.array([name in one.words for one in asked]) for name in {name for name, _ in words}}
        self.hour_P = np.array([local_hour(one.now_ms, one.utcoffset) for one in asked])

    def holds(self, predicate: Predicate) -> Bools:
        """Of which opportunities a predicate is true. Shape (P,)."""
        match predicate:
            case And(parts):
                return np.logical_and.reduce([self.holds(part) for part in parts])
            case Or(parts):
                return np.logical_or.reduce([self.holds(part) for part in parts])
            case Not(part):
                return ~self.holds(part)
            case In(attribute, words):
                rows = [self.column[attribute, word] for word in words if (attribute, word) in self.column]
                return self.said_TP[rows].any(0)
            case Between(attribute, least, most):
                number_P = self.batch.number_PA[:, NUMBERS.index(attribute)]
                return (number_P != MISSING) & (least <= number_P) & (number_P <= most)
            case DayPart(hours):
                return np.array([hours >> hour & 1 for hour in range(168)], np.bool_)[self.hour_P]
            case Near():
                return self._near(predicate)
        if hasattr(predicate, "key"):
            time_s_P = self.seen_s.get(predicate.key)
            return self.none_P if time_s_P is None else self.batch.now_s_P - time_s_P <= predicate.within_s
        return self.known.get(predicate.attribute, self.none_P)

    def _near(self, leaf: Near) -> Bools:
        lat, lon = np.radians((leaf.lat, leaf.lon))
        lat_P, lon_P = self.batch.place_P2.T
        half_P = np.sin((lat_P - lat) / 2) ** 2 + np.cos(lat) * np.cos(lat_P) * np.sin((lon_P - lon) / 2) ** 2
        near_P: Bools = 2 * EARTH_KM * np.arcsin(np.sqrt(half_P)) <= leaf.km
        return near_P


def floor(snapshot: Snapshot, asked: Sequence[Opportunity]) -> None:
    """Every word looked up, and room for the answer."""
    said = chain.from_iterable(one.words.items() for one in asked)
    words = chain.from_iterable(words for _, words in said)
    flat = {word: n for n, word in enumerate(snapshot.vocabulary.terms["segment"].words)}
    np.fromiter(map(flat.get, words, iter(lambda: -1, 0)), np.int32)
    np.zeros((len(asked), -(-snapshot.rows // 64)), np.uint64)


def timed(work: Callable[[], object]) -> float:
    """Seconds of the processor that it takes."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


def main() -> None:
    """Print a line per way, then what adding a line item takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--line-items", type=int, default=10_000)
    rows = parser.parse_args().line_items
    draw = random.Random(1)
    predicates = [
        parse(one, key_of=lambda _, name: int(name)) for one in (a_line_item(draw) for _ in range(rows + ADDED))
    ]
    asked = [an_opportunity(draw) for _ in range(BATCH)]
    index = Targeting()
    took_s = timed(lambda: [index.put(row, predicate) for row, predicate in enumerate(predicates[:rows])])
    snapshot = index.snapshot()
    sizes = {name: len(part) for name, part in snapshot.compiled._asdict().items()}
    print(f"{rows:,} line items compiled in {took_s:.2f} s: {sizes['conjunction_C3']:,} conjunctions, "
          f"{sizes['leaf_F3']:,} leaves, {sizes['head_T']:,} tokens, {sizes['link_N2']:,} links")  # fmt: skip
    compare(snapshot, asked, predicates[:rows])
    add(index, asked[:1], predicates[rows:], rows)


def compare(snapshot: Snapshot, asked: Sequence[Opportunity], predicates: Sequence[Predicate]) -> None:
    """Index, its two parts, brute force and floor, taking turns."""
    seen = histories(asked)  # which a worker has as arrays
    batch = snapshot.vocabulary.encode(asked, seen)
    brute = BruteForce(asked, batch)
    found_PL = dense(snapshot.match(asked), snapshot.rows)
    right_LP = np.stack([brute.holds(predicate) for predicate in predicates])
    if not np.array_equal(found_PL, right_LP.T):
        raise SystemExit("index and brute force differ")
    bits_PW = np.zeros((len(asked), -(-snapshot.rows // 64)), np.uint64)
    ways: dict[str, Callable[[], object]] = {
        "index": lambda: snapshot.match(asked, seen),
        "  words to tokens": lambda: snapshot.vocabulary.encode(asked, seen),
        "  compiled loop": lambda: matching.match(batch, snapshot.compiled, bits_PW * 0),
        "floor": lambda: floor(snapshot, asked),
        "brute force": lambda: [brute.holds(predicate) for predicate in predicates],
    }
    best_s = dict.fromkeys(ways, np.inf)
    for _ in range(ROUNDS):
        for name, way in ways.items():
            best_s[name] = min(best_s[name], timed(way))
    print(f"{len(asked)} opportunities at a time, each for {found_PL.sum(1).mean():.0f} line items")
    print(f"{'':18} {'us each':>9} {'a second':>9} {'line items a second':>20} {'x the floor':>12}")
    for name, took_s in best_s.items():
        each, times = took_s / len(asked), took_s / best_s["floor"]
        print(f"{name:18} {each * 1e6:9.1f} {1 / each:9,.0f} {found_PL.shape[1] / each:20,.0f} {times:12.1f}")


def add(index: Targeting, asked: Sequence[Opportunity], predicates: Sequence[Predicate], rows: int) -> None:
    """What it takes until a line item that replaces another is matched; some of them compile everything anew."""
    draw = random.Random(2)
    gc.freeze()  # as a worker does: what was compared is not the index's to collect
    ms_2A = np.empty((2, len(predicates)))
    for n, new in enumerate(predicates):
        began = time.perf_counter(), time.thread_time()
        put_one(index, draw.randrange(rows), new, asked)
        ms_2A[:, n] = 1e3 * (time.perf_counter() - began[0]), 1e3 * (time.thread_time() - began[1])
    print("a line item put and matched, ms")
    for name, ms_A in zip(("wall clock", "processor"), ms_2A, strict=True):
        p50, p99, most = np.percentile(ms_A, (50, 99, 100))
        print(f"{name:18} p50 {p50:.2f}, p99 {p99:.2f}, most {most:.1f}")


def put_one(index: Targeting, row: int, predicate: Predicate, asked: Sequence[Opportunity]) -> None:
    """Replace one and ask."""
    index.put(row, predicate)
    index.snapshot().match(asked)


if __name__ == "__main__":
    main()
