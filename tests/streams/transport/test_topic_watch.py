"""Topics that change while they are read."""

import pytest

from streams.transport.logs import ForeignLog, Log
from streams.transport.topic_watch import TopicGone, TopicWatch

THERE = {"events": Log("c/1", 8), "slates": Log("c/2", 8)}


@pytest.fixture
def watch() -> TopicWatch:
    watch = TopicWatch(read=["events"], counts={"events": 8, "slates": 8})
    watch.look(THERE)
    assert watch.why() is None
    return watch


def test_one_look_without_a_topic_is_none(watch: TopicWatch) -> None:
    for _ in range(3):
        watch.look({"slates": THERE["slates"]})
        assert watch.why() == "events is gone"
        watch.look(THERE)
        assert watch.why() is None


def test_a_topic_that_is_read_and_gone_ends_it(watch: TopicWatch) -> None:
    watch.look({})
    with pytest.raises(TopicGone, match="events is gone: it was deleted while it was read"):
        watch.look({})


def test_a_topic_that_is_only_written_to_is_missed(watch: TopicWatch) -> None:
    for _ in range(3):
        watch.look({"events": THERE["events"]})
    assert watch.why() == "slates is gone"


def test_a_topic_made_anew_ends_it_with_the_command(watch: TopicWatch) -> None:
    anew = {**THERE, "events": Log("c/3", 8), "slates": Log("c/4", 8)}
    watch.look(anew)
    assert watch.why() == "events was made anew"
    with pytest.raises(ForeignLog, match="`marquee state reset-marks --topic events`"):
        watch.look(anew)


def test_topics_of_other_partitions_are_told_as_long_as_they_are(watch: TopicWatch) -> None:
    watch.look({name: log._replace(partitions=16) for name, log in THERE.items()})
    assert watch.why() == (
        "events has 16 partitions, topics.partitions is 8; slates has 16 partitions, topics.partitions is 8"
    )
    watch.look(THERE)
    assert watch.why() is None
