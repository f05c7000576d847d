import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.codec import StateCodec
from embeddings.events import Action, EventBatch, Fate, Source
from embeddings.fold import Folded, fold
from embeddings.lessons import SITTING_S
from embeddings.seen import SeenSets
from embeddings.state_columns import UserStates, no_states, source_code
from tests.embeddings.batches import CODES, LATENESS_S, ROW, a_batch, a_log, an_event
from tests.embeddings.oracle import Event, Person, lives, stored
from tests.fuzzing import thorough


def folded(states: UserStates, batch: EventBatch, floors: Sequence[int] = (-1, -1, -1)) -> Folded:
    return fold(states, batch, lateness_s=LATENESS_S, source_code_S=CODES, floor_offset_S=np.array(floors, np.int64))


def one_life(events: Sequence[Event], floors: Sequence[int] = (-1, -1, -1)) -> Folded:
    return folded(no_states(1), a_batch([("u", event) for event in events]), floors)


def fates(of: Folded) -> list[str]:
    return [Fate(code).name for code in of.fate_B]


def history(of: Folded, position: int | None = None) -> list[int]:
    windows = of.histories(of.final_U if position is None else np.array([position], np.int32))
    return [int(item) for item in windows.item_PH[0] if item]


def as_person(states: UserStates, u: int) -> tuple[object, ...]:
    count = int(states.count_U[u])
    entries = zip(states.item_UH[u], states.action_UH[u], states.time_UH[u], states.share_UH[u], strict=True)
    marks = zip(states.mark_source_U2[u], states.mark_offset_U2[u], strict=True)
    return (
        [tuple(int(part) for part in entry) for entry in entries][:count],
        [(int(code), int(offset)) for code, offset in marks if code >= 0],
        states.ring_UR[u].tolist(),
        int(states.last_s_U[u]),
        int(states.events_U[u]),
    )


def expected(person: Person) -> tuple[object, ...]:
    marks = [(int(CODES[source]), offset) for source, offset in person.marks]
    return person.history(), marks, person.ring(), person.last_s, len(person.applied)


def test_the_latest_item_is_first() -> None:
    assert history(one_life([an_event(0, item=1), an_event(1, item=2, time_s=1_000_001)])) == [2, 1]


def test_a_repeated_item_moves_to_its_latest_event_and_stays_one_entry() -> None:
    life = one_life([an_event(0, item=1), an_event(1, item=2), an_event(2, item=1, action=Action.like)])
    assert history(life) == [1, 2]
    assert life.states.action_UH[0, 0] == Action.like


@pytest.mark.parametrize(
    ("actions", "says"),
    [
        (("like", "progress", "progress"), "like"),
        (("play", "dislike", "progress", "complete"), "dislike"),
        (("dislike", "play"), "play"),
        (("like", "skip"), "skip"),
        (("play", "like", "unlike"), "view"),
        (("add", "remove"), "view"),
        (("like", "remove"), "like"),
        (("like", "share", "purchase"), "like"),
        (("share", "like", "unlike"), "view"),
        (("add", "purchase", "remove"), "view"),
        (("play", "unlike"), "play"),
    ],
)
def test_what_a_person_said_of_an_item_stays_until_they_say_otherwise(actions: Sequence[str], says: str) -> None:
    life = one_life([an_event(n, time_s=1_000_000 + n, action=Action[name]) for n, name in enumerate(actions)])
    assert life.states.action_UH[0, 0] == Action[says]
    assert history(life) == [1]


def test_a_dislike_gives_way_to_what_goes_on_in_another_sitting() -> None:
    later = an_event(1, time_s=1_000_000 + SITTING_S, action=Action.progress)
    assert one_life([an_event(0, action=Action.dislike), later]).states.action_UH[0, 0] == Action.progress


def test_a_like_that_comes_after_a_later_event_of_its_item_is_kept() -> None:
    life = one_life([an_event(0, time_s=1_000_010, action=Action.progress), an_event(1, action=Action.like)])
    assert (life.states.action_UH[0, 0], life.states.time_UH[0, 0]) == (Action.like, 1_000_010)


def test_a_state_keeps_how_far_a_person_got() -> None:
    watched = [
        an_event(n, time_s=1_000_000 + n, action=Action.progress, share=share) for n, share in enumerate([9, 99])
    ]
    life = one_life([*watched, an_event(2, time_s=1_000_005, action=Action.like)])
    assert life.states.share_UH[0, 0] == 99
    late = one_life([*watched, an_event(2, action=Action.progress, share=3)])
    assert late.states.share_UH[0, 0] == 99, "what was said before is no news"
    assert one_life([*watched, an_event(2, time_s=1_000_005, action=Action.complete)]).states.share_UH[0, 0] == 255


@pytest.mark.parametrize(
    ("value", "length_s", "share"), [(1350, 5400, 64), (0.5, 0, 128), (1350, 0, 0), (9e9, 60, 255)]
)
def test_progress_is_told_in_seconds_of_a_known_length_or_as_a_share(value: float, length_s: float, share: int) -> None:
    batch = a_batch([("u", an_event(0, action=Action.progress))])
    batch.value_B[:] = value
    length_s_B = np.array([length_s], np.float32)
    life = fold(no_states(1), batch, lateness_s=0, source_code_S=CODES, length_s_B=length_s_B)
    assert life.states.share_UH[0, 0] == share


def test_an_event_that_comes_out_of_order_is_placed_by_its_time() -> None:
    life = one_life([an_event(0, item=1), an_event(1, item=2, time_s=1_000_100), an_event(2, item=3, time_s=1_000_050)])
    assert history(life) == [2, 3, 1]


def test_an_old_event_of_a_known_item_changes_nothing_but_counts() -> None:
    life = one_life([an_event(0, item=1, time_s=1_000_100), an_event(1, item=1, action=Action.skip)])
    assert fates(life) == ["applied", "applied"]
    assert (life.states.action_UH[0, 0], life.states.events_U[0]) == (Action.play, 2)


def test_a_late_event_does_not_rewind_the_clock_but_advances_the_mark() -> None:
    life = one_life([an_event(0), an_event(1, item=2, time_s=1_000_000 - LATENESS_S - 1)])
    assert fates(life) == ["applied", "late"]
    assert (history(life), life.states.last_s_U[0], life.states.mark_offset_U2[0, 0]) == ([1], 1_000_000, 1)


def test_lateness_is_judged_per_user() -> None:
    rows = [("a", an_event(0, time_s=2_000_000)), ("b", an_event(1, time_s=1_000_000))]
    assert fates(folded(no_states(2), a_batch(rows))) == ["applied", "applied"]


def test_an_offset_met_before_is_replayed_and_the_same_offset_of_another_partition_is_not() -> None:
    life = one_life([an_event(5), an_event(5, item=2), an_event(5, item=3, source=1)])
    assert fates(life) == ["applied", "replayed", "applied"]


def test_a_third_partition_takes_the_place_of_the_one_used_longest_ago() -> None:
    life = one_life([an_event(5), an_event(5, source=1), an_event(6), an_event(1, source=2)])
    assert life.states.mark_source_U2[0].tolist() == [CODES[2], CODES[0]]
    assert life.states.mark_offset_U2[0].tolist() == [1, 6]


def test_what_lies_at_or_below_a_partitions_floor_is_replayed_whatever_else_it_is() -> None:
    batch = a_batch([("u", an_event(3)), ("u", an_event(4))], refused=Fate.unconsented)
    assert fates(folded(no_states(1), batch, floors=(3, -1, -1))) == ["replayed", "unconsented"]


def test_a_refused_event_leaves_no_trace() -> None:
    life = folded(no_states(1), a_batch([("u", an_event(3))], refused=Fate.erased))
    assert not life.changed_U.any()
    assert all(np.array_equal(was, now) for was, now in zip(no_states(1), life.states, strict=True))


def test_a_duplicate_is_known_within_the_ring_and_not_beyond() -> None:
    near = [an_event(n, item=n + 1, dedupe=100 + n) for n in range(8)] + [an_event(8, dedupe=100)]
    far = [an_event(n, item=n + 1, dedupe=100 + n) for n in range(9)] + [an_event(9, dedupe=100)]
    assert (fates(one_life(near))[-1], fates(one_life(far))[-1]) == ("duplicate", "applied")


def test_events_without_an_id_are_never_duplicates() -> None:
    assert fates(one_life([an_event(0), an_event(1), an_event(2)])) == ["applied"] * 3


@pytest.mark.parametrize("action", [Action.unlike, Action.remove, Action.impression, Action.conversion, Action.unknown])
def test_actions_without_history_count_and_move_the_clock_only(action: Action) -> None:
    life = one_life([an_event(0), an_event(1, item=2, time_s=1_000_009, action=action)])
    assert (history(life), life.states.last_s_U[0], life.states.events_U[0]) == ([1], 1_000_009, 2)


def test_the_position_after_an_event_is_the_position_before_the_users_next() -> None:
    rows = [("a", an_event(0)), ("b", an_event(1)), ("a", an_event(2)), ("b", an_event(3)), ("a", an_event(4))]
    life = folded(no_states(2), a_batch(rows))
    assert life.before_B.tolist() == [0, 4, 1, 5, 2]
    assert (life.start_U.tolist(), life.final_U.tolist()) == ([0, 4], [3, 6])
    assert life.users_of(np.arange(7, dtype=np.int32)).tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_positions_may_be_asked_for_in_any_order_and_twice() -> None:
    life = one_life([an_event(n, item=n + 1) for n in range(3)])
    windows = life.histories(np.array([1, 3, 1, 0], np.int32))
    assert windows.item_PH[:, :4].tolist() == [[1, 0, 0, 0], [3, 2, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert windows.count_P.tolist() == [1, 3, 1, 0]


def test_an_item_pushed_out_is_reported_with_the_position_it_left_at() -> None:
    life = one_life([an_event(n, item=n + 1, time_s=1_000_000 + n) for n in range(52)])
    assert life.evicted.item_E.tolist() == [1, 2]
    assert life.evicted.position_E.tolist() == [51, 52]


def test_an_item_older_than_a_full_history_passes_straight_through() -> None:
    events = [an_event(n, item=n + 1, time_s=1_000_000 + n) for n in range(50)]
    life = one_life([*events, an_event(50, item=99, time_s=1_000_000 - 1)])
    assert (fates(life)[-1], life.evicted.item_E.tolist(), 99 in history(life)) == ("applied", [99], False)


def test_consent_kept_is_that_of_the_latest_event_by_event_time() -> None:
    batch = a_batch([("u", an_event(0, time_s=1_000_100)), ("u", an_event(1, item=2))])
    batch.consent_B[:] = [5, 15]
    assert folded(no_states(1), batch).states.consent_U[0] == 5


def test_fold_leaves_its_argument_alone() -> None:
    before = one_life([an_event(0)]).states
    copy = before.copy()
    folded(before, a_batch([("u", an_event(1, item=2))])).histories(np.array([0, 1], np.int32))
    assert all(np.array_equal(was, now) for was, now in zip(copy, before, strict=True))


@pytest.mark.parametrize("lateness_s", [-1, 4096])
def test_a_lateness_that_stored_times_cannot_order_is_refused(lateness_s: int) -> None:
    with pytest.raises(ValueError, match="lateness_s is"):
        fold(no_states(1), a_batch([("u", an_event(0))]), lateness_s=lateness_s, source_code_S=CODES)


def test_a_partition_too_high_to_name_is_refused() -> None:
    with pytest.raises(ValueError, match="4,096 partitions"):
        source_code(["events"], Source("events", 4096))


def in_batches(log: Sequence[tuple[str, Event]], cuts: Sequence[int]) -> tuple[UserStates, list[str]]:
    """The states of a, b, c after a log cut into batches, each state stored and read again between them."""
    codec, states, met = StateCodec(4), no_states(3), []
    edges = sorted({0, len(log), *(cut % (len(log) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(edges):
        life = folded(states, a_batch(log[begin:end], users="abc"))
        met += fates(life)
        states, *_ = codec.decode(codec.encode(life.states, np.zeros((3, 4), np.float32), 0))
        assert all(np.array_equal(one, two) for one, two in zip(states, life.states, strict=True))
    return states, met


@thorough(60)
@given(st.lists(ROW, max_size=200), st.lists(st.integers(0, 400), max_size=12))
def test_any_batching_gives_the_oracles_states_and_fates(
    rows: list[tuple[str, int, int, int, int, int]], cuts: list[int]
) -> None:
    log = a_log(rows)
    people, told = lives(log, LATENESS_S)
    states, met = in_batches(log, cuts)
    assert met == told
    for u, user in enumerate("abc"):
        assert as_person(states, u) == expected(people.get(user, Person()))


@pytest.mark.parametrize("seed", range(4))
def test_long_lives_with_full_histories_match_the_oracle_too(seed: int) -> None:
    draw = np.random.default_rng(seed)
    columns = [draw.choice(list("abc"), 2000), *(draw.integers(0, top, 2000) for top in (3, 200, 21, 9))]
    steps_s = np.where(draw.random(2000) < 0.9, draw.integers(-300, 400, 2000), draw.integers(0, 10**8, 2000))
    log = a_log([(str(row[0]), *map(int, row[1:])) for row in zip(*columns, steps_s, strict=True)])
    people, told = lives(log, LATENESS_S)
    states, met = in_batches(log, draw.integers(0, 2000, 30).tolist())
    assert met == told
    assert set(met) == {"applied", "replayed", "duplicate", "late"}
    for u, user in enumerate("abc"):
        assert as_person(states, u) == expected(people[user])


@thorough(40)
@given(st.lists(ROW, min_size=1, max_size=120), st.integers(0, 120))
def test_the_window_at_every_position_is_the_state_that_one_event_at_a_time_gives(
    rows: list[tuple[str, int, int, int, int, int]], cut: int
) -> None:
    log = a_log(rows)
    cut %= len(log)
    first, _ = in_batches(log[:cut], [])
    life = folded(first, a_batch(log[cut:], users="abc"))
    windows, stepwise = life.histories(life.before_B + 1), first
    before = life.histories(life.before_B)
    for r, (user, event) in enumerate(log[cut:]):
        u = "abc".index(user)
        assert before.item_PH[r].tolist() == stepwise.item_UH[u].tolist()
        stepwise = folded(stepwise, a_batch([(user, event)], users="abc")).states
        assert windows.item_PH[r].tolist() == stepwise.item_UH[u].tolist()
        assert windows.time_PH[r].tolist() == stepwise.time_UH[u].tolist()
        assert windows.action_PH[r].tolist() == stepwise.action_UH[u].tolist()
        assert windows.share_PH[r].tolist() == stepwise.share_UH[u].tolist()
        assert (windows.count_P[r], windows.last_s_P[r]) == (stepwise.count_U[u], stepwise.last_s_U[u])


@thorough(30)
@given(st.lists(ROW, max_size=250), st.lists(st.integers(0, 400), max_size=6))
def test_history_and_evictions_together_are_everything_ever_touched(
    rows: list[tuple[str, int, int, int, int, int]], cuts: list[int]
) -> None:
    log = a_log(rows)
    people, _ = lives(log, LATENESS_S)
    states, values = no_states(3), [None] * 3
    edges = sorted({0, len(log), *(cut % (len(log) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(edges):
        life = folded(states, a_batch(log[begin:end], users="abc"))
        grown = SeenSets.decode(values).add(life.evicted.user_E, life.evicted.item_E)
        values = [dict(zip(grown.user_N.tolist(), grown.values, strict=True)).get(u, values[u]) for u in range(3)]
        states = life.states
    asked = np.tile(np.arange(1, 92, dtype=np.uint64), (3, 1))
    hit = SeenSets.decode(values).hits(np.arange(3, dtype=np.int32), states.item_UH, asked)
    for u, user in enumerate("abc"):
        touched = {event.item for event in people.get(user, Person()).all_items()}
        assert set(asked[u][hit[u]].tolist()) == touched


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_the_oracles_stored_times_nest(a: int, b: int, c: int) -> None:
    time_s, last_s, later_s = sorted((a, b, c))
    assert stored(stored(time_s, last_s), later_s) == stored(time_s, later_s)


def test_the_whole_log_twice_changes_nothing_the_second_time() -> None:
    log = [("a", an_event(n, item=n % 60 + 1, time_s=1_000_000 + n)) for n in range(200)]
    once = folded(no_states(1), a_batch(log))
    twice = folded(once.states, a_batch(log))
    assert set(fates(twice)) == {"replayed"}
    assert not twice.changed_U.any()
    assert all(np.array_equal(one, two) for one, two in zip(once.states, twice.states, strict=True))
