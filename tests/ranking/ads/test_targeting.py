"""The index answers as the predicates say, whatever comes and goes meanwhile."""

import itertools
import math
import random
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.ads.conjunctions import MAX_CONJUNCTIONS, disjuncts
from ranking.ads.opportunities import Histories
from ranking.ads.predicates import (
    ALWAYS,
    EARTH_KM,
    And,
    Between,
    DayPart,
    In,
    Known,
    Near,
    Not,
    Opportunity,
    Or,
    Predicate,
    Saw,
    except_for,
    holds,
)  # fmt: skip
from ranking.ads.targeting import Snapshot, Targeting, dense, listed
from ranking.errors import TargetingRefused
from tests.fuzzing import fuzz, fuzz_service
from tests.ranking.ads.asked_for import a_predicate, an_opportunity, truly

NOW_MS = 1_750_000_000_000


def an_index(*predicates: Predicate) -> Snapshot:
    index = Targeting()
    for row, predicate in enumerate(predicates):
        index.put(row, predicate)
    return index.snapshot()


def matched(snapshot: Snapshot, *asked: Opportunity) -> list[list[int]]:
    start_P1, row_M = listed(snapshot.match(asked))
    return [row_M[a:b].tolist() for a, b in itertools.pairwise(start_P1)]


def usable(predicate: Predicate) -> bool:
    try:
        return bool(disjuncts(predicate)) or True
    except TargetingRefused:
        return False


def predicates(draw: random.Random, count: int) -> list[Predicate]:
    drawn = (a_predicate(draw) for _ in range(10 * count))
    return [predicate for predicate in drawn if usable(predicate)][:count]


def differences(draw: random.Random, lines: int, asked: int) -> tuple[list[object], int]:
    """Pairs for which index, evaluator and truth are not one, and how many pairs were looked at."""
    wanted, opportunities = predicates(draw, lines), [an_opportunity(draw) for _ in range(asked)]
    snapshot = an_index(*wanted)
    found_PL = dense(snapshot.match(opportunities), lines)
    wrong = [
        (predicate, opportunity)
        for p, opportunity in enumerate(opportunities)
        for row, predicate in enumerate(wanted)
        if not found_PL[p, row] == truly(predicate, opportunity) == holds(predicate, opportunity)
    ]
    return wrong, found_PL.size


@fuzz_service
@given(st.integers(), st.integers(1, 12), st.integers(1, 8))
def test_fuzz_the_index_equals_brute_force(seed: int, lines: int, asked: int) -> None:
    assert differences(random.Random(seed), lines, asked)[0] == []


@pytest.mark.slow
def test_the_index_equals_brute_force_over_a_hundred_thousand_pairs() -> None:
    wrong, pairs = differences(random.Random(5), 400, 300)
    assert (wrong, pairs) == ([], 120_000)


@fuzz_service
@given(st.integers())
def test_fuzz_snapshots_stay_as_they_were_while_line_items_come_and_go(seed: int) -> None:
    draw = random.Random(seed)
    asked = [an_opportunity(draw) for _ in range(6)]
    index, live = Targeting(), dict[int, Predicate]()
    kept: list[tuple[Snapshot, list[list[int]]]] = []
    for step in range(40):
        row = draw.randrange(8)
        if draw.random() < 0.3:
            index.remove(row)
            live.pop(row, None)
        else:
            live[row] = predicates(draw, 1)[0]
            index.put(row, live[row])
        if step % 4 == 0:
            right = [sorted(row for row, predicate in live.items() if truly(predicate, one)) for one in asked]
            kept.append((index.snapshot(), right))
    assert [matched(snapshot, *asked) for snapshot, _ in kept] == [right for _, right in kept]


def test_what_replaced_line_items_leave_behind_is_gone_in_the_end() -> None:
    index, live = Targeting(), dict[int, int]()
    for n in range(8_000):
        row, gone = 7 * n % 500, 7 * (n - 5) % 500
        index.put(row, In.of("segment", f"s{n}"))
        live[row] = n
        if n % 10 == 0:
            index.remove(gone)
            live.pop(gone, None)
        if n % 23 == 0:
            said = Opportunity(now_ms=0, words={"segment": [f"s{m}" for m in range(n - 400, n + 1)]})
            assert matched(index.snapshot(), said) == [sorted(row for row, m in live.items() if m >= n - 400)]
    compiled = index.snapshot().compiled
    assert max(map(len, (compiled.conjunction_C3, compiled.leaf_F3, compiled.head_T))) < 6_000


@pytest.mark.slow
def test_readers_on_other_threads_see_their_snapshot_while_everything_grows() -> None:
    index, wrong, stop = Targeting(), [], threading.Event()
    index.put(0, Saw("item", "a", 60, key=1))
    index.put(1, And((In.of("segment", "s0"), Not(In.of("kv.new", "yes")))))
    said = {"segment": [f"s{n}" for n in range(64)], "kv.new": ["no"]}
    asked = [Opportunity(now_ms=NOW_MS, words=said, seen=dict.fromkeys(range(1, 40), NOW_MS // 1000))]

    def read(snapshot: Snapshot, right: list[list[int]]) -> None:
        while not stop.is_set():
            if (found := matched(snapshot, *asked)) != right:
                wrong.append(found)

    readers = [threading.Thread(target=read, args=(index.snapshot(), [[0, 1]]))]
    readers[0].start()
    for n in range(2, 3_000):
        index.put(n, Or((In.of("segment", f"s{n % 80}"), Saw("item", str(n), 60, n), Between("w", n, n))))
        if n == 1_500:
            right = [[row for row in range(n + 1) if row < 40 or row % 80 < 64]]
            readers.append(threading.Thread(target=read, args=(index.snapshot(), right)))
            readers[1].start()
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_a_snapshot_is_the_same_one_until_something_changes() -> None:
    index = Targeting()
    index.put(0, ALWAYS)
    first = index.snapshot()
    assert index.snapshot() is first
    index.remove(7)
    assert index.snapshot() is first
    index.remove(0)
    assert index.snapshot() is not first


def test_an_empty_index_lets_nobody_in() -> None:
    snapshot = Targeting().snapshot()
    assert snapshot.match([Opportunity(now_ms=0)]).shape == (1, 0)
    assert matched(snapshot, Opportunity(now_ms=0)) == [[]]
    assert dense(snapshot.match([]), 0).shape == (0, 0)


def test_a_batch_of_nobody_and_rows_far_apart_are_fine() -> None:
    index = Targeting()
    index.put(1_000, ALWAYS)
    index.put(64, Or(()))
    assert matched(index.snapshot(), Opportunity(now_ms=0)) == [[1_000]]
    assert index.snapshot().match([]).shape == (0, 16)


def test_sixty_four_segments_find_the_line_items_of_each() -> None:
    index = an_index(*(In.of("segment", f"s{n}", f"s{n + 64}") for n in range(64)), Not(In.of("segment", "s3")))
    everybody = Opportunity(now_ms=0, words={"segment": [f"s{n}" for n in range(64)]})
    assert matched(index, everybody, Opportunity(now_ms=0, words={"segment": ["s70"]})) == [[*range(64)], [6, 64]]


def test_histories_at_hand_as_arrays_stand_for_those_of_the_opportunities() -> None:
    index = an_index(
        Saw("item", "a", 60, key=5), Not(Saw("item", "a", 3_600, key=5)), except_for(Saw("item", "a", 60, 5))
    )
    now_s = NOW_MS // 1000
    seen = Histories(
        key_N=np.array([9, 5, 5, 5], np.uint64),
        time_s_N=np.array([now_s, now_s - 4_000, now_s - 60, now_s - 61]),
        start_P1=np.array([0, 3, 4, 4, 4]),
        known_P=np.array([True, True, True, False]),
    )
    start_P1, row_M = listed(index.match([Opportunity(now_ms=NOW_MS)] * 4, seen))
    assert [part.tolist() for part in np.split(row_M, start_P1[1:-1])] == [[0], [2], [1, 2], [1]]


@fuzz
@given(st.floats(-89.9, 89.9), st.floats(-180, 180), st.floats(0.1, 400), st.floats(0, 2 * math.pi))
def test_fuzz_places_on_either_side_of_a_circles_rim(lat: float, lon: float, km: float, bearing: float) -> None:
    circle, asked = Near(lat, lon, km), []
    for share in (0.05, 0.5, 0.9, 0.999, 1.001, 1.3):
        angle, north = share * km / EARTH_KM, math.radians(lat)
        there = math.asin(
            math.sin(north) * math.cos(angle) + math.cos(north) * math.sin(angle) * math.cos(bearing)
        )  # where a great circle of that bearing leads
        east = math.atan2(
            math.sin(bearing) * math.sin(angle) * math.cos(north),
            math.cos(angle) - math.sin(north) * math.sin(there),
        )
        place = math.degrees(there), (lon + math.degrees(east) + 180) % 360 - 180
        asked.append(Opportunity(now_ms=0, place=place))
    assert matched(an_index(circle), *asked) == [[0]] * 4 + [[]] * 2


def test_thousands_of_keys_of_histories_are_told_apart() -> None:
    keys = [(n * 2_654_435_761) % 2**40 + 1 for n in range(3_000)]
    index = an_index(*(Saw("item", str(key), 60, key) for key in keys))
    asked = [Opportunity(now_ms=NOW_MS, seen={key: NOW_MS // 1000}) for key in (*keys, 3)]
    assert matched(index, *asked) == [*([n] for n in range(3_000)), []]


def test_targeting_that_multiplies_out_too_far_is_refused_and_the_old_one_stays() -> None:
    index = Targeting()
    index.put(0, In.of("country", "us"))
    pairs = (Or((Between("w", n, n), Between("h", n, n))) for n in range(9))
    with pytest.raises(TargetingRefused, match=f"more than {MAX_CONJUNCTIONS} conjunctions'; allowed: at most"):
        index.put(0, And(tuple(pairs)))
    assert matched(index.snapshot(), Opportunity(now_ms=0, words={"country": ["US"]})) == [[0]]


def test_sets_of_words_are_not_multiplied_out() -> None:
    either = [Or(tuple(In.of(name, f"w{n}") for n in range(50))) for name in ("country", "genre", "city", "os")]
    assert len(disjuncts(And(tuple(either)))) == 1
    assert len(disjuncts(Not(And(tuple(map(Not, either)))))) == 4
    assert disjuncts(And((In.of("os", "a"), Not(In.of("os", "a"))))) == ()
    assert disjuncts(Or((ALWAYS, Known("geo")))) == ((),)
    assert disjuncts(In.of("country")) == ()


@pytest.mark.slow
def test_a_line_item_is_live_among_ten_thousand_within_a_second() -> None:
    index = Targeting()
    for row in range(10_000):
        index.put(row, And((In.of("country", f"c{row % 50}"), In.of("segment", f"s{row}"), Near(row % 90, 7, 50.0))))
    asked = Opportunity(now_ms=0, words={"country": ["new"]})
    assert matched(index.snapshot(), asked) == [[]]
    began = time.perf_counter()
    index.put(10_000, And((In.of("country", "new"), Not(DayPart(0, "Europe/Berlin", fixed=True)))))
    found = matched(index.snapshot(), asked)
    took_s = time.perf_counter() - began
    assert found == [[10_000]]
    assert took_s < 1
