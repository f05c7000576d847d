import numpy as np
import pytest
from numpy.typing import NDArray

from streams.lab.baselines import BASELINES, MISS, NOT_SCORED, Quality, TooLarge, available, measure
from tests.streams.builders import a_table

A, B, C = 0, 1, 2


def ranks(name: str, *events: tuple[int, int]) -> list[float]:
    user_R, item_R = (np.array(column, np.int32) for column in zip(*events, strict=True))
    return BASELINES[name](user_R, item_R, 0).tolist()


@pytest.mark.slow
def test_unknown_people_and_items_are_misses_and_repeats_are_not_scored() -> None:
    for name in BASELINES:
        got = ranks(name, (0, A), (0, A), (1, A), (0, B))
        assert got[0] == MISS, name
        assert got[1] == NOT_SCORED, name
        assert got[2:] == [MISS, MISS], name


def test_popularity_counts_and_halves_ties() -> None:
    log = [(0, A), (1, A), (1, B), (2, C), (2, A), (0, B)]
    assert ranks("popularity", *log)[4:] == [0.0, 0.5], "A is most taken; B and C were taken once"


def test_decayed_popularity_forgets_what_was_popular() -> None:
    early = [(user, A) for user in range(300)]
    late = [(user, B) for user in range(300, 590)]
    judge = [(600, C), (600, B)]
    assert ranks("popularity", *early, *late, *judge)[-1] == 1.0
    many = [(user, C) for user in range(1_000, 21_000)]
    assert ranks("decayed-popularity", *early, *many, *late, (600, 3), (600, B))[-1] == 1.0
    assert ranks("popularity", *early, *many, *late, (600, 3), (600, B))[-1] == 2.0


def test_cooccurrence_prefers_what_others_took_after_the_same() -> None:
    others = [event for user in range(5) for event in ((user, A), (user, B))]
    popular = [(user, C) for user in range(10, 30)]
    assert ranks("cooccurrence", *others, *popular, (9, A), (9, B))[-1] == 0.0
    assert ranks("popularity", *others, *popular, (9, A), (9, B))[-1] == 1.0


@pytest.mark.parametrize("name", ["isgd", "cooccurrence"])
def test_yardsticks_learn_what_groups_like(name: str) -> None:
    log = a_table(1_500, users=40, items=60)
    assert measure(name, log).second_half > measure("popularity", log).second_half
    assert measure(name, log) == measure(name, log)


def plainly(rank_R: NDArray[np.float64]) -> tuple[float, float, float]:
    scored = [rank for rank in rank_R.tolist() if rank != NOT_SCORED]
    gains = [1 / np.log2(rank + 2) if rank < 10 else 0 for rank in scored]
    return (
        sum(r < 10 for r in scored) / len(scored),
        sum(r < 20 for r in scored) / len(scored),
        sum(gains) / len(scored),
    )


def test_quality_is_what_it_says() -> None:
    rank_R = np.array([0, 9, 9.5, 10, 19, 20, MISS, NOT_SCORED, 3])
    quality = Quality.of(rank_R)
    assert (quality.recall_10, quality.recall_20, quality.ndcg_10) == pytest.approx(plainly(rank_R))
    assert (quality.events, quality.second_half) == (8, 0.25)
    assert quality.error == pytest.approx(np.sqrt(0.25 / 8))


@pytest.mark.parametrize("name", list(BASELINES))
def test_a_yardstick_that_does_not_fit_in_memory_is_not_begun(name: str) -> None:
    log = a_table(50)
    with pytest.raises(TooLarge, match=rf"{name} is left out: it takes .* GiB for 12 users and \d+ items, of"):
        measure(name, log, room=100)
    assert measure(name, log, room=1 << 20).events > 0
    assert available() > 1 << 20
