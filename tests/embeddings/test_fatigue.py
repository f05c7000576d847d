import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.codec import StateCodec
from embeddings.events import AD_FORMS, Action, EventBatch, Fate
from embeddings.fatigue import MOST, Impressions, Shown, Unanswered, fold_impressions
from embeddings.fold import fold
from embeddings.state_columns import UserStates, no_states
from tests.embeddings.batches import CODES, DAY, LATENESS_S, STEP_S, a_batch, a_log, an_event
from tests.embeddings.oracle import SHOWN_HALF_LIFE_S, Event, Person, lives
from tests.fuzzing import thorough

HALF_LIFE_S = float(SHOWN_HALF_LIFE_S)
NOW_S = 1_000_000
Life = tuple[UserStates, Unanswered]


def lived(life: Life, batch: EventBatch, half_life_s: float = HALF_LIFE_S) -> tuple[Life, Impressions, list[int]]:
    """What a batch makes of states and of what was shown, and the position after each event."""
    states, shown = life
    folded = fold(states, batch, lateness_s=LATENESS_S, source_code_S=CODES)
    impressions = fold_impressions(shown, states, batch, folded, half_life_s)
    return (folded.states, impressions.after), impressions, folded.before_B.tolist()


def nobody(users: int = 1) -> Life:
    return no_states(users), Unanswered.nothing(users)


def after(events: Sequence[Event], **more: float) -> Unanswered:
    return lived(nobody(), a_batch([("u", event) for event in events]), **more)[0][1]


def impressions_of(items: Sequence[int], time_s: int = NOW_S, offset: int = 0) -> list[Event]:
    return [an_event(offset + n, item, time_s, Action.impression) for n, item in enumerate(items)]


def times(tables: Unanswered, *items: int, now_s: int = NOW_S, half_life_s: float = HALF_LIFE_S) -> list[float]:
    shown = tables.shown(np.array([now_s]), half_life_s, np.ones(1, np.bool_))
    return [round(count, 2) for count in shown.times(np.array([items], np.uint64))[0].tolist()]


def test_ten_impressions_count_ten_and_half_as_much_a_half_life_later() -> None:
    tables = after(impressions_of([7] * 10 + [9]))
    assert times(tables, 7, 8, 9) == [10, 0, 1]
    assert times(tables, 7, 9, now_s=NOW_S + 3 * DAY) == [5, 0.5]


def test_impressions_of_different_times_add_up_faded() -> None:
    events = [an_event(n, 7, NOW_S + n * 3 * DAY, Action.impression) for n in range(3)]
    assert times(after(events), 7, now_s=NOW_S + 6 * DAY) == [1.75]
    soon, later = impressions_of([7], NOW_S + 600), impressions_of([7], NOW_S + 600, offset=1)
    in_order, late = impressions_of([7]) + later, soon + impressions_of([7], offset=1)
    assert after(in_order).once_s_UW.tolist() == after(late).once_s_UW.tolist()


@pytest.mark.parametrize("action", [a for a in Action if a and a not in {Action.impression, Action.viewable}])
def test_an_answer_clears_its_item_alone_and_what_says_nothing_of_it_leaves_it(action: Action) -> None:
    tables = after([*impressions_of([7, 9, 7]), an_event(3, 7, NOW_S + 5, action)])
    silent = {"unlike", "remove", "conversion", "first_quartile", "midpoint", "third_quartile"}
    silent |= {of_ad.name for of_ad in AD_FORMS.values()}
    assert times(tables, 7, 9) == ([2, 1] if action.name in silent else [0, 1])


def test_that_an_impression_was_viewable_is_no_second_one() -> None:
    assert times(after([*impressions_of([7]), an_event(1, 7, NOW_S, Action.viewable)]), 7) == [1]


def test_an_impression_after_an_answer_counts_from_one() -> None:
    events = [*impressions_of([7] * 5), an_event(5, 7, NOW_S, Action.click), *impressions_of([7], offset=6)]
    assert times(after(events), 7) == [1]


def test_what_may_not_be_remembered_is_not_and_what_may_not_be_known_is_nothing() -> None:
    refused = a_batch([("u", event) for event in impressions_of([7])], refused=Fate.unconsented)
    assert lived(nobody(), refused)[0][1].item_UW.size == 0
    tables = after(impressions_of([7, 7]))
    assert not tables.shown(np.array([NOW_S]), HALF_LIFE_S, np.zeros(1, np.bool_)).item_PW.any()


def test_an_impression_of_no_item_counts_nothing() -> None:
    assert after(impressions_of([0])).item_UW.size == 0


def test_who_was_shown_nothing_takes_no_room_beside_who_was() -> None:
    quiet, _, _ = lived(nobody(2), a_batch([("a", an_event(0)), ("b", an_event(1))]))
    assert quiet[1].item_UW.shape == (2, 0)
    both, _, _ = lived(quiet, a_batch([("a", event) for event in impressions_of([7, 9], offset=2)], users=["a", "b"]))
    assert both[1].held_U.tolist() == [2, 0]
    assert [len(v) for v in StateCodec(4).encode(both[0], np.zeros((2, 4), np.float32), 0, both[1])] == [515, 496]


def test_counts_that_faded_away_go_with_the_next_event_of_their_person() -> None:
    life, _, _ = lived(nobody(), a_batch([("u", event) for event in impressions_of([7, 7, 7, 9])]))
    later = a_batch([("u", an_event(4, 5, NOW_S + 13 * DAY))])
    assert lived(life, later)[0][1].item_UW.tolist() == [[7]]


def test_a_full_table_keeps_what_comes_back_and_lets_newcomers_in_one_by_one() -> None:
    crowd = list(range(1, MOST + 1))
    full = [*crowd, *crowd[1:]]
    assert after(impressions_of([*full, 100])).item_UW.tolist() == [crowd], "the smallest count is halved"
    twice = after(impressions_of([*full, 100, 101]))
    assert times(twice, 1, 100, 101) == [0.25, 0, 0]
    assert times(after(impressions_of([*full, 100, 101, 102])), 1, 2, 102) == [0, 2, 1]


def test_whoever_scrolls_through_hundreds_keeps_what_was_shown_often() -> None:
    draw = np.random.default_rng(0)
    often = [7, 8, 9] * 12
    scrolled = draw.permutation([*often, *range(100, 500)]).tolist()
    assert min(times(after(impressions_of(scrolled)), 7, 8, 9)) > 6


def test_no_half_life_counts_nothing_and_drops_what_was() -> None:
    assert after(impressions_of([7]), half_life_s=0).item_UW.size == 0
    life, _, _ = lived(nobody(), a_batch([("u", event) for event in impressions_of([7])]))
    assert lived(life, a_batch([("u", an_event(1))]), half_life_s=0)[0][1].item_UW.size == 0


def test_another_half_life_makes_no_nonsense_of_what_is_stored() -> None:
    tables = after(impressions_of([7] * 10))
    assert times(tables, 7, half_life_s=1e9) == [1]
    assert times(tables, 7, half_life_s=60)[0] == 2**30
    assert tables.item_UW.shape == (1, 1)


def test_as_many_items_as_there_is_room_for_are_found_among_candidates() -> None:
    draw = np.random.default_rng(1)
    item_W = draw.choice(2**40, MOST, replace=False).astype(np.uint64) + np.uint64(1)
    shown = Shown(
        np.stack([item_W, np.zeros(MOST, np.uint64)]), np.tile(np.arange(1, MOST + 1, dtype=np.float32), (2, 1))
    )
    asked = np.tile(np.concatenate([item_W[::-1], draw.integers(2**40, 2**41, 100, np.uint64), [0]]), (2, 1))
    found = shown.times(asked.astype(np.uint64))
    assert found[0].tolist() == [*range(MOST, 0, -1), *[0] * 101]
    assert not found[1].any()


def test_the_fold_leaves_its_arguments_alone() -> None:
    (states, tables), _, _ = lived(nobody(), a_batch([("u", event) for event in impressions_of([7, 9])]))
    copy = tables.copy()
    batch = a_batch([("u", an_event(2, 7)), ("u", an_event(3, 9, action=Action.impression))])
    _, impressions, _ = lived((states, tables), batch)
    impressions.at(np.array([0, 1], np.int32), np.zeros(2, np.int32))
    assert all(np.array_equal(was, now) for was, now in zip(copy, tables, strict=True))


SHOWN = st.sampled_from([16] * 8 + [2, 5, 8, 17, 18, 1])
ROW = st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.integers(0, 90), SHOWN, st.integers(0, 12), STEP_S)
Row = tuple[str, int, int, int, int, int]


def in_batches(log: Sequence[tuple[str, Event]], cuts: Sequence[int]) -> Life:
    """States and tables of a, b, c after a log cut into batches, stored and read again between them."""
    codec, life = StateCodec(4), nobody(3)
    edges = sorted({0, len(log), *(cut % (len(log) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(edges):
        (states, shown), _, _ = lived(life, a_batch(log[begin:end], users="abc"))
        states, _, again, _ = codec.decode(codec.encode(states, np.zeros((3, 4), np.float32), 0, shown))
        assert all(np.array_equal(one, two) for one, two in zip(again, shown, strict=True))
        life = states, again
    return life


def as_tables(tables: Unanswered) -> list[dict[int, int]]:
    rows = zip(tables.item_UW.tolist(), tables.once_s_UW.tolist(), strict=True)
    return [{item: once_s for item, once_s in zip(*row, strict=True) if item} for row in rows]


@thorough(80)
@given(st.lists(ROW, max_size=250), st.lists(st.integers(0, 400), max_size=12))
def test_any_batching_gives_the_oracles_tables(rows: list[Row], cuts: list[int]) -> None:
    log = a_log(rows)
    people, _ = lives(log, LATENESS_S)
    found = as_tables(in_batches(log, cuts)[1])
    assert found == [people.get(user, Person()).shown() for user in "abc"]
    assert [list(table) for table in found] == [list(people.get(user, Person()).shown()) for user in "abc"]


@pytest.mark.parametrize("seed", range(3))
def test_long_lives_with_full_tables_match_the_oracle_too(seed: int) -> None:
    draw = np.random.default_rng(seed)
    columns = [draw.choice(list("abc"), 3000), draw.integers(0, 3, 3000), draw.integers(1, 150, 3000)]
    actions = np.where(draw.random(3000) < 0.9, 16, draw.integers(1, 19, 3000))
    steps_s = np.where(draw.random(3000) < 0.997, draw.integers(-300, 900, 3000), draw.integers(0, 5 * DAY, 3000))
    rows = zip(*columns, actions, draw.integers(0, 9, 3000), steps_s, strict=True)
    log = a_log([(str(row[0]), *map(int, row[1:])) for row in rows])
    people, _ = lives(log, LATENESS_S)
    _, tables = in_batches(log, draw.integers(0, 3000, 40).tolist())
    assert tables.held_U.max() == MOST
    assert as_tables(tables) == [people[user].shown() for user in "abc"]


@thorough(40)
@given(st.lists(ROW, min_size=1, max_size=120), st.integers(0, 120))
def test_the_table_at_every_position_is_what_one_event_at_a_time_gives(rows: list[Row], cut: int) -> None:
    log = a_log(rows)
    cut %= len(log)
    stepwise = in_batches(log[:cut], [])
    _, impressions, before_B = lived(stepwise, a_batch(log[cut:], users="abc"))
    user_P = np.array(["abc".index(user) for user, _ in log[cut:]], np.int32)
    befores = as_tables(impressions.at(np.array(before_B, np.int32), user_P))
    afters = as_tables(impressions.at(np.array(before_B, np.int32) + 1, user_P))
    for r, (user, event) in enumerate(log[cut:]):
        assert befores[r] == as_tables(stepwise[1])[user_P[r]]
        stepwise, _, _ = lived(stepwise, a_batch([(user, event)], users="abc"))
        assert afters[r] == as_tables(stepwise[1])[user_P[r]]


def test_the_whole_log_twice_changes_nothing_the_second_time() -> None:
    log = [("u", event) for event in impressions_of([*range(1, 80), 7, 7])]
    once, _, _ = lived(nobody(), a_batch(log))
    twice, _, _ = lived(once, a_batch(log))
    assert all(np.array_equal(one, two) for one, two in zip(once[1], twice[1], strict=True))
