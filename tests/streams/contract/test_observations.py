import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from embeddings.events import Action, Source
from streams.contract.observations import (
    MOST_BYTES,
    LaterObservation,
    Observation,
    UnreadableObservation,
    decode,
    encode,
    pieces,
)
from tests.fuzzing import thorough
from tests.streams.builders import Service, a_learner, a_log, told

ID = (1 << 40) - 1
HERE = Path(__file__).parent


def an_observation(
    rows: int = 4, takes: int = 3, held: int = 50, examples: int = 2, shown: int = 1, seed: int = 0, ads: int = 0
) -> Observation:
    """Of any size, full of noise; histories are filled to different lengths."""
    draw = np.random.default_rng(seed)

    def ids(*shape: int) -> Any:
        return draw.integers(1, ID, shape).astype(np.uint64)

    history_TH = ids(takes, held)
    empty_TH = np.arange(held) >= draw.integers(0, held + 1, takes)[:, None]
    history_TH[empty_TH] = 0
    time_s_R = draw.integers(2**31, 2**32, rows)
    take_T = draw.integers(0, max(rows, 1), takes).astype(np.int32)
    age_TH = 2 ** draw.integers(0, 25, (takes, held)) * draw.integers(-1, 2, (takes, held))
    return Observation(
        source=Source("marquee.events.v1", 3),
        first=17,
        last=15 + 2 * rows,
        log="cluster/ö",
        names={int(item): f"ö{item}" for item in ids(rows)},
        offset_R=17 + 2 * np.arange(rows, dtype=np.int64),
        user_R=draw.integers(0, 2**63, rows).astype(np.uint64),
        item_R=ids(rows),
        action_R=draw.integers(0, 23, rows).astype(np.uint8),
        value_R=draw.normal(size=rows).astype(np.float32),
        time_s_R=time_s_R,
        consent_R=draw.integers(0, 16, rows).astype(np.uint8),
        slate_R=draw.integers(0, 2**63, rows).astype(np.uint64),
        slot_R=draw.integers(-1, 20, rows).astype(np.int16),
        kind_R=draw.integers(0, 2, rows).astype(np.uint8),
        take_T=take_T,
        history_TH=history_TH,
        history_action_TH=np.where(empty_TH, 0, draw.integers(1, 14, (takes, held))).astype(np.uint8),
        history_time_s_TH=np.where(empty_TH, 0, time_s_R[take_T, None] - age_TH if rows else age_TH),
        example_E=draw.integers(0, max(rows, 1), examples).astype(np.int32),
        example_item_ES=ids(examples, 5),
        example_x_ESF=draw.normal(size=(examples, 5, 28)).astype(np.float16),
        log_q_ES=draw.normal(size=(examples, 5)).astype(np.float16),
        moment_E=draw.integers(0, 2, examples).astype(np.uint8),
        policy_E=draw.integers(0, 2**32, examples).astype(np.uint32),
        rate_E=draw.random(examples, np.float32),
        shown_L=ids(shown),
        shown_item_LN=ids(shown, 6),
        shown_x_LNF=draw.normal(size=(shown, 6, 28)).astype(np.float16),
        shown_propensity_LN=draw.random((shown, 6)).astype(np.float16),
        policy_L=draw.integers(0, 2**32, shown).astype(np.uint32),
        rate_L=draw.random(shown, np.float32),
        context_RC=draw.integers(0, 2**16, (rows, 5)).astype(np.uint16),
        ad_A=draw.integers(0, 2**63, ads).astype(np.uint64),
        ad_item_A=ids(ads),
        ad_advertiser_A=draw.integers(0, 2**32, ads).astype(np.uint32),
        ad_placement_A=draw.integers(0, 2**32, ads).astype(np.uint32),
        ad_x_AF=draw.normal(size=(ads, 28)).astype(np.float16),
        ad_taste_AD=draw.normal(size=(ads, 8 if ads else 0)).astype(np.float16),
        ad_p_AO=draw.random((ads, 3 if ads else 0), np.float32),
        ad_propensity_A=draw.random(ads, np.float32),
        ad_click_s_A=draw.integers(0, 2**25, ads).astype(np.int32),
        ad_view_s_A=draw.integers(0, 2**25, ads).astype(np.int32),
    )


def assert_equal(one: Observation, other: Observation) -> None:
    for field in dataclasses.fields(Observation):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, np.ndarray):
            assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape), field.name
            assert mine.tobytes() == theirs.tobytes(), field.name
        else:
            assert mine == theirs, field.name


@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 50), st.integers(0, 3), st.integers(0, 3))
@thorough(50)
def test_what_is_packed_comes_back_to_the_bit(rows: int, takes: int, held: int, examples: int, shown: int) -> None:
    ads = (rows + shown) % 3
    observation = an_observation(rows, takes, held, examples, shown, seed=rows + 10 * takes, ads=ads)
    assert_equal(observation, decode(encode(observation)))


def test_what_version_1_told_is_read() -> None:
    """Packed by the release before, with a log and contexts and without."""
    whole, bare = (bytes.fromhex((HERE / f"observation_v1_{name}.hex").read_text()) for name in ("whole", "bare"))
    assert (whole[1], bare[1]) == (1, 1)
    for value, contexts, log in ((whole, 5, "cluster/ö"), (bare, 0, "")):
        old = decode(value)
        assert (old.source, old.first, old.last, old.log) == (Source("marquee.events.v1", 3), 17, 23, log)
        assert old.context_RC.shape == (4, contexts)
        assert (old.slot_R.tolist(), old.moment_E.tolist(), old.rate_E.tolist()) == ([-1] * 4, [0, 0], [1, 1])
        assert old.history_action_TH.shape == old.history_time_s_TH.shape == old.history_TH.shape == (3, 50)
        assert not old.history_time_s_TH.any()
        assert old.history_TH.any()


def test_how_long_ago_is_kept_to_a_hundredth() -> None:
    o = an_observation(takes=40)
    held_TH = o.history_TH != 0
    age_TH = np.random.default_rng(1).integers(-5_000, 2**28, held_TH.shape)
    o = dataclasses.replace(o, history_time_s_TH=np.where(held_TH, o.time_s_R[o.take_T, None] - age_TH, 0))
    read_TH = o.time_s_R[o.take_T, None] - decode(encode(o)).history_time_s_TH
    assert np.abs(read_TH - age_TH)[held_TH].max() > 0
    assert (np.abs(read_TH - age_TH) <= np.abs(age_TH) / 256 + 1)[held_TH].all()


def test_slates_are_told_without_rows() -> None:
    """A request has no row, its slate may be seen all the same."""
    only = dataclasses.replace(an_observation(rows=0, takes=0, examples=0, shown=300), first=7, last=7, names={})
    parts = [decode(value) for value in pieces(only, most_bytes=20_000)]
    assert len(parts) > 1
    assert {(o.first, o.last, len(o)) for o in parts} == {(7, 7, 0)}
    assert np.array_equal(np.concatenate([o.shown_x_LNF for o in parts]), only.shown_x_LNF)
    with pytest.raises(UnreadableObservation):
        decode(encode(dataclasses.replace(an_observation(rows=0, takes=0, examples=0, shown=0), first=7, last=7)))


def test_a_history_costs_eight_bytes_an_item() -> None:
    full, empty = an_observation(takes=100), an_observation(takes=100)
    full.history_TH[:], empty.history_TH[:] = ID, 0
    assert len(encode(full)) - len(encode(empty)) == pytest.approx(100 * 50 * 8, abs=16)


@given(st.data())
@thorough(60)
def test_what_is_cut_short_or_not_ours_is_refused(data: st.DataObject) -> None:
    value = encode(an_observation())
    broken = data.draw(
        st.one_of(
            st.integers(0, len(value) - 1).map(lambda end: value[:end]),
            st.binary(max_size=40),
            st.just(b"\x9a" + value[1:]),
            st.just(value[:1] + b"\x63" + value[2:]),
        )
    )
    with pytest.raises(UnreadableObservation):
        decode(broken)


def test_a_large_observation_is_told_in_pieces_that_say_the_same() -> None:
    whole = an_observation(rows=4_000, takes=3_000, examples=200, shown=500)
    whole = dataclasses.replace(
        whole,
        take_T=np.sort(whole.take_T),
        names={int(item): "ö" * 500 for item in whole.item_R},
    )
    packed = list(pieces(whole))
    assert len(encode(whole)) > MOST_BYTES
    assert max(map(len, packed)) <= MOST_BYTES
    told = [decode(value) for value in packed]
    rows = np.cumsum([0, *map(len, told)])
    assert [(o.first, o.last) for o in told] == [(o.offset_R[0], o.offset_R[-1]) for o in told]
    assert np.array_equal(np.concatenate([o.offset_R for o in told]), whole.offset_R)
    assert np.array_equal(np.concatenate([o.take_T + at for o, at in zip(told, rows, strict=False)]), whole.take_T)
    assert np.array_equal(np.concatenate([o.history_TH for o in told]), whole.history_TH)
    examples = np.concatenate([o.example_E + at for o, at in zip(told, rows, strict=False)])
    assert np.array_equal(np.sort(examples), np.sort(whole.example_E))
    assert sum(len(o.example_x_ESF) for o in told) == 200
    assert np.array_equal(np.concatenate([o.shown_item_LN for o in told]), whole.shown_item_LN)
    assert {item: name for o in told for item, name in o.names.items()} == whole.names


def test_a_small_one_is_told_as_it_always_was() -> None:
    assert list(pieces(an_observation())) == [encode(an_observation())]


def test_what_does_not_fit_together_is_refused() -> None:
    good = an_observation()
    places: list[dict[str, Any]] = [{"last": 2**63}, {"first": 3}]
    for change in places:
        with pytest.raises(UnreadableObservation):
            decode(encode(dataclasses.replace(good, **change)))
    columns: dict[str, NDArray[Any]] = {
        "offset_R": good.offset_R[::-1],
        "item_R": good.item_R[1:],
        "take_T": good.take_T + np.int32(4),
        "example_E": good.example_E - np.int32(9),
        "value_R": good.value_R.astype(np.float64),
        "shown_L": good.shown_L[:, None],
        "moment_E": good.moment_E[1:],
        "history_count_T": np.full(3, 51, np.uint8),
        "history_age_TH": np.full(3, 0x7F80, np.uint16),
        "history_action_TH": np.ones(7, np.uint8),
    }
    for name, array in columns.items():
        parts = msgspec.msgpack.decode(encode(good))
        parts[-1][name] = (array.dtype.str, array.shape, array.tobytes())
        with pytest.raises(UnreadableObservation):
            decode(msgspec.msgpack.encode(parts))


def test_a_later_release_is_named() -> None:
    value = encode(an_observation())
    with pytest.raises(LaterObservation, match="version 3; this release reads 2"):
        decode(value[:1] + b"\x03" + value[2:])


LOG = a_log(200, items=40)


@pytest.fixture(scope="module")
def observation() -> Observation:
    """What a worker tells of 100 events after a snapshot."""
    service = Service()
    service.catalogue(*(f"i{n:03d}" for n in range(40)))
    service.live_through(LOG[:100])
    return told(service.deliver(LOG[100:]))[0]


def test_the_item_taken_stands_first_and_only_there(observation: Observation) -> None:
    taken_E = observation.item_R[observation.example_E]
    assert (observation.example_item_ES[:, 0] == taken_E).all()
    assert (observation.example_item_ES[:, 1:] != taken_E[:, None]).all()


def test_sampled_candidates_are_distinct_and_not_held(observation: Observation) -> None:
    held = dict(zip(observation.take_T.tolist(), observation.history_TH.tolist(), strict=True))
    for row, item_S in zip(observation.example_E.tolist(), observation.example_item_ES.tolist(), strict=True):
        others = [item for item in item_S[1:] if item]
        assert len(others) == len(set(others)) == 4
        assert not set(others) & (set(held[row]) - {0})


def test_what_is_told_with_features_is_every_new_take_and_nothing_else(observation: Observation) -> None:
    o = observation
    assert len(o) == 100
    held_T = (o.history_TH == o.item_R[o.take_T][:, None]).any(1)
    skipped_T = o.action_R[o.take_T] == Action.skip
    assert held_T.any()
    assert skipped_T.any()
    assert o.example_E.tolist() == o.take_T[~held_T & ~skipped_T].tolist()


def test_a_sampled_candidate_stands_for_its_share_of_the_candidates(observation: Observation) -> None:
    assert (observation.log_q_ES[:, 0] == 0).all()
    share_E = np.exp(observation.log_q_ES[:, 1].astype(float))
    assert ((share_E > 4 / 21) & (share_E < 1)).all()


def test_slates_are_told_with_the_features_of_their_items(observation: Observation) -> None:
    assert len(observation.shown_L) == 100
    assert observation.shown_item_LN.shape == (100, 5)
    assert np.isfinite(observation.shown_x_LNF).all()
    assert np.abs(observation.shown_x_LNF).sum(axis=2).all()
    assert (observation.rate_L == 1).all()


def test_slates_that_are_published_again_do_not_make_one_row_too_large_to_tell() -> None:
    from tests.streams.builders import an_event, small

    service = Service(small(slates={"size": 100, "candidates": 200}))
    service.catalogue(*(f"i{n:03d}" for n in range(200)))
    log = [an_event(n, f"u{n}", f"i{n % 200:03d}") for n in range(200)]
    service.deliver(log[:199])
    again = service.respond(log)  # stored, and not committed: a row is new, and all get their slates
    assert len(again.slates) == 200
    assert max(len(value) for _, value in again.told) <= MOST_BYTES
    assert sum(len(one) for one in told(again)) == 1
    assert sum(len(one.shown_L) for one in told(again)) == 200
    learner = a_learner(service.settings)
    assert [learner.learn(one) for one in told(again)][-1] == 1, "the pieces before it have no row of it"


def test_names_of_all_items_travel_along(observation: Observation) -> None:
    assert set(observation.names) == set(observation.item_R.tolist())


def test_only_the_asked_share_of_takes_carries_features() -> None:
    from tests.streams.builders import small

    service = Service(small(observe={"rate": 0.3, "shown": 0.0}))
    (observation,) = told(service.deliver(LOG))
    takes = int((observation.action_R[observation.take_T] != Action.skip).sum())
    assert 0.15 < len(observation.example_E) / takes < 0.45
    assert set(observation.example_E.tolist()) < set(observation.take_T.tolist())
    assert len(observation.shown_L) == 0


def test_a_busy_worker_tells_a_sample() -> None:
    from tests.streams.builders import small

    service = Service(small(observe={"examples_per_s": 50, "first_examples": 0}))
    (first,), (second,) = told(service.deliver(LOG[:100])), told(service.deliver(LOG[100:]))
    assert len(first.take_T) > 50 > len(first.example_E) / 1.5 > 20
    assert len(second.example_E) < 20  # hardly any time has passed


def test_nothing_is_told_where_nobody_listens() -> None:
    from tests.streams.builders import small

    answer = Service(small(observe={"enabled": False})).deliver(LOG)
    assert answer.told == []
    assert len(answer.slates) == 200
