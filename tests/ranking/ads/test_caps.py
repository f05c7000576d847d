"""Caps against plain words: random people, random caps, whatever is in flight."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.ads.campaigns import UNIT_S, Cap, Creative, Level, LineItem, Unit
from ranking.ads.caps import ANY_NUMBER, WEEK_S, Caps, capped, creatives_left, known_caps, rooms, times_shown
from ranking.ads.exposed import FOR_GOOD, SESSION_S, Exposures, Out, People, level_key, level_name
from ranking.ads.losses import Loss
from ranking.ads.selection import Fits
from tests.fuzzing import thorough
from tests.ranking.ads.test_selection import creative, line

NOW_S = 10_000_000
HOUR, DAY = 3_600, 86_400


def a_cap(unit: Unit = Unit.day, count: int = 3, level: Level = Level.line_item, gap_s: int = 0, per: int = 1) -> Cap:
    return Cap(level=level, unit=unit, count=count, window_s=UNIT_S.get(unit, 0) * per, min_gap_s=gap_s)


def lines_of(*caps: Sequence[Cap]) -> list[LineItem | None]:
    """Line items of two campaigns, two creatives each, after an empty row."""
    return [None] + [
        line(
            f"l{n}", key=f"c{n % 2}/l{n}", campaign_id=f"c{n % 2}", advertiser="acme", caps=tuple(some),
            creatives=(creative(f"l{n}/a"), creative(f"l{n}/b")),
        )
        for n, some in enumerate(caps)
    ]  # fmt: skip


class Shown(NamedTuple):
    """An impression of a creative (its number) of a line item (its row)."""

    time_s: int
    row: int = 1
    creative: int = 0


class Known(NamedTuple):
    """A person, in plain words."""

    log: Sequence[Shown] = ()
    old: Mapping[int, tuple[int, int]] = {}
    lost: tuple[int, int, int] = (0, 0, 0)
    session_s: int = 0
    last_s: int = NOW_S - 60
    out: Mapping[str, int] | None = {}
    known: bool = True


def people(caps: Caps, *some: Known) -> People:
    seen, old = max(len(one.log) for one in some), max(len(one.old) for one in some)
    key_PX4, time_s_PX = np.zeros((len(some), seen, 4), np.uint32), np.zeros((len(some), seen), np.int64)
    old_PY3 = np.zeros((len(some), old, 3), np.int64)
    for p, one in enumerate(some):
        for x, shown in enumerate(one.log):
            key_PX4[p, x] = caps.keys(np.array([shown.row]), np.array([shown.creative]))[0]
            time_s_PX[p, x] = shown.time_s
        for y, (key, (count, last_s)) in enumerate(one.old.items()):
            old_PY3[p, y] = key, count, last_s
    return People(
        Exposures(
            *(key_PX4, time_s_PX, np.array([len(one.log) for one in some])),
            *(old_PY3[:, :, 0].astype(np.uint32), old_PY3[:, :, 1].copy(), old_PY3[:, :, 2].copy()),
            *(np.array([one.lost for one in some]), np.array([one.session_s for one in some])),
        ),
        Out.of([one.out for one in some]),
        np.array([one.last_s for one in some]),
        np.full(len(some), NOW_S),
        np.array([one.known for one in some]),
    )


def is_capped(caps: Sequence[Cap], one: Known) -> bool:
    """Is the first line item capped for a person?"""
    table = Caps.of(lines_of(caps, ()))
    (code,) = capped(table, people(table, one), np.array([0, 1]), np.array([1], np.int32)).tolist()
    assert code in {0, Loss.capped}
    return bool(code)


def ago(*seconds: int, **more: int) -> list[Shown]:
    return [Shown(NOW_S - back_s, **more) for back_s in seconds]


@pytest.mark.parametrize("unit", [Unit.hour, Unit.day, Unit.week])
@pytest.mark.parametrize("per", [1, 3])
def test_windows_slide_and_their_edge_counts(unit: Unit, per: int) -> None:
    edge_s, cap = UNIT_S[unit] * per, a_cap(unit, 2, per=per)
    assert is_capped([cap], Known(ago(edge_s, 5)))
    assert not is_capped([cap], Known(ago(edge_s + 1, 5)))
    assert not is_capped([cap], Known(ago(5)))


def test_a_cap_of_ten_has_no_room_for_an_eleventh_wherever_the_ten_are_known_from() -> None:
    name = level_name(Level.line_item, level_key(Level.line_item, "c0/l0"))
    key = level_key(Level.line_item, "c0/l0") | FOR_GOOD
    cap = a_cap(Unit.lifetime, 10)
    for log, old, out in ((10, 0, 0), (0, 10, 0), (0, 0, 10), (4, 3, 3)):
        some = Known(ago(*range(log)), {key: (old, 1)} if old else {}, out={name: out} if out else {})
        assert is_capped([cap], some)
        assert not is_capped([a_cap(Unit.lifetime, 11)], some)


def test_a_session_counts_what_was_seen_since_it_began_and_ends_with_a_silence() -> None:
    cap = a_cap(Unit.session, 1)
    assert is_capped([cap], Known(ago(3 * HOUR), session_s=NOW_S - 3 * HOUR))
    assert not is_capped([cap], Known(ago(3 * HOUR), session_s=NOW_S - HOUR))
    assert not is_capped([cap], Known(ago(SESSION_S), session_s=NOW_S - 3 * HOUR, last_s=NOW_S - SESSION_S))
    assert is_capped([cap], Known(ago(SESSION_S), session_s=NOW_S - 3 * HOUR, last_s=NOW_S - SESSION_S + 1))


def test_nothing_follows_within_the_gap_nor_while_one_is_out() -> None:
    cap = a_cap(count=5, gap_s=600)
    assert is_capped([cap], Known(ago(600)))
    assert not is_capped([cap], Known(ago(601)))
    assert is_capped([cap], Known(out={level_name(Level.line_item, level_key(Level.line_item, "c0/l0")): 1}))


@pytest.mark.parametrize("level", list(Level)[1:])
def test_each_level_counts_what_is_below_it(level: Level) -> None:
    table = Caps.of(lines_of((a_cap(level=level, count=1),), (), ()))
    start_P1, row_M = np.arange(4), np.array([1, 1, 1], np.int32)
    some = people(table, *(Known(ago(5, row=row)) for row in (1, 2, 3)))
    blocked = {Level.line_item: {1}, Level.campaign: {1, 3}, Level.advertiser: {1, 2, 3}}[level]
    assert [code > 0 for code in capped(table, some, start_P1, row_M)] == [row in blocked for row in (1, 2, 3)]


def test_what_cannot_be_counted_is_capped_and_what_has_no_cap_is_not() -> None:
    for level in Level:
        table = Caps.of(lines_of((a_cap(level=level, count=9),), ()))
        unknown = people(table, Known(known=False))
        assert capped(table, unknown, np.array([0, 2]), np.array([1, 2], np.int32)).tolist() == [Loss.capped, 0]
        most = rooms(table, unknown, np.array([0]), np.array([1]), np.array([0]))[0]
        assert [out for name, out in most if name[0] == str(int(level))] == [0]


def fits(*creatives: Sequence[int], codes: Sequence[int] = ()) -> Fits:
    start_M1 = np.cumsum([0, *map(len, creatives)])
    code_M = np.array(codes or [0] * len(creatives), np.int16)
    return Fits(code_M, start_M1, np.array([c for some in creatives for c in some], np.int32))


def test_capped_creatives_are_left_out_and_their_line_item_goes_on_with_the_others() -> None:
    table = Caps.of(lines_of((a_cap(level=Level.creative, count=2),), ()))
    once, twice, both = (Known(ago(*range(n))) for n in (1, 2, 2))
    both = Known([*both.log, *ago(1, 2, creative=1)])
    some, rows = people(table, once, twice, both), np.array([1, 1, 1, 2], np.int32)
    who, start_P1 = np.arange(3, dtype=np.int32), np.array([0, 1, 2, 4])
    assert capped(table, some, start_P1, rows, who).tolist() == [0, 0, 0, 0]
    left = creatives_left(table, some, start_P1, rows, fits((0, 1), (0, 1), (0, 1), (2,)), who)
    assert (left.start_M1.tolist(), left.creative_N.tolist()) == ([0, 2, 3, 3, 4], [0, 1, 1, 2])
    assert left.code_M.tolist() == [0, 0, Loss.capped, 0]
    assert creatives_left(table, some, np.array([0, 1]), rows[:1], fits((), codes=(203,))).code_M.tolist() == [203]


def test_places_of_one_person_are_looked_at_alike() -> None:
    table = Caps.of(lines_of((a_cap(count=1),), ()))
    some, person_P = people(table, Known(ago(5)), Known()), np.array([1, 0, 0], np.int32)
    row_M = np.array([1, 1, 2, 1], np.int32)
    assert capped(table, some, np.array([0, 1, 3, 4]), row_M, person_P).tolist() == [0, Loss.capped, 0, Loss.capped]
    assert times_shown(table, some, np.array([0, 1, 3, 4]), row_M, person_P).tolist() == [0, 1, 0, 1]


def test_keys_are_24_bits_and_say_whether_they_are_counted_for_good() -> None:
    table = Caps.of(
        lines_of(
            [a_cap(Unit.lifetime, level=Level.campaign), a_cap(Unit.week)],
            [a_cap(Unit.week, per=2, level=Level.creative)],
            [],
        )
    )
    key_W4 = table.keys(np.array([1, 2, 3]), np.array([1, 2, 4]))
    assert (key_W4 & FOR_GOOD).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 1, 0]]
    assert 0 < key_W4.min() <= key_W4.max() < 2**24
    assert table.counted_L3.tolist() == [[False] * 3, [True, True, False], [False] * 3, [False, True, False]]
    assert table.counted_N.tolist() == [False] * 2 + [True] * 2 + [False] * 2
    assert not table.key_L3[0].any()


def test_names_and_keys_stay_the_same_for_ever() -> None:
    keys = [level_key(level, "spring") for level in Level]
    assert [level_name(level, key) for level, key in zip(Level, keys, strict=True)] == GOLDEN
    assert level_name(Level.campaign, keys[2] | FOR_GOOD) == GOLDEN[2]
    named = Out.of([{GOLDEN[2]: 3}, None, {GOLDEN[0]: 1, GOLDEN[3]: 2}])
    assert (named.start_P1.tolist(), named.many_N.tolist()) == ([0, 1, 1, 3], [3, 1, 2])


GOLDEN = ["0:26f4ae", "1:3619ba", "2:e75e70", "3:5cf400"]


def test_what_stays_is_kept_and_every_change_is_seen() -> None:
    known = known_caps()
    lines = lines_of((a_cap(),), (a_cap(level=Level.campaign),))
    for some in (lines, [lines[2], *lines_of((a_cap(count=9),))], [None, lines[1]], [], lines):
        assert all(np.array_equal(one, two) for one, two in zip(Caps.of(some, known), Caps.of(some), strict=True))


# The same in plain words, for anything.

CAPS = st.builds(
    a_cap,
    unit=st.sampled_from(list(Unit)),
    count=st.integers(1, 4),
    level=st.sampled_from(list(Level)),
    gap_s=st.sampled_from([0, 0, 0, 60, 7_200]),
    per=st.integers(1, 3),
)
BACK_S = st.one_of(st.integers(-5, 5_000), st.integers(0, 30 * DAY))


def names_of(lines: Sequence[LineItem | None], row: int, one: Creative) -> list[str]:
    said = lines[row]
    assert said is not None
    return [one.key, said.key, said.campaign_id, said.advertiser]


def most_out(cap: Cap, name: str, one: Known, names: Any) -> int:
    """With how many out one more may be, by the words of the rules."""
    if not one.known:
        return 0
    key = level_key(cap.level, name)
    since_s = NOW_S - cap.window_s if cap.window_s else -1 if cap.unit is Unit.lifetime else one.session_s
    if cap.unit is Unit.session and NOW_S - one.last_s >= SESSION_S:
        since_s = one.last_s + 1
    times_s = [shown.time_s for shown in one.log if names(shown)[cap.level] == name]
    seen = sum(time_s >= since_s for time_s in times_s)
    held = [(count, last_s) for old, (count, last_s) in one.old.items() if old // 2 == key // 2]
    good, lost, lost_s = one.lost
    if held:
        seen += sum(count for count, last_s in held if last_s >= since_s)
        times_s += [last_s for _, last_s in held]
    elif good or lost:
        seen += max(lost * (lost_s >= since_s), good * (cap.unit is Unit.lifetime or cap.window_s > WEEK_S))
        times_s.append(lost_s)
    near = cap.min_gap_s > 0 and any(NOW_S - time_s <= cap.min_gap_s for time_s in times_s)
    left = max(cap.count - seen, 0)
    return 0 if near else min(left, 1) if cap.min_gap_s else left


@thorough(80)
@given(st.data())
def test_kernels_say_what_the_rules_say(data: st.DataObject) -> None:
    lines = lines_of(*data.draw(st.lists(st.lists(CAPS, max_size=3), min_size=2, max_size=3)))
    table, creatives = Caps.of(lines), [one for some in lines if some for one in some.creatives]
    rows = list(range(1, len(lines)))
    names_by = [names_of(lines, n // 2 + 1, one) for n, one in enumerate(creatives)]
    keyed = {level_key(level, names[level]): level_name(level, level_key(level, names[level]))
             for names in names_by for level in Level}  # fmt: skip
    shown = st.builds(
        lambda back_s, n: Shown(NOW_S - back_s, n // 2 + 1, n), BACK_S, st.integers(0, len(creatives) - 1)
    )
    one = data.draw(
        st.builds(
            Known,
            log=st.lists(shown, max_size=6),
            old=st.dictionaries(
                st.sampled_from(sorted(keyed)), st.tuples(st.integers(1, 3), BACK_S.map(NOW_S.__sub__))
            ),
            lost=st.just((0, 0, 0)) | st.tuples(st.integers(0, 2), st.integers(1, 2), BACK_S.map(NOW_S.__sub__)),
            session_s=BACK_S.map(NOW_S.__sub__),
            last_s=BACK_S.map(NOW_S.__sub__),
            out=st.dictionaries(st.sampled_from(sorted(keyed.values())), st.integers(1, 2), max_size=4),
            known=st.sampled_from([True, True, True, False]),
        )
    )
    person, out = people(table, one), one.out or {}

    def left(n: int, cap: Cap) -> tuple[int, int]:
        name = names_by[n][cap.level]
        many = out.get(level_name(cap.level, level_key(cap.level, name)), 0)
        return most_out(cap, name, one, lambda was: names_by[was.creative]), many

    row_M, start_P1 = np.array(rows, np.int32), np.array([0, len(rows)])
    found = capped(table, person, start_P1, row_M).tolist()
    all_fit = fits(*((2 * row - 2, 2 * row - 1) for row in rows))
    fine = creatives_left(table, person, start_P1, row_M, all_fit)
    for m, row in enumerate(rows):
        asked = [cap for cap in lines[row].caps if cap.level or not one.known]  # type: ignore[union-attr]
        assert (found[m] > 0) == any(many >= most for most, many in (left(2 * row - 2, cap) for cap in asked))
        held = fine.creative_N[fine.start_M1[m] : fine.start_M1[m + 1]].tolist()
        for n in (2 * row - 2, 2 * row - 1):
            own = [left(n, cap) for cap in lines[row].caps if not cap.level]  # type: ignore[union-attr]
            assert (n in held) == all(many < most for most, many in own)
    for n in range(len(creatives)):
        row = n // 2 + 1
        most = dict(rooms(table, person, np.array([0]), np.array([row]), np.array([n]))[0])
        for level in Level:
            own = [left(n, cap)[0] for cap in lines[row].caps if cap.level is level]  # type: ignore[union-attr]
            name = level_name(level, level_key(level, names_by[n][level]))
            assert most.get(name, -1) == (
                min(own, default=ANY_NUMBER) if name_counted(lines, level, names_by[n]) else -1
            )


def name_counted(lines: Sequence[LineItem | None], level: Level, names: Sequence[str]) -> bool:
    """Does a cap of anybody count this?"""
    return any(
        cap.level is level and names[level] in {names_of(lines, row, one)[level] for one in said.creatives}
        for row, said in enumerate(lines)
        if said
        for cap in said.caps
    )
