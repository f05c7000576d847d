import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.codec import StateCodec
from embeddings.events import AD_FORMS, Action, EventBatch, Fate
from embeddings.exposures import KEYS, LOG, SESSION_S, WEEK_S, AdSeen, Exposures, fold_exposures
from embeddings.fatigue import Unanswered
from embeddings.fold import fold
from embeddings.state_columns import UserStates, no_states
from tests.embeddings.batches import CODES, DAY, LATENESS_S, a_batch, a_log, an_event
from tests.embeddings.oracle import Event, lives
from tests.fuzzing import thorough

NOW_S = 1_000_000
SEEN = int(Action.ad_impression)
Life = tuple[UserStates, Exposures]
Log = Sequence[tuple[str, Event]]


def keys_of(ad: int) -> tuple[int, int, int, int]:
    """Keys of an ad: every third campaign is counted for good, and creatives and advertisers never are."""
    campaign = ad // 4
    return 2**23 + 2 * ad, 200_000 + 2 * (ad // 2), 2 * campaign + 2 + (campaign % 3 == 0), 2**24 - 2 - 2 * (ad // 16)


def the_ads(batch: EventBatch) -> AdSeen:
    of_ads_B = batch.action_B == SEEN
    return AdSeen(np.array([keys_of(int(i)) for i in batch.item_B], np.uint32).reshape(-1, 4) * of_ads_B[:, None])


def lived(life: Life, log: Log, users: str = "abc", refused: int = 0) -> Life:
    states, exposures = life
    batch = a_batch(log, users=users, refused=refused)
    folded = fold(states, batch, lateness_s=LATENESS_S, source_code_S=CODES)
    return folded.states, fold_exposures(exposures, states, batch, folded, the_ads(batch))


def nobody(users: int = 3) -> Life:
    return no_states(users), Exposures.nothing(users)


def after(events: Sequence[Event], refused: int = 0) -> Exposures:
    return lived(nobody(1), [("a", event) for event in events], "a", refused)[1]


def seen_at(*times_s: int, ad: int = 7, offset: int = 0) -> list[Event]:
    return [an_event(offset + n, ad, time_s, SEEN) for n, time_s in enumerate(times_s)]


def in_batches(log: Log, cuts: Sequence[int]) -> Exposures:
    """What a, b, c saw by a log cut into batches, stored and read again between them."""
    codec, life = StateCodec(4), nobody()
    edges = sorted({0, len(log), *(cut % (len(log) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(edges):
        states, seen = lived(life, log[begin:end])
        stored = codec.encode(states, np.zeros((3, 4), np.float32), 0, Unanswered.nothing(3), seen)
        states, _, _, again = codec.decode(stored)
        assert all(np.array_equal(one, two) for one, two in zip(again, seen, strict=True))
        life = states, again
    return life[1]


def the_log(exposures: Exposures, u: int) -> list[tuple[int, tuple[int, ...]]]:
    count = exposures.seen_U[u]
    keys = map(tuple, exposures.key_UX4[u, :count].tolist())
    return list(zip(exposures.time_s_UX[u, :count].tolist(), keys, strict=True))


def many(exposures: Exposures, u: int, level: int, key: int, since_s: int, for_good: bool = False) -> int:
    """How often something was seen since a moment, as whoever reads a state has to count it."""
    found = sum(time_s >= since_s and keys[level] // 2 == key // 2 for time_s, keys in the_log(exposures, u))
    for held, count, last_s in zip(*(column[u].tolist() for column in exposures[3:6]), strict=True):
        if held // 2 == key // 2:
            return found + count * (last_s >= since_s)
    lost_for_good, lost, last_s = exposures.lost_U3[u].tolist()
    return found + max(lost * (last_s >= since_s), lost_for_good * for_good)


class Witness:
    """Who saw what and when, nothing forgotten; and when their session began."""

    def __init__(self) -> None:
        self.saw: list[tuple[int, tuple[int, ...]]] = []
        self.last_s = self.session_s = 0

    def meet(self, event: Event, fate: str) -> None:
        if fate == "applied":
            if self.saw and event.time_s >= self.last_s + SESSION_S:
                self.session_s = event.time_s
            self.last_s = max(self.last_s, event.time_s)
        if event.action == SEEN and fate in {"applied", "late"}:
            self.session_s = self.session_s if self.saw else event.time_s
            self.saw.append((event.time_s, keys_of(event.item)))


def witnesses(log: Log) -> list[Witness]:
    _, fates = lives(list(log), LATENESS_S)
    of = {user: Witness() for user in "abc"}
    for (user, event), fate in zip(log, fates, strict=True):
        of[user].meet(event, fate)
    return list(of.values())


STEP_S = st.one_of(st.integers(0, 3_000), st.integers(-LATENESS_S - 200, 200), st.integers(0, 20 * DAY))
ROW = st.tuples(
    st.sampled_from("abc"), st.integers(0, 2), st.integers(0, 90), st.sampled_from([SEEN] * 6 + [2, 16, 23, 25, 8]),
    st.integers(0, 12), STEP_S,
)  # fmt: skip


@thorough(40)
@given(st.lists(ROW, max_size=120), st.lists(st.integers(0, 400), max_size=12))
def test_any_batching_gives_the_log_and_the_session_of_whoever_forgets_nothing(
    rows: list[tuple[str, int, int, int, int, int]], cuts: list[int]
) -> None:
    log = a_log(rows)
    found = in_batches(log, cuts)
    assert found.old_key_UY.size == 0
    for u, witness in enumerate(witnesses(log)):
        assert the_log(found, u) == witness.saw
        assert found.session_s_U[u] == witness.session_s


def a_long_log(seed: int, ads: int, events: int = 2_400) -> list[tuple[str, Event]]:
    draw = np.random.default_rng(seed)
    steps_s = np.where(
        draw.random(events) < 0.99, draw.integers(-300, 9_000, events), draw.integers(0, 9 * DAY, events)
    )
    actions = np.where(draw.random(events) < 0.9, SEEN, draw.integers(1, 19, events))
    columns = draw.choice(list("abc"), events), draw.integers(0, 3, events), draw.integers(1, ads, events)
    ids = draw.integers(0, 9, events) * (draw.random(events) < 0.2)
    rows = zip(*columns, actions, ids, steps_s, strict=True)
    return a_log([(str(row[0]), *map(int, row[1:])) for row in rows])


@pytest.mark.parametrize(("seed", "ads"), [(0, 12), (1, 12), (2, 60), (3, 900), (4, 900)])
def test_long_lives_are_counted_alike_however_batched_and_never_too_low(seed: int, ads: int) -> None:
    log, draw = a_long_log(seed, ads), np.random.default_rng(seed)
    found = in_batches(log, draw.integers(0, 2_400, 20).tolist())
    assert all(np.array_equal(one, two) for one, two in zip(found, in_batches(log, []), strict=True))
    assert (found.old_U > 0).all()
    for u, witness in enumerate(witnesses(log)):
        saw, last_s = witness.saw, witness.saw[-1][0]
        assert the_log(found, u) == saw[-LOG:]
        for level, ad in itertools.product(range(4), range(0, ads, ads // 12)):
            key, times_s = keys_of(ad)[level], [t for t, keys in saw if keys[level] == keys_of(ad)[level]]
            for back_s in (3_600, DAY, 3 * DAY, WEEK_S - 1_000):
                truly = sum(time_s >= last_s - back_s for time_s in times_s)
                assert many(found, u, level, key, last_s - back_s) >= truly
            if key % 2:
                counted = many(found, u, level, key, 0, for_good=True)
                assert counted >= len(times_s)
                assert counted == len(times_s) or found.lost_U3[u, 0]


def test_few_keys_are_counted_exactly_for_good_and_others_are_dropped_after_a_week() -> None:
    found = after([*seen_at(*range(NOW_S, NOW_S + 300)), *seen_at(NOW_S + 9 * DAY, ad=99, offset=300)])
    assert (found.seen_U[0], many(found, 0, 2, keys_of(7)[2], 0)) == (LOG, 127)
    good = after([*seen_at(*range(NOW_S, NOW_S + 300), ad=1), *seen_at(NOW_S + 9 * DAY, ad=99, offset=300)])
    assert good.old_key_UY[0].tolist() == [keys_of(1)[2]]
    assert many(good, 0, 2, keys_of(1)[2], 0, for_good=True) == 300
    assert good.lost_U3.tolist() == [[0, 0, 0]]


def test_at_most_so_many_keys_are_held_and_newcomers_begin_where_others_were_lost() -> None:
    found = after([event for n in range(600) for event in seen_at(NOW_S + n, ad=16 * n, offset=n)])
    assert found.old_U.tolist() == [KEYS]
    assert found.lost_U3[0, 1] > 1
    assert found.old_count_UY[0].min() >= 1


def test_only_impressions_of_known_decisions_count() -> None:
    others = [an_event(n, 7, NOW_S, of_ad) for n, of_ad in enumerate(AD_FORMS.values()) if of_ad != SEEN]
    assert after(others).seen_U.tolist() == [0]
    states, batch = no_states(1), a_batch([("a", event) for event in [*others, *seen_at(NOW_S, offset=20)]])
    folded = fold(states, batch, lateness_s=LATENESS_S, source_code_S=CODES)
    every_B4 = np.full((len(batch), 4), 8, np.uint32)
    assert fold_exposures(Exposures.nothing(1), states, batch, folded, AdSeen(every_B4)).seen_U.tolist() == [1]
    for unknown in (None, AdSeen.nothing(len(batch))):
        assert fold_exposures(Exposures.nothing(1), states, batch, folded, unknown).seen_U.tolist() == [0]


def test_an_impression_that_is_too_late_to_be_applied_was_seen_all_the_same_and_a_refused_one_leaves_no_trace() -> None:
    late = [an_event(0, 1, NOW_S), *seen_at(NOW_S - LATENESS_S - 1, offset=1)]
    assert the_log(after(late), 0) == [(NOW_S - LATENESS_S - 1, keys_of(7))]
    assert after(seen_at(NOW_S), refused=Fate.unconsented).seen_U.tolist() == [0]


def test_delivered_again_it_counts_once() -> None:
    log = [("a", event) for event in [*seen_at(*range(NOW_S, NOW_S + 200)), *seen_at(NOW_S + 10, offset=200)]]
    once = lived(nobody(1), log, "a")
    twice = lived(once, log, "a")
    assert all(np.array_equal(one, two) for one, two in zip(once[1], twice[1], strict=True))


def test_whoever_saw_no_ad_is_not_touched_and_nothing_is_mutated() -> None:
    life = nobody(1)
    states, seen = lived(life, [("a", an_event(0))], "a")
    assert seen is life[1]
    once = lived((states, seen), [("a", event) for event in seen_at(NOW_S, offset=1)], "a")
    before = [column.copy() for column in once[1]]
    lived(once, [("a", event) for event in seen_at(*range(NOW_S, NOW_S + 300), offset=2)], "a")
    assert all(np.array_equal(was, now) for was, now in zip(before, once[1], strict=True))


def test_a_session_goes_on_while_the_person_does_anything_and_ends_with_half_an_hour_of_silence() -> None:
    watching = [an_event(1 + n, 1, NOW_S + 600 * n, Action.progress) for n in range(12)]
    found = after([*seen_at(NOW_S), *watching, *seen_at(NOW_S + 7_000, offset=20)])
    assert found.session_s_U.tolist() == [NOW_S]
    found = after([*seen_at(NOW_S), an_event(1, 1, NOW_S + SESSION_S, Action.play)])
    assert found.session_s_U.tolist() == [NOW_S + SESSION_S]
