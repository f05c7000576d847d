import json

import pytest

from streams.contract.unread import unread_members
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
