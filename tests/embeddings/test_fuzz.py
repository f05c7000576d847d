"""Whatever stands in Redis is read, or refused by name: a stored value may be cut, foreign, or of another release."""

from contextlib import suppress

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embeddings.codec import StateCodec, state_dtype
from embeddings.errors import UnreadableState
from embeddings.fatigue import Unanswered
from embeddings.seen import SeenSets
from embeddings.state_columns import no_states
from tests.embeddings.test_tails import some_seen
from tests.fuzzing import damaged, fuzz

WIDTH = 8
CODEC = StateCodec(WIDTH)
EMPTY = CODEC.encode(no_states(1), np.zeros((1, WIDTH), np.float32), 0)
SHOWN = Unanswered(np.array([[7, 9]], np.uint64), np.array([[1_000, 900]]))
EMPTY += CODEC.encode(no_states(1), np.zeros((1, WIDTH), np.float32), 0, SHOWN)
EMPTY += CODEC.encode(no_states(1), np.zeros((1, WIDTH), np.float32), 0, SHOWN, some_seen((3, 2)))
NOISE = st.binary(min_size=state_dtype(WIDTH).itemsize, max_size=state_dtype(WIDTH).itemsize)
STORED = st.none() | damaged(st.sampled_from(EMPTY)) | NOISE.map(b"\1".__add__) | NOISE.map(lambda b: b"\1" + b[1:])
STORED |= NOISE.map(lambda b: b"\3" + b[1:]) | NOISE.map(lambda b: b"\4" + b[1:])


@given(st.lists(STORED, min_size=1, max_size=4))
@fuzz
def test_fuzz_a_stored_state_is_read_or_refused(values: list[bytes | None]) -> None:
    with suppress(UnreadableState):
        states, tastes, unanswered, exposures = CODEC.decode(values)
        assert states.item_UH.shape[0] == len(values)
        CODEC.encode(states, tastes.vectors(), 1, unanswered, exposures)


@given(st.lists(st.none() | st.binary(max_size=40), min_size=1, max_size=4))
@fuzz
def test_fuzz_a_stored_seen_set_is_read_or_refused(values: list[bytes | None]) -> None:
    with suppress(UnreadableState):
        seen = SeenSets.decode(values)
        users = np.arange(len(values), dtype=np.int32)
        assert len(seen.sizes(users)) == len(values)
