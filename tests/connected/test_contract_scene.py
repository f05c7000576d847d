"""Something comes by on every topic of a short life, and a foreign validator takes all of it."""

import asyncio

import pytest

from streams.contract.schema_rules import EVENT_TYPES
from streams.lab.contract_scene import OVERRIDES, examples_of, play
from streams.lab.local_stack import Stack
from tests.connected.validation import complaints

pytestmark = [pytest.mark.embedded, pytest.mark.slow]


def test_every_record_of_a_short_life_is_valid_and_every_kind_of_record_comes_by() -> None:
    with Stack(OVERRIDES) as stack:
        stack.wait_until_ready()
        records = asyncio.run(play(stack))
    for topic, kept in records.items():
        count, wrong = complaints(topic, [one.value for one in kept])
        assert wrong == [], topic
        assert count or topic == "privacy", topic
    examples = examples_of(records)
    assert [example.name for example in examples["events"]] == list(EVENT_TYPES)
    assert {example.name for example in examples["ads"]} == {"filled", "unfilled"}
    assert {example.name for example in examples["slates"]} == {"of a request", "of an event"}
    assert {"of a line item", "of a campaign", "the end"} == {example.name for example in examples["ad_stats"]}
