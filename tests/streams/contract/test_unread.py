import json
from pathlib import Path

import pytest

from streams.contract.unread import KINDS, unread_members
from streams.settings import TopicName
from tests.streams.builders import Raw, an_event

STRUCTURED = [("content-type", b"Application/CloudEvents+json; charset=utf-8")]


def test_what_an_event_has_is_read() -> None:
    whole = {"context": {"surface": "home"}, "consent": {"gdpr": 0, "tcf": None}, "value": 3}
    assert unread_members(an_event(1, **whole)) == set()
    assert unread_members(Raw(1, b'{"type":"add","event_time":1,"context":null}')) == set()


def test_what_is_passed_over_may_be_any_number() -> None:
    record = Raw(1, b'{"type":"add","event_time":1,"x":1e999,"context":{"y":1e999}}')
    assert unread_members(record) == {"x", "context.y"}


@pytest.mark.parametrize("structured", [False, True])
def test_what_it_has_not_is_named_with_where_it_stands(structured: bool) -> None:
    record = an_event(1, **{"val": 3, "context": {"devise": "tv"}, "consent": {"store": True}})
    if structured:
        envelope = {"specversion": "1.0", "id": "1", "source": "/a", "type": "play", "data": json.loads(record.value)}
        record = Raw(1, json.dumps(envelope).encode(), b"ann", headers=STRUCTURED)
    assert unread_members(record) == {"val", "context.devise", "consent.store"}


def test_lists_of_records_are_looked_into_and_what_is_openrtbs_is_not() -> None:
    creative = {"crid": "c", "clicks": 1}
    flight = {"from": 0, "till": 1}
    campaign = {"budget": 1, "line_items": [{"id": "l"}, {"id": "m", "flights": [flight], "creatives": [creative]}]}
    record = Raw(1, json.dumps(campaign).encode())
    expected = {"budget", "line_items.flights.till", "line_items.creatives.clicks"}
    assert unread_members(record, KINDS["campaigns"]) == expected
    request = {"request_id": "r", "imp": [{"id": "1", "secure": 1}], "device": {"ua": "x"}, "context": {"devise": "tv"}}
    assert unread_members(Raw(1, json.dumps(request).encode()), KINDS["requests"]) == {"context.devise"}


@pytest.mark.parametrize("topic", KINDS)
def test_no_record_that_is_kept_for_ever_has_a_member_that_nobody_reads(topic: TopicName) -> None:
    golden = sorted((Path(__file__).parent / "golden").glob(f"{topic}.*.json"))
    assert golden
    for path in golden:
        assert unread_members(Raw(1, path.read_bytes()), KINDS[topic]) == set(), path.name
