"""Whatever our reading takes, made up at random, a foreign validator takes by our schema."""

import math
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from streams.contract.schemas import document
from streams.settings import TopicName
from tests.fuzzing import fuzz
from tests.streams.builders import NOW_MS
from tests.streams.contract.mutants import accepted
from tests.streams.contract.test_fuzz import AD_REQUEST, EVENT, ITEM, REQUEST

#: Of a record that removes its item nobody looks at the rest.
REMOVES = {"__deleted", "deleted", "__op", "op"}
TAKEN: dict[TopicName, st.SearchStrategy[dict[str, Any]]] = {
    "events": EVENT.map(lambda said: {"type": "play", "item_id": "m1", "event_time": NOW_MS} | said),
    "requests": REQUEST.map(lambda said: {"request_id": "r1"} | said) | AD_REQUEST,
    "catalog": ITEM.map(lambda said: {"title": "Film"} | {k: v for k, v in said.items() if k not in REMOVES}),
}


def finite(value: Any) -> bool:
    """Is there JSON for it, and for its texts in UTF-8?"""
    if isinstance(value, dict):
        return all(finite(name) and finite(member) for name, member in value.items())
    if isinstance(value, list):
        return all(map(finite, value))
    if isinstance(value, str):
        return value.isprintable() or not any("\ud800" <= letter <= "\udfff" for letter in value)
    return not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize("topic", TAKEN)
def test_fuzz_whatever_we_take_is_valid_by_its_schema(topic: TopicName) -> None:
    validator = jsonschema_rs.validator_for(document(topic))
    taken = 0

    @given(TAKEN[topic])
    @fuzz
    def tried(said: dict[str, Any]) -> None:
        nonlocal taken
        assume(finite(said))
        if accepted(topic, said):
            taken += 1
            validator.validate(said)

    tried()
    assert taken > 5
