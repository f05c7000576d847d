"""Which log a topic is, by what brokers answer; and what is remembered of another one."""

import logging
from types import SimpleNamespace

import pytest
from aiokafka.errors import TopicAuthorizationFailedError
from aiokafka.protocol.metadata import MetadataRequest_v5

from embeddings.events import Source
from streams.transport.logs import Expired, ForeignLog, Log, Stretch, TopicsRequest, read_logs, refuse_foreign

HERE = Source("events", 3)
OLD, NEW = "cluster/01", "cluster/02"


def an_answer(version: int, *topics: tuple[object, ...]) -> SimpleNamespace:
    return SimpleNamespace(API_VERSION=version, cluster_id="cluster", topics=topics)


def test_a_topic_is_known_by_its_id_and_without_one_by_its_cluster() -> None:
    named = (0, "events", 1, -1, False, [object()] * 4, 0, {})
    nameless = (5, "requests", 0, 0, False, [object()], 0, {})
    missing = (3, "slates", 0, 0, False, [], 0, {})
    assert read_logs(an_answer(12, named, nameless, missing)) == {
        "events": Log("cluster/0000000000000001ffffffffffffffff", 4),
        "requests": Log("cluster", 1),
    }
    assert read_logs(an_answer(5, (0, "events", False, [object()] * 2))) == {"events": Log("cluster", 2)}


def test_a_topic_that_may_not_be_looked_at_is_no_missing_one() -> None:
    with pytest.raises(TopicAuthorizationFailedError):
        read_logs(an_answer(12, (29, "events", 0, 0, False, [], 0, {})))


@pytest.mark.parametrize("version", [5, 12])
def test_no_question_creates_a_topic(version: int) -> None:
    asked = TopicsRequest(["b", "a"]).prepare({3: (0, version)})
    assert version == asked.API_VERSION
    assert asked.allow_auto_topic_creation is False
    assert isinstance(asked, MetadataRequest_v5) == (version == 5)
    assert asked.encode()


@pytest.mark.parametrize(
    ("after", "log", "stretch"),
    [
        (0, OLD, Stretch(log=NEW, end=0)),
        (60, OLD, Stretch(log=OLD, end=60)),
        (60, "", Stretch(log=NEW, end=60)),
        (60, OLD, Stretch(log="", end=60)),
        (60, "cluster", Stretch(log=NEW, end=60)),
        (60, OLD, Stretch(log="cluster", first=70, end=99)),
    ],
)
def test_what_may_be_of_this_log_is_let_be(after: int, log: str, stretch: Stretch) -> None:
    refuse_foreign(HERE, stretch, after=after, log=log, where="Redis")


@pytest.mark.parametrize(
    ("after", "log", "stretch", "says"),
    [
        (60, OLD, Stretch(log=NEW, end=99), "is another log"),
        (60, "other/01", Stretch(log=OLD, end=99), "is another log"),
        (60, "other", Stretch(log="cluster", end=99), "is another log"),
        (60, "", Stretch(end=59), "ends at 59 in partition 3, but Redis remembers 60 records"),
    ],
)
def test_what_cannot_be_of_this_log_is_refused_with_the_command(
    after: int, log: str, stretch: Stretch, says: str
) -> None:
    with pytest.raises(ForeignLog, match=f"^events {says}.*`marquee state reset-marks --topic events`"):
        refuse_foreign(HERE, stretch, after=after, log=log, where="Redis")


def test_what_expired_unread_is_counted_once(caplog: pytest.LogCaptureFixture) -> None:
    counted: list[tuple[str, int]] = []
    expired = Expired(lambda topic, records: counted.append((topic, records)))
    with caplog.at_level(logging.WARNING):
        expired.note(HERE, 0, Stretch(first=50, end=90))
        expired.note(HERE, 50, Stretch(first=50, end=90))
        assert not counted
        for first in (60, 60, 75):
            expired.note(HERE, 50, Stretch(first=first, end=90))
    assert counted == [("events", 10), ("events", 15)]
    assert "events/3: 15 records were removed before they were read (offsets 60 to 74)" in caplog.text
