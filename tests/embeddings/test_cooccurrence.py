import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from embeddings import cooccurrence
from embeddings.cooccurrence import CountSettings, PairCounts
from embeddings.svd import Factors, aligned
from tests.fuzzing import thorough

ITEMS, HELD, NOW = 40, 6, 1_750_000_000


def a_log(events: int, seed: int = 0, items: int = ITEMS) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Items of two tastes, each taken after others of its taste."""
    random = np.random.default_rng(seed)
    taste_E = random.integers(0, 2, events)
    half = items // 2
    item_E = (taste_E * half + (half * random.random(events) ** 2).astype(int)).astype(np.int32)
    held_EH = taste_E[:, None] * half + random.integers(0, half, (events, HELD))
    held_EH[np.arange(HELD) >= random.integers(0, HELD + 1, events)[:, None]] = -1
    return item_E, held_EH.astype(np.int32)


def times(events: int, seed: int = 0) -> NDArray[np.int64]:
    """Event times, about one a second, some out of order by up to a minute."""
    return NOW + np.arange(events) - np.random.default_rng(seed).integers(0, 60, events)


def counted_plainly(
    item_R: NDArray[np.int32], history_RH: NDArray[np.int32], time_s_R: NDArray[np.int64], setting: CountSettings
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """C and n by the definition: each row with what it has kept by the latest."""
    size = int(max(item_R.max(), history_RH.max())) + 1
    pairs, counts = np.zeros((size, size)), np.zeros(size)
    for r, (item, held) in enumerate(zip(item_R, history_RH, strict=True)):
        fade = 2 ** ((time_s_R[r] - time_s_R.max()) / setting.half_life_s)
        counts[item] += fade
        for k, other in enumerate(held[held >= 0]):
            if other != item:
                pairs[other, item] += fade * (k + 1) ** -setting.power
                pairs[item, other] += fade * setting.backward * (k + 1) ** -setting.power
    return pairs, counts


def normalised(pairs: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    known = counts > 0
    safe = np.where(known, counts, 1)
    return pairs * (known * safe**-0.5)[:, None] * (known * safe**-0.3)


def test_neighbours_are_the_greatest_normalised_counts() -> None:
    setting = CountSettings(half_life_s=300.0)
    item_R, history_RH = a_log(500)
    time_s_R = times(500)
    counts = PairCounts(setting)
    counts.update(item_R, history_RH, time_s_R)
    matrix = normalised(*counted_plainly(item_R, history_RH, time_s_R, setting))
    rows_NK, weights_NK = counts.neighbours(5)
    for item in range(len(matrix)):
        expected = np.sort(matrix[item])[::-1][:5]
        np.testing.assert_allclose(weights_NK[item], expected, rtol=1e-4, atol=1e-7)
        held = rows_NK[item] >= 0
        np.testing.assert_allclose(matrix[item, rows_NK[item, held]], weights_NK[item, held], rtol=1e-4)


def test_item_counts_fade_with_the_half_life() -> None:
    counts = PairCounts(CountSettings(half_life_s=10.0))
    empty = np.full((10, 1), -1, np.int32)
    counts.update(np.zeros(10, np.int32), empty, NOW)
    assert counts.counts_N[0] == 10
    counts.update(np.ones(10, np.int32), empty, NOW + 10)
    assert counts.counts_N.tolist() == pytest.approx([5, 10])
    counts.update(np.ones(10, np.int32), empty, NOW)
    assert counts.counts_N.tolist() == pytest.approx([5, 15]), "late ones weigh what they would have"


def test_counts_survive_many_half_lives() -> None:
    """The unit of a count is scaled back long before it leaves the range of a float."""
    counts = PairCounts(CountSettings(half_life_s=1.0))
    item_R, history_RH = a_log(2_000)
    counts.update(item_R, history_RH, NOW + np.arange(2_000))
    assert np.isfinite(counts.counts_N).all()
    assert counts.counts_N.sum() == pytest.approx(2.0)
    assert np.isfinite(counts.neighbours(5)[1]).all()


@thorough(20)
@given(st.lists(st.integers(1, 400), max_size=8), st.integers(0, 3), st.sampled_from([16, 64]))
def test_counts_do_not_depend_on_how_rows_were_batched(cuts: list[int], seed: int, slots: int) -> None:
    setting = CountSettings(slots=slots, budget=1500, half_life_s=20.0)
    item_R, history_RH = a_log(400, seed, items=300)
    time_s_R = times(400, seed)
    whole, parts = PairCounts(setting), PairCounts(setting)
    whole.update(item_R, history_RH, time_s_R)
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), 400], strict=True):
        parts.update(item_R[begin:end], history_RH[begin:end], time_s_R[begin:end])
    for one, other in zip(whole.neighbours(20), parts.neighbours(20), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(whole.counts_N, parts.counts_N)


def test_restored_counts_go_on_bit_for_bit() -> None:
    setting = CountSettings(slots=32, half_life_s=100.0)
    item_R, history_RH = a_log(1_000, items=200)
    time_s_R = times(1_000)
    straight, stopped = PairCounts(setting), PairCounts(setting)
    straight.update(item_R, history_RH, time_s_R)
    stopped.update(item_R[:600], history_RH[:600], time_s_R[:600])
    resumed = PairCounts.restore(stopped.state())
    resumed.update(item_R[600:], history_RH[600:], time_s_R[600:])
    for name, array in straight.state().items():
        if name not in ("start_N", "pool_row", "pool_weight"):
            np.testing.assert_array_equal(resumed.state()[name], array, name)
    for one, other in zip(straight.neighbours(40), resumed.neighbours(40), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(straight.factors(8).target_ND, resumed.factors(8).target_ND)


def test_what_was_done_since_a_state_can_be_done_again_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = CountSettings(slots=32, half_life_s=100.0)
    item_R, history_RH = a_log(1_000, items=200)
    history_RH[::7, 1] = -1  # one that found no room
    item_R[::9] = -1
    time_s_R, counts = times(1_000), PairCounts(setting)
    counts.update(item_R[:300], history_RH[:300], time_s_R[:300])
    assert counts.log() is None, "nobody noted it"
    before, logs = {name: array.copy() for name, array in counts.state().items()}, []
    for begin, end, width in ((300, 500, 6), (500, 500, 6), (500, 900, 2), (900, 1_000, 6)):
        counts.update(item_R[begin:end], history_RH[begin:end, :width], time_s_R[begin:end])
        if width == 2:
            counts.forget(np.arange(200) % 5 == 0)
        if begin != 300:
            logs.append(counts.log() or {})
    again = PairCounts.restore(before, logs=logs)
    assert again.counts_N.tolist() == counts.counts_N.tolist()
    for one, other in zip(again.neighbours(40), counts.neighbours(40), strict=True):
        np.testing.assert_array_equal(one, other)
    assert sum(array.nbytes for array in logs[-1].values()) < 100 * 40
    monkeypatch.setattr(cooccurrence, "MOST_BYTES", 1_000)
    counts.update(item_R, history_RH, time_s_R)
    assert counts.log() is None, "it became too large"


def test_what_was_held_before_one_without_a_row_counts() -> None:
    counts = PairCounts()
    counts.update(np.array([3], np.int32), np.array([[1, -1, 2]], np.int32), NOW)
    counts.update(np.array([1, 2], np.int32), np.full((2, 1), -1, np.int32), NOW)
    rows_NK, weights_NK = counts.neighbours(2)
    assert rows_NK[3].tolist() == [1, 2]
    assert weights_NK[3][1] / weights_NK[3][0] == pytest.approx(1 / 2)


def test_a_state_that_faded_by_events_is_read_as_it_stood() -> None:
    """As a release without a clock wrote it: its unit, a half-life in events; then it fades by time."""
    item_R, history_RH = a_log(200)
    counts = PairCounts()
    counts.update(item_R, history_RH, NOW)
    old = counts.state()
    del old["clock"]
    old["settings"] = np.array([1.0, 0.5, 30_000.0, 0.5, 0.3, 1024.0, float(1 << 26)])
    old["count_N"], old["pool_weight"] = (
        old["count_N"] * (32 / counts._unit()),
        old["pool_weight"] * np.float32(32 / counts._unit()),
    )
    old["unit"] = np.array([32.0])
    restored = PairCounts.restore(old, CountSettings(half_life_s=1_000.0), clock_s=NOW)
    np.testing.assert_allclose(restored.counts_N, counts.counts_N, rtol=1e-6)
    np.testing.assert_allclose(restored.neighbours(5)[1], counts.neighbours(5)[1], rtol=1e-5)
    restored.update(np.array([ITEMS], np.int32), np.array([[-1]], np.int32), NOW + 1_000)
    np.testing.assert_allclose(restored.counts_N[: len(counts)], counts.counts_N / 2, rtol=1e-6)


def test_an_item_keeps_its_strongest_neighbours_within_its_slots() -> None:
    counts = PairCounts(CountSettings(slots=16))
    counts.update(np.zeros(1, np.int32), np.full((1, 1), -1, np.int32))
    strong = np.tile(np.arange(1, 5, dtype=np.int32), 50)
    counts.update(strong, np.zeros((len(strong), 1), np.int32))
    weak = np.arange(5, 300, dtype=np.int32)
    counts.update(weak, np.zeros((len(weak), 1), np.int32))
    rows_NK, _ = counts.neighbours(4)
    assert sorted(rows_NK[0].tolist()) == [1, 2, 3, 4]
    assert counts.slots <= 16 * len(counts)


def test_slots_stay_within_the_budget() -> None:
    counts = PairCounts(CountSettings(budget=16 * 400))
    item_R, history_RH = a_log(20_000, items=300)
    counts.update(item_R, history_RH)
    assert counts.slots <= 16 * 400


def test_an_item_known_only_from_histories_has_no_neighbours() -> None:
    counts = PairCounts()
    counts.update(np.array([0], np.int32), np.array([[1, -1]], np.int32))
    rows_NK, weights_NK = counts.neighbours(2)
    assert rows_NK.tolist() == [[-1, -1], [-1, -1]]
    assert not weights_NK.any()


def test_factors_are_the_best_approximation_of_their_width() -> None:
    setting = CountSettings()
    item_R, history_RH = a_log(3_000)
    counts = PairCounts(setting)
    counts.update(item_R, history_RH, NOW)
    matrix = normalised(*counted_plainly(item_R, history_RH, np.full(3_000, NOW), setting))
    factors = counts.factors(10)
    values = np.linalg.svd(matrix, compute_uv=False)
    error = np.linalg.norm(matrix - factors.source_ND @ factors.target_ND.T)
    assert error == pytest.approx(np.sqrt((values[10:] ** 2).sum()), rel=2e-3)


@pytest.mark.slow
def test_factors_of_a_larger_catalogue_agree_with_the_dense_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = PairCounts()
    counts.update(*a_log(3_000))
    dense = counts.factors(6, passes=4)
    monkeypatch.setattr("embeddings.svd.DENSE_BELOW", 0)
    sparse = counts.factors(6, passes=4)
    np.testing.assert_allclose(
        dense.source_ND @ dense.target_ND.T, sparse.source_ND @ sparse.target_ND.T, rtol=1e-3, atol=1e-3
    )


def test_a_refresh_keeps_vectors_comparable_and_repeats_itself() -> None:
    item_R, history_RH = a_log(6_000)
    counts = PairCounts()
    counts.update(item_R[:5_500], history_RH[:5_500])
    first = counts.factors(8)
    counts.update(item_R[5_500:], history_RH[5_500:])
    second, again = counts.factors(8, first), counts.factors(8, first)
    np.testing.assert_array_equal(second.target_ND, again.target_ND)
    lengths = np.linalg.norm(first.target_ND, axis=1) * np.linalg.norm(second.target_ND, axis=1)
    cosine = (first.target_ND * second.target_ND).sum(1) / np.maximum(lengths, 1e-9)
    assert np.median(cosine[lengths > 0]) > 0.95


def test_alignment_turns_vectors_back_and_keeps_products() -> None:
    random = np.random.default_rng(0)
    then = Factors(*random.standard_normal((2, 30, 5)).astype(np.float32))
    turn, _ = np.linalg.qr(random.standard_normal((5, 5)))
    now = aligned(Factors(then.source_ND @ turn.astype("f4"), then.target_ND @ turn.astype("f4")), then)
    np.testing.assert_allclose(now.source_ND, then.source_ND, atol=1e-5)
    np.testing.assert_allclose(now.target_ND, then.target_ND, atol=1e-5)


@pytest.mark.parametrize("items", [0, 1, 3])
def test_few_items_have_padded_factors(items: int) -> None:
    counts = PairCounts()
    rows = np.arange(items, dtype=np.int32)
    counts.update(rows, (rows - 1)[:, None])
    factors = counts.factors(8)
    assert factors.source_ND.shape == factors.target_ND.shape == (items, 8)
    assert np.isfinite(factors.target_ND).all()
    assert counts.neighbours(4)[0].shape == (items, 4)


def test_nothing_is_left_of_items_that_are_forgotten() -> None:
    """Neither in their own rows nor in others', and whoever gets their rows begins at nothing."""
    setting = CountSettings(half_life_s=1_000.0)
    item_R, history_RH = a_log(800)
    time_s_R = times(800)
    counts, gone = PairCounts(setting), [0, 3, 21, 39]
    counts.update(item_R[:500], history_RH[:500], time_s_R[:500])
    used = counts.slots
    gone_N = np.zeros(ITEMS, np.bool_)
    gone_N[gone] = True
    counts.forget(gone_N)
    assert counts.slots < used
    counts.update(item_R[500:], history_RH[500:], time_s_R[500:])
    before = [(item_R[:500], history_RH[:500], time_s_R[:500]), (item_R[500:], history_RH[500:], time_s_R[500:])]
    (old, taken), (new, taken_later) = (counted_plainly(*part, setting) for part in before)
    faded = 2 ** ((time_s_R[:500].max() - time_s_R.max()) / 1_000)
    old[gone], old[:, gone], taken[gone] = 0, 0, 0
    matrix = normalised(old * faded + new, taken * faded + taken_later)
    np.testing.assert_allclose(counts.counts_N, taken * faded + taken_later, rtol=1e-5)
    rows_NK, weights_NK = counts.neighbours(ITEMS)
    for item in range(ITEMS):
        held = rows_NK[item] >= 0
        assert len(set(rows_NK[item][held].tolist())) == held.sum()
        np.testing.assert_allclose(weights_NK[item][held], np.sort(matrix[item])[::-1][: held.sum()], rtol=1e-3)
        assert held.sum() == (matrix[item] > 0).sum()


def test_neighbours_are_looked_for_among_some_only() -> None:
    item_R, history_RH = a_log(500)
    counts = PairCounts()
    counts.update(item_R, history_RH, NOW)
    among_N = np.arange(ITEMS) % 3 == 0
    rows_NK, weights_NK = counts.neighbours(5, among_N)
    every_NK, value_NK = counts.neighbours(ITEMS)
    for item in range(ITEMS):
        chosen = (every_NK[item] >= 0) & among_N[every_NK[item]]
        assert rows_NK[item][rows_NK[item] >= 0].tolist() == every_NK[item][chosen][:5].tolist()
        np.testing.assert_array_equal(weights_NK[item][rows_NK[item] >= 0], value_NK[item][chosen][:5])


def test_vectors_of_rows_that_are_other_items_now_are_no_start() -> None:
    random = np.random.default_rng(0)
    vectors_ND = random.standard_normal((4, 3)).astype(np.float32)
    factors = Factors(vectors_ND, -vectors_ND, np.array([7, 8, 9, 10], np.uint64))
    assert factors.of(np.array([7, 8, 9, 10, 11], np.uint64)) is factors
    changed = factors.of(np.array([7, 0, 9], np.uint64))
    np.testing.assert_array_equal(changed.source_ND, vectors_ND[:3] * np.array([[1], [0], [1]]))
    np.testing.assert_array_equal(changed.target_ND, -changed.source_ND)
