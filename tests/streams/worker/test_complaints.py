import json
import logging

import pytest

from embeddings.events import Source
from embeddings.ids import murmur2
from streams.worker.complaints import MISDATED, MISROUTED, Complaint
from tests.streams.builders import NOW_MS, REQUESTS, Raw, an_event
from tests.streams.lanes import Worker, a_worker


def test_it_is_said_when_it_begins_and_while_it_lasts_and_not_for_every_batch(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    complaint = Complaint(MISROUTED, every_s=60, clock=lambda: now_s)

    def lines(batches: int, wrong: int) -> int:
        caplog.clear()
        for _ in range(batches):
            complaint.count("marquee.events.v1", 100, wrong)
        return len(caplog.messages)

    assert lines(50, 0) == 0
    assert lines(20, 50) == 1
    now_s = 59.0
    assert lines(20, 50) == 0
    now_s = 61.0
    assert lines(20, 50) == 1
    assert lines(200, 0) == 0
    assert lines(20, 50) == 1, "it was well in between"


def test_a_few_are_nothing_to_speak_of(caplog: pytest.LogCaptureFixture) -> None:
    complaint = Complaint(MISDATED)
    for _ in range(100):
        complaint.count("t", 200, 1)
    assert caplog.messages == []


def test_half_of_a_small_backlog_is_enough(caplog: pytest.LogCaptureFixture) -> None:
    Complaint(MISROUTED).count("marquee.events.v1", 40, 20)
    (line,) = caplog.messages
    assert "20 of the last 40 records of marquee.events.v1" in line
    assert "partitioner=murmur2_random" in line


async def test_a_producer_that_hashes_otherwise_is_told_what_to_set(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    worker = a_worker()
    worker.service.recommender.rules.partitions["events"] = 8
    users = [f"u{n}" for n in range(400)]
    away = [user for user in users if int(murmur2([user.encode()])[0]) % 8 != 0]
    await worker.take([an_event(n, user) for n, user in enumerate(away)])
    assert worker.metric("events_total", fate="misrouted") == len(away)
    assert sum("murmur2_random" in message for message in caplog.messages) == 1


async def test_timestamps_in_seconds_are_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    worker = a_worker()
    log = [an_event(n, "ann", event_time=NOW_MS + n, timestamp=NOW_MS // 1000) for n in range(30)]
    await worker.take(log)
    assert worker.metric("events_total", fate="applied") == 30
    assert worker.metric("events_misdated_total") == 30
    assert sum("epoch milliseconds" in message for message in caplog.messages) == 1
    values = [json.loads(record.value or b"") for record in worker.topics.of("marquee.slates.v1")]
    assert len(values) == 30, "they are not too old for a slate"


#: What brokers were seen to hold: no timestamp, before 1970, seconds, microseconds, nanoseconds, far ahead, the limits.
ODD_MS = [-1, -NOW_MS, -(2**63), 0, 1, NOW_MS // 1000, NOW_MS * 1000, NOW_MS * 10**6, 2**63 - 1]
AHEAD_MS = [NOW_MS + 10 * 86_400_000, NOW_MS + 40 * 365 * 86_400_000]


@pytest.mark.parametrize("at_ms", [*ODD_MS, *AHEAD_MS])
async def test_no_timestamp_of_a_record_costs_an_event_or_a_request_its_answer(at_ms: int) -> None:
    right, odd = a_worker(), a_worker()
    for worker, timestamp in ((right, NOW_MS), (odd, at_ms)):
        await worker.take([an_event(n, "ann", event_time=NOW_MS - 9 + n, timestamp=timestamp) for n in range(3)])
        await worker.take([an_event(3, "ann")])
        await worker.take([Raw(0, b'{"request_id":"r","user_id":"ann"}', b"ann", timestamp=timestamp)], REQUESTS)
        assert worker.metric("events_total", fate="applied") == 4
    assert (right.metric("events_misdated_total"), odd.metric("events_misdated_total")) == (0, 3)
    assert answers(odd) == answers(right)
    assert odd.service.users.read(["ann"]).states.last_s_U == right.service.users.read(["ann"]).states.last_s_U


def answers(worker: Worker) -> list[tuple[str, str | None, list[str]]]:
    slates = [json.loads(record.value or b"") for record in worker.topics.of("marquee.slates.v1")]
    return [(s["trigger"], s.get("degraded"), [item["item_id"] for item in s["items"]]) for s in slates]


async def test_what_was_well_dated_is_not_spoken_of(caplog: pytest.LogCaptureFixture) -> None:
    worker = a_worker()
    await worker.take([an_event(n) for n in range(30)], Source("events", 0))
    assert worker.metric("events_misdated_total") == 0
    assert caplog.messages == []
