import json

from streams.contract.records import decode_event, decode_item
from streams.lab.replay import catalogue_records, event_records
from tests.streams.builders import a_table


def test_a_log_becomes_events_in_its_order() -> None:
    log = a_table(30)
    log.rating_R[:3] = [5, 4, 3.5]
    published = list(event_records(log))
    events = [decode_event(value) for _, value, _ in published]
    assert [(e.user_id, e.item_id, e.event_time) for e in events] == [
        (user, item, 1000 * time_s)
        for user, item, time_s in zip(log.user_R, log.item_R, log.time_s_R.tolist(), strict=True)
    ]
    assert [e.type for e in events[:4]] == ["like", "like", "play", "play"]
    assert events[0].value == 5
    assert [key.decode() for key, _, _ in published] == log.user_R


def test_times_may_be_shifted_and_nothing_else() -> None:
    log = a_table(10)
    plain, shifted = (list(event_records(log, shift_s=shift)) for shift in (0, 3_600))
    for (_, before, _), (_, after, _) in zip(plain, shifted, strict=True):
        one, other = json.loads(before), json.loads(after)
        assert other.pop("event_time") - one.pop("event_time") == 3_600_000
        assert one == other


def test_a_log_published_twice_carries_the_same_identities() -> None:
    def identities() -> list[tuple[bytes, bytes]]:
        return [(dict(h)["ce_source"], dict(h)["ce_id"]) for _, _, h in event_records(a_table(20), shift_s=9)]

    assert identities() == identities()
    assert len(set(identities())) == 20


def test_an_event_without_a_rating_is_a_plain_play() -> None:
    log = a_table(1)
    log.rating_R[:] = 0
    ((_, value, _),) = event_records(log)
    assert (decode_event(value).type, decode_event(value).value) == ("play", None)


def test_the_catalogue_goes_first_with_all_that_is_known() -> None:
    log = a_table(30)
    items = {key.decode(): decode_item(value) for key, value, _ in catalogue_records(log)}
    assert set(items) == set(log.items)
    assert all(item.title == name.upper() and item.categories == ("odd",) for name, item in items.items())
