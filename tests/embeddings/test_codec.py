import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.codec import VERSION, StateCodec, state_dtype
from embeddings.errors import UnreadableState
from embeddings.fatigue import MOST
from embeddings.state_columns import HISTORY, RING, UserStates, coarsen, no_states
from tests.embeddings.test_tails import some_shown
from tests.fuzzing import thorough


def some_states(seed: int, users: int = 20) -> UserStates:
    """States such as a fold leaves them: times fall along the history and are as coarse as they are stored."""
    draw = np.random.default_rng(seed)
    states = no_states(users)
    states.count_U[:] = draw.integers(0, HISTORY + 1, users)
    states.last_s_U[:] = draw.integers(2**28, 2**32, users)
    states.events_U[:] = draw.integers(0, 2**32, users)
    states.ring_UR[:] = draw.integers(0, 2**32, (users, RING))
    states.consent_U[:] = draw.integers(0, 16, users)
    states.mark_source_U2[:] = draw.integers(-1, 2**16 - 1, (users, 2))
    states.mark_offset_U2[:] = np.where(states.mark_source_U2 < 0, -1, draw.integers(0, 2**48, (users, 2)))
    for u, count in enumerate(states.count_U):
        back_s = np.sort((2 ** draw.uniform(0, 28, count)).astype(np.int64))
        states.item_UH[u, :count] = draw.integers(1, 2**40, count)
        states.action_UH[u, :count] = draw.integers(1, 14, count)
        states.time_UH[u, :count] = states.last_s_U[u] - back_s
        states.share_UH[u, :count] = draw.integers(0, 256, count)
        coarsen(states.time_UH[u], count, states.last_s_U[u])
    return states


@thorough(50)
@given(st.integers(0, 2**32 - 1))
def test_states_come_back_bit_for_bit(seed: int) -> None:
    states = some_states(seed)
    again, *_ = StateCodec(8).decode(StateCodec(8).encode(states, np.zeros((20, 8), np.float32), 0))
    for name, was, now in zip(states._fields, states, again, strict=True):
        assert was.dtype == now.dtype, name
        np.testing.assert_array_equal(was, now, err_msg=name)


def test_decoded_columns_are_what_compiled_loops_expect() -> None:
    states, tastes, *_ = StateCodec(8).decode([None, None])
    assert all(column.flags.c_contiguous and column.flags.writeable for column in (*states, *tastes))


def test_at_width_64_a_value_lies_in_an_allocation_of_640_with_its_string_header() -> None:
    assert state_dtype(64).itemsize == 556


def test_a_user_nobody_has_seen_is_an_empty_state() -> None:
    states, tastes, *_ = StateCodec(8).decode([None])
    assert all(np.array_equal(was, now) for was, now in zip(no_states(1), states, strict=True))
    assert (tastes.version_U[0], tastes.vectors().any()) == (0, False)


def test_no_users_are_no_values() -> None:
    codec = StateCodec(8)
    states, tastes, *_ = codec.decode([])
    assert codec.encode(states, tastes.vectors(), 1) == []


def test_taste_vectors_come_back_within_half_a_step() -> None:
    taste_UD = np.random.default_rng(7).normal(size=(5, 64)).astype(np.float32)
    codec = StateCodec(64)
    _, tastes, *_ = codec.decode(codec.encode(no_states(5), taste_UD, 9))
    assert (np.abs(tastes.vectors() - taste_UD) <= tastes.scale_U[:, None] * 0.5001).all()
    assert tastes.version_U.tolist() == [9] * 5


def test_a_taste_of_nothing_stays_nothing() -> None:
    codec = StateCodec(4)
    _, tastes, *_ = codec.decode(codec.encode(no_states(1), np.zeros((1, 4), np.float32), 3))
    assert tastes.vectors().tolist() == [[0, 0, 0, 0]]


def test_a_vector_of_another_width_is_left_behind_and_the_history_kept() -> None:
    states = some_states(1, users=2)
    narrow = StateCodec(4).encode(states, np.ones((2, 4), np.float32), 5)
    again, tastes, *_ = StateCodec(64).decode([*narrow, None])
    np.testing.assert_array_equal(again.item_UH[:2], states.item_UH)
    assert (tastes.version_U.tolist(), tastes.code_UD.shape) == ([0, 0, 0], (3, 64))


def test_a_state_of_a_later_version_is_refused() -> None:
    (value,) = StateCodec(4).encode(no_states(1), np.zeros((1, 4), np.float32), 0)
    with pytest.raises(UnreadableState, match=f"version {VERSION + 1}"):
        StateCodec(4).decode([bytes([VERSION + 1]) + value[1:]])


def test_a_torn_state_is_refused() -> None:
    (value,) = StateCodec(4).encode(no_states(1), np.zeros((1, 4), np.float32), 0)
    with pytest.raises(UnreadableState, match="100 bytes"):
        StateCodec(4).decode([value[:100]])


def test_version_one_bytes_are_read_for_ever() -> None:
    golden = bytes.fromhex("01020f40420f00030000000010ffff070000000000000001000000aa000000") + bytes(28)
    items = np.zeros(50, "<u4")
    items[:2] = [0x11223344, 5]
    high, actions, times = bytes([0x55]) + bytes(49), bytes([0x52]) + bytes(24), np.zeros(50, "<u2")
    times[:2] = [0, 0x1002]
    value = (
        golden + items.tobytes() + high + actions + times.tobytes() + bytes.fromhex("090000000000003f") + b"\x02\xfe"
    )
    states, tastes, *_ = StateCodec(2).decode([value])
    assert states.item_UH[0, :3].tolist() == [0x5511223344, 5, 0]
    assert states.action_UH[0, :3].tolist() == [2, 5, 0]
    assert states.time_UH[0, :2].tolist() == [1_000_000, 1_000_000 - 4]
    assert (states.mark_source_U2.tolist(), states.mark_offset_U2.tolist()) == ([[0x1000, -1]], [[2**32 + 7, -1]])
    assert (states.ring_UR[0, 0], states.consent_U[0], states.events_U[0]) == (0xAA, 15, 3)
    assert (tastes.vectors().tolist(), tastes.version_U[0]) == ([[1.0, -1.0]], 9)
    assert not states.share_UH.any()
    (rewritten,) = StateCodec(2).encode(states, tastes.vectors(), 9)
    assert (rewritten[0], len(rewritten)) == (2, len(value) + HISTORY)
    again, *_ = StateCodec(2).decode([rewritten])
    assert all(np.array_equal(one, other) for one, other in zip(again, states, strict=True))


def test_old_states_new_ones_and_those_of_another_width_are_read_together() -> None:
    states = some_states(3, users=3)
    now = StateCodec(4).encode(states, np.ones((3, 4), np.float32), 5)
    at = len(now[0]) - 12 - HISTORY
    old = [b"\x01" + value[1:at] + value[at + HISTORY :] for value in now]
    (wider,) = StateCodec(6).encode(states.take(np.array([2])), np.ones((1, 6), np.float32), 5)
    again, tastes, *_ = StateCodec(4).decode([now[0], old[1], wider, old[0][:-4] + bytes(6), None])
    np.testing.assert_array_equal(again.item_UH[:4], states.item_UH[[0, 1, 2, 0]])
    np.testing.assert_array_equal(again.share_UH[[0, 2]], states.share_UH[[0, 2]])
    assert not again.share_UH[[1, 3, 4]].any()
    assert tastes.version_U.tolist() == [5, 5, 0, 0, 0]
    with pytest.raises(UnreadableState, match="100 bytes"):
        StateCodec(4).decode([old[0][:100]])


def test_what_was_shown_comes_back_bit_for_bit_beside_those_who_were_shown_nothing() -> None:
    codec, states, shown = StateCodec(8), some_states(4, users=4), some_shown(0, MOST, 1, 7)
    values = codec.encode(states, np.ones((4, 8), np.float32), 5, shown)
    again, tastes, tables, _ = codec.decode([*values, None])
    assert [value[0] for value in values] == [2, 3, 3, 3]
    assert values[0] == codec.encode(states, np.ones((4, 8), np.float32), 5)[0]
    np.testing.assert_array_equal(again.item_UH[:4], states.item_UH)
    assert tastes.version_U.tolist() == [5, 5, 5, 5, 0]
    assert all(np.array_equal(was, now[:4]) for was, now in zip(shown, tables, strict=True))
    assert [was.dtype for was in shown] == [now.dtype for now in tables]
    assert tables.held_U.tolist() == [0, MOST, 1, 7, 0]


def test_what_was_shown_is_kept_beside_a_vector_of_another_width() -> None:
    shown = some_shown(3, 0)
    narrow = StateCodec(4).encode(some_states(5, users=2), np.ones((2, 4), np.float32), 5, shown)
    _, tastes, tables, _ = StateCodec(64).decode(narrow)
    assert tastes.version_U.tolist() == [0, 0]
    assert all(np.array_equal(was, now) for was, now in zip(shown, tables, strict=True))


@pytest.mark.parametrize("cut", [1, 9, 28, 200])
def test_a_state_that_was_torn_where_it_says_what_was_shown_is_refused(cut: int) -> None:
    (value,) = StateCodec(4).encode(no_states(1), np.zeros((1, 4), np.float32), 0, some_shown(3))
    with pytest.raises(UnreadableState, match="bytes"):
        StateCodec(64).decode([value[: len(value) - cut - 200]])
    with pytest.raises(UnreadableState, match="200 items shown"):
        StateCodec(4).decode([value[:-1] + bytes([200])])
