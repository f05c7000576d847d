import dataclasses
import json
import time

import numpy as np
import pytest

from streams.contract.records import decode_event, decode_item
from streams.lab.columns import UnreadableLog
from streams.lab.datasets import Log
from streams.lab.replay import catalogue_records, event_records, publish_log, rating_remarks
from streams.settings import Events, Settings
from tests.streams.builders import a_table


def identities(log: Log) -> list[tuple[bytes, bytes]]:
    return [(dict(headers)["ce_source"], dict(headers)["ce_id"]) for _, _, headers in event_records(log, shift_s=9)]


def without(log: Log, rows: list[int], **more: bool | str) -> Log:
    return dataclasses.replace(
        log,
        user_R=np.delete(log.user_R, rows).tolist(),
        item_R=np.delete(log.item_R, rows).tolist(),
        rating_R=np.delete(log.rating_R, rows),
        time_s_R=np.delete(log.time_s_R, rows),
        **more,
    )


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
    assert identities(a_table(20)) == identities(a_table(20))
    assert len(set(identities(a_table(20)))) == 20


def test_an_event_has_one_identity_in_whatever_file_it_stands() -> None:
    whole = a_table(20)
    assert identities(without(whole, [0, 7], name="other")) == [
        identity for r, identity in enumerate(identities(whole)) if r not in (0, 7)
    ]


def test_files_of_one_name_with_other_events_share_no_identity() -> None:
    day1, day2 = a_table(20), dataclasses.replace(a_table(20), time_s_R=a_table(20).time_s_R + 86_400)
    assert not set(identities(day1)) & set(identities(day2))


def test_events_that_say_the_same_are_as_many_as_there_are() -> None:
    log = a_table(1)
    thrice = dataclasses.replace(
        log,
        user_R=log.user_R * 3,
        item_R=log.item_R * 3,
        rating_R=log.rating_R.repeat(3),
        time_s_R=log.time_s_R.repeat(3),
    )
    assert len(set(identities(thrice))) == 3
    assert identities(thrice)[0] == identities(log)[0]


def test_events_without_times_are_known_by_their_log() -> None:
    log = dataclasses.replace(a_table(20), timed=False)
    assert identities(log) == identities(dataclasses.replace(log, name="other"))
    assert not set(identities(log)) & set(identities(without(log, [19])))


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


def test_likes_begin_where_the_settings_say() -> None:
    log = a_table(4)
    log.rating_R[:] = [7, 6.5, 0, -1]
    assert [decode_event(value).type for _, value, _ in event_records(log, liked_from=7)] == ["like", *["play"] * 3]
    assert [decode_event(value).type for _, value, _ in event_records(log, liked_from=-5)][2:] == ["play", "like"]
    (remark,) = rating_remarks(log, Settings())
    assert "ratings go up to 7; from 4 up they are likes: set events.liked_from" in remark
    assert not rating_remarks(log, Settings(events=Events(liked_from=4)))
    log.rating_R[:] = 5
    assert not rating_remarks(log, Settings())


@pytest.mark.parametrize(
    ("times", "shift", "said"),
    [
        ([0, 5], False, "times are from 1970-01-01 to 1970-01-01"),
        ([0, 5_000_000_000], True, "shifted so that the last is now, times are from"),
        ([1_700_000_000, int(time.time()) + 90_000], False, "until now"),
    ],
)
async def test_times_that_a_worker_does_not_take_are_refused_before_anything_is_published(
    times: list[int], shift: bool, said: str
) -> None:
    log = dataclasses.replace(a_table(2), time_s_R=np.array(times))
    with pytest.raises(UnreadableLog, match=said):
        await publish_log(log, Settings.model_validate({"kafka": {"bootstrap": "127.0.0.1:1"}}), shift=shift)
