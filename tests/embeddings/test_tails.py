import numpy as np
import pytest

from embeddings.codec import VERSION, StateCodec
from embeddings.errors import UnreadableState
from embeddings.exposures import KEYS, LOG, Exposures
from embeddings.fatigue import MOST, Unanswered
from embeddings.state_columns import no_states

CODEC = StateCodec(4)
NO_TASTE = np.zeros((1, 4), np.float32)
BODY = CODEC.encode(no_states(1), NO_TASTE, 0)[0][1:]
ITEMS = bytes.fromhex("44332211 55 40420f00 05000000 00 ffffffff")
ADS = bytes.fromhex("0200 0400 0600 ffff 00 01 02 ff 40420f00")
KEY, LOST = bytes.fromhex("0300 01 2c01 3f420f00"), bytes.fromhex("0200 0700 3e420f00")


def some_shown(*held: int) -> Unanswered:
    draw = np.random.default_rng(len(held))
    tables = Unanswered.nothing(len(held), max(held))
    for u, count in enumerate(held):
        tables.item_UW[u, :count] = draw.integers(1, 2**40, count)
        tables.once_s_UW[u, :count] = draw.integers(0, 2**32, count)
    return tables


def some_seen(*held: tuple[int, int]) -> Exposures:
    """Exposures of so many ads and so many keys of older ones each."""
    draw = np.random.default_rng(len(held))
    out = Exposures.nothing(len(held), max(seen for seen, _ in held), max(old for _, old in held))
    for u, (seen, old) in enumerate(held):
        out.key_UX4[u, :seen] = draw.integers(1, 2**24, (seen, 4))
        out.time_s_UX[u, :seen] = draw.integers(0, 2**32, seen)
        out.old_key_UY[u, :old] = draw.integers(1, 2**24, old)
        out.old_count_UY[u, :old] = draw.integers(1, 2**16, old)
        out.old_last_s_UY[u, :old] = draw.integers(0, 2**32, old)
        out.seen_U[u], out.session_s_U[u] = seen, seen and 2**32 - 1
        out.lost_U3[u] = [2**16 - 1, 2**16 - 2, 2**32 - 1] if old else 0
    return out


def same(one: tuple[np.ndarray, ...], two: tuple[np.ndarray, ...]) -> bool:
    return all(np.array_equal(was, now) and was.dtype == now.dtype for was, now in zip(one, two, strict=True))


def test_what_was_seen_and_shown_comes_back_bit_for_bit_beside_those_who_have_neither() -> None:
    shown, seen = some_shown(0, MOST, 1, 0, 5), some_seen((0, 0), (0, 0), (1, 0), (LOG, KEYS), (LOG, 1))
    values = CODEC.encode(no_states(5), np.ones((5, 4), np.float32), 5, shown, seen)
    _, tastes, shown_again, seen_again = CODEC.decode(values)
    assert [value[0] for value in values] == [2, 3, 4, 4, 4]
    assert values[:2] == CODEC.encode(no_states(2), np.ones((2, 4), np.float32), 5, shown.take(np.arange(2)))
    assert tastes.version_U.tolist() == [5] * 5
    assert same(shown, shown_again)
    assert same(seen, seen_again)


def test_it_is_kept_beside_a_vector_of_another_width() -> None:
    shown, seen = some_shown(3, 0), some_seen((2, 0), (LOG, 7))
    values = CODEC.encode(no_states(2), np.ones((2, 4), np.float32), 5, shown, seen)
    _, tastes, *again = StateCodec(64).decode([*values])
    assert tastes.version_U.tolist() == [0, 0]
    assert same(shown, again[0])
    assert same(seen, again[1])


@pytest.mark.parametrize(
    ("seen", "old", "tail"), [(0, 0, 0), (1, 0, 23), (10, 0, 167), (LOG, 0, 2055), (LOG, KEYS, 2639)]
)
def test_so_many_bytes_say_which_ads_somebody_saw(seen: int, old: int, tail: int) -> None:
    (value,) = CODEC.encode(no_states(1), NO_TASTE, 0, some_shown(0), some_seen((seen, old)))
    assert len(value) == 1 + len(BODY) + tail


def test_version_three_is_read_for_ever() -> None:
    states, _, shown, seen = CODEC.decode([b"\x03" + BODY + ITEMS + b"\x02"])
    assert (shown.item_UW.tolist(), shown.once_s_UW.tolist()) == ([[0x5511223344, 5]], [[1_000_000, 2**32 - 1]])
    assert (seen.seen_U.tolist(), seen.key_UX4.size, states.count_U.tolist()) == ([0], 0, [0])
    assert CODEC.encode(states, NO_TASTE, 0, shown, seen) == [b"\x03" + BODY + ITEMS + b"\x02"]


def test_version_four_is_read_for_ever() -> None:
    end = bytes.fromhex("3d420f00")
    alone = b"\x04" + BODY + b"\x00" + ADS + end + bytes([1, 0])
    both = b"\x04" + BODY + ITEMS + b"\x02" + ADS + ADS + KEY + LOST + end + bytes([2, 1])
    states, _, shown, seen = CODEC.decode([alone, both])
    assert shown.item_UW.tolist() == [[0, 0], [0x5511223344, 5]]
    assert seen.key_UX4[0].tolist() == [[2, 0x10004, 0x20006, 0xFFFFFF], [0] * 4]
    assert (seen.time_s_UX.tolist(), seen.seen_U.tolist()) == ([[1_000_000, 0], [1_000_000] * 2], [1, 2])
    assert [column.tolist() for column in seen[3:6]] == [[[0], [0x10003]], [[0], [300]], [[0], [999_999]]]
    assert (seen.lost_U3.tolist(), seen.session_s_U.tolist()) == ([[0, 0, 0], [2, 7, 999_998]], [999_997] * 2)
    assert CODEC.encode(states, np.zeros((2, 4), np.float32), 0, shown, seen) == [alone, both]


@pytest.mark.parametrize("cut", [1, 2, 9, 30, 200])
def test_a_state_that_was_torn_where_it_says_which_ads_were_seen_is_refused(cut: int) -> None:
    (value,) = CODEC.encode(no_states(1), NO_TASTE, 0, some_shown(3), some_seen((5, 2)))
    assert value[0] == VERSION
    with pytest.raises(UnreadableState, match="bytes"):
        StateCodec(64).decode([value[: len(value) - cut - 300]])
    for seen, old in ((0, 0), (LOG + 1, 0), (100, 0), (5, KEYS + 1)):
        with pytest.raises(UnreadableState, match=f"{seen} ads seen, {old} keys"):
            CODEC.decode([value[:-2] + bytes([seen, old])])
