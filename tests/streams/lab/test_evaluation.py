import dataclasses

import numpy as np
import pytest

from embeddings.events import Fate
from streams.lab.baselines import MISS, NOT_SCORED, measure
from streams.lab.evaluation import Bench, Evaluation, LogRecord, batches, evaluation_settings, run_evaluation
from streams.lab.leave_last_out import run_leave_last_out
from streams.lab.replay import event_records
from tests.streams.builders import NOW_MS, a_table, small, told

LOG = a_table(1_200, users=30, items=80)


@pytest.fixture(scope="module")
def run() -> Evaluation:
    return run_evaluation(LOG, small())


def test_the_same_log_gives_the_same_ranks(run: Evaluation) -> None:
    again = run_evaluation(LOG, small())
    np.testing.assert_array_equal(run.rank_R, again.rank_R)
    assert run.snapshots == again.snapshots > 5


def test_it_finds_what_people_take_better_than_popularity(run: Evaluation) -> None:
    assert run.quality.second_half > measure("popularity", LOG).second_half + 0.05


def test_it_scores_the_events_that_the_yardsticks_score(run: Evaluation) -> None:
    assert run.quality.events == measure("popularity", LOG).events
    first = {user: LOG.user_R.index(user) for user in set(LOG.user_R)}
    assert all(run.rank_R[r] == MISS for r in first.values())
    repeats = [
        r
        for r in range(len(LOG))
        if (LOG.user_R[r], LOG.item_R[r]) in set(zip(LOG.user_R[:r], LOG.item_R[:r], strict=True))
    ]
    assert np.flatnonzero(run.rank_R == NOT_SCORED).tolist() == repeats


def test_an_item_nobody_took_before_is_never_a_hit(run: Evaluation) -> None:
    first = [LOG.item_R.index(item) for item in sorted(set(LOG.item_R))]
    late = [r for r in first if r > 64]
    assert late
    assert (run.rank_R[late] >= 20).all()


def test_ranks_do_not_change_with_what_comes_after(run: Evaluation) -> None:
    """Every event is ranked before it, and all after it, is learned."""
    head = run_evaluation(LOG.head(640), small())
    np.testing.assert_array_equal(head.rank_R, run.rank_R[:640])


@pytest.mark.slow
def test_a_rank_does_not_depend_on_what_was_then_taken() -> None:
    """The last event is replaced by another: all ranks before it are the same, so nothing looked ahead."""
    other = dataclasses.replace(LOG, item_R=[*LOG.item_R[:639], LOG.item_R[0], *LOG.item_R[640:]])
    one, two = (run_evaluation(log.head(640), small()) for log in (LOG, other))
    np.testing.assert_array_equal(one.rank_R[:639], two.rank_R[:639])


def test_ratings_and_context_do_not_matter_to_what_counts_as_taken() -> None:
    log = a_table(200)
    log.rating_R[:] = 1
    bench = Bench(evaluation_settings(small()), log)
    records = [LogRecord(r, NOW_MS, k, v, tuple(h)) for r, (k, v, h) in enumerate(event_records(log))]
    answer = bench.step(records)
    assert set(answer.fate_R.tolist()) == {Fate.applied}
    assert len(told(answer)[0].take_T) == len({*zip(log.user_R, log.item_R, strict=True)})


def test_what_is_measured_searches_and_calls_new_what_the_settings_say() -> None:
    settings = evaluation_settings(small(index={"kind": "torch"}, retrieval={"fresh_for_s": 60}))
    bench = Bench(settings, LOG)
    bench.step(next(batches(LOG, settings, 64)))
    bench.refresh()
    assert (bench.serving.live.index.kind, bench.serving.fresh_for_s) == ("torch", 60)


@pytest.mark.slow
def test_progress_is_said() -> None:
    said: list[str] = []
    log = a_table(100, items=5)
    long = dataclasses.replace(
        log,
        user_R=log.user_R * 101,
        item_R=log.item_R * 101,
        rating_R=np.tile(log.rating_R, 101),
        time_s_R=np.sort(np.tile(log.time_s_R, 101)),
    )
    settings = small(learner={"refresh_events": 5_000}, retrieval={"trending": 5})
    run_evaluation(long, settings, batch=512, say=said.append)
    assert len(said) == 1
    assert "of 10,100: recall@10" in said[0]


@pytest.mark.slow
def test_an_event_that_is_not_read_is_a_miss_and_shifts_no_rank(run: Evaluation) -> None:
    """Without the conversion of files: a log made by hand may hold anything."""
    rows = [70, 71, 200, len(LOG) + 3]
    odd = dataclasses.replace(
        LOG,
        user_R=list(np.insert(np.array(LOG.user_R, object), [70, 70, 198, len(LOG)], ["x" * 600, "u1", "", "u2"])),
        item_R=list(np.insert(np.array(LOG.item_R, object), [70, 70, 198, len(LOG)], ["i001", "", "i002", "y" * 600])),
        rating_R=np.full(len(LOG) + 4, 3, np.float32),
        time_s_R=np.insert(LOG.time_s_R, [70, 70, 198, len(LOG)], LOG.time_s_R[[69, 69, 197, len(LOG) - 1]]),
    )
    whole, one_by_one = run_evaluation(odd, small()), run_evaluation(odd, small(), batch=1)
    for ranks in (whole.rank_R, one_by_one.rank_R):
        assert ranks[rows].tolist() == [MISS] * 4
    np.testing.assert_array_equal(np.delete(one_by_one.rank_R, rows), run_evaluation(LOG, small(), batch=1).rank_R)
    assert whole.quality.recall_10 == pytest.approx(run.quality.recall_10, abs=0.03), "batches fall elsewhere"


@pytest.mark.parametrize("first_s", [0, 2**40])
def test_a_log_may_count_from_anywhere(first_s: int) -> None:
    moved = dataclasses.replace(LOG.head(300), time_s_R=LOG.time_s_R[:300] - LOG.time_s_R[0] + first_s)
    near = dataclasses.replace(moved, time_s_R=moved.time_s_R - first_s + 1_000_000_000)
    one, two = (run_evaluation(log, small()).quality for log in (moved, near))
    assert one.events == two.events
    assert one.recall_10 == pytest.approx(two.recall_10, abs=0.02)


def test_both_moments_are_told_of_the_same_events(run: Evaluation) -> None:
    np.testing.assert_array_equal(run.event_R == NOT_SCORED, run.rank_R == NOT_SCORED)
    assert run.written.events == run.quality.events
    assert run.written.recall_10 > 0.8 * run.quality.recall_10


@pytest.mark.slow
def test_a_slate_written_at_the_event_before_knows_nothing_of_how_long_it_took() -> None:
    """A ranker that is taught sees the pause before what is asked at the take, and only there."""
    settings, differ = evaluation_settings(small()), 0
    log = a_table(900, users=60, items=150)
    log.time_s_R[:] = log.time_s_R[0] + np.cumsum(np.random.default_rng(0).exponential(4_000, len(log))).astype(int)
    bench = Bench(settings, log)
    for records in batches(log, settings, 64):
        answer = bench.step(records)
        bench.serving.catalogue([log.facts(log.item_R[record.offset]) for record in records], [])
        shown_QN = np.array([slate.item_N for slate in answer.slates])
        differ += int((shown_QN != bench.earlier_QN).any(1).sum())
        snapshot = bench.learner.freeze()
        snapshot.ranker["learned"] = np.ones(1, np.uint8)
        bench.serving.swap(snapshot.build(bench.now_ms)[0])
    assert differ > 0


@pytest.mark.slow
def test_people_are_asked_for_what_they_took_last() -> None:
    later, event = (run_leave_last_out(LOG, small(), ask) for ask in ("later", "event"))
    assert later.popular == event.popular
    for asked in (later, event):
        assert 5 < asked.marquee.events < len(set(LOG.user_R)), "not those who took last what they had"
        assert asked.marquee.recall_20 > 0.5


def test_the_last_of_a_person_is_the_later_in_the_file_and_is_not_learned() -> None:
    """All at one time: everybody takes `last` last, which nobody who is learned of had taken."""
    names = [f"i{n}" for n in range(12)] + ["last"]
    rows = [(f"u{u}", name) for name in names for u in range(8)]
    log = dataclasses.replace(
        a_table(len(rows)),
        user_R=[user for user, _ in rows],
        item_R=[item for _, item in rows],
        time_s_R=np.full(len(rows), NOW_MS // 1000, np.int64),
    )
    found = run_leave_last_out(log, small(), "later")
    assert (found.marquee.recall_20, found.popular.recall_20, found.marquee.events) == (0, 0, 8)


def test_who_has_nothing_but_a_last_event_is_not_asked_for() -> None:
    log = LOG.head(300)
    once = dataclasses.replace(log, user_R=["once", *log.user_R[1:]])
    assert run_leave_last_out(once, small(), "event").marquee.events <= len(set(log.user_R[1:]))
