import logging

import pytest

from streams.process.metrics import WorkerMetrics
from streams.worker.unread_sample import UnreadSample
from tests.streams.builders import REQUESTS, Raw, a_request, an_event
from tests.streams.controlled import a_controlled_worker, catalogue
from tests.streams.lanes import a_worker


@pytest.fixture(autouse=True)
def every_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def look(sample: UnreadSample, record: Raw) -> None:
    """As at one of a batch of many."""
    sample.look([record] * 64)


def test_names_are_said_at_first_and_once_an_hour_and_those_since_then(caplog: pytest.LogCaptureFixture) -> None:
    metrics, now_s = WorkerMetrics(process=False), 0.0
    sample = UnreadSample("events", "clicks", metrics.unread, clock=lambda: now_s)

    def lines(*records: Raw) -> list[str]:
        caplog.clear()
        for record in records:
            look(sample, record)
        return caplog.messages

    assert lines(an_event(0)) == []
    (line,) = lines(an_event(1, valeu=3), an_event(2, valeu=3), an_event(3, context={"devise": "tv"}))
    assert line.startswith("records of clicks have members that nobody reads (valeu): ")
    now_s = 3_601.0
    (line,) = lines(an_event(4, valeu=3))
    assert "(valeu, context.devise)" in line
    value = metrics.registry.get_sample_value
    assert value("marquee_records_sampled_total", {"topic": "events"}) == 5
    assert value("marquee_records_sampled_unread_total", {"topic": "events"}) == 4


def test_what_is_said_stays_short_whatever_comes(caplog: pytest.LogCaptureFixture) -> None:
    sample, now_s = UnreadSample("events", "e", WorkerMetrics(process=False).unread, clock=lambda: now_s), 0.0
    for n in range(300):
        look(sample, an_event(n, **{f"{n}\n\x1b[31m{'x' * 9_000}": 1, f"{n}b": 1}))
    now_s = 4_000.0
    look(sample, an_event(1, z=1))
    assert len(sample._names) <= 66
    assert len(caplog.messages) == 2
    assert all(len(line) < 1_000 and line.isprintable() for line in caplog.messages)


def test_what_cannot_be_read_or_is_none_is_not_looked_at() -> None:
    metrics = WorkerMetrics(process=False)
    sample = UnreadSample("requests", "r", metrics.unread)
    for value in (None, b"{", b"[" * 100_000, b"\xff", b"", b'{"context":{"surface":}}'):
        look(sample, Raw(0, value))
    sample.look([])
    assert metrics.registry.get_sample_value("marquee_records_sampled_total", {"topic": "requests"}) == 0


def test_small_batches_share_a_look_and_a_large_one_has_one() -> None:
    metrics = WorkerMetrics(process=False)
    sample, value = UnreadSample("events", "e", metrics.unread), metrics.registry.get_sample_value
    for batches, size, looks in ((1, 1, 1), (63, 1, 1), (1, 1, 2), (63, 1, 2), (1, 500, 3), (1, 500, 4)):
        for _ in range(batches):
            sample.look([an_event(n) for n in range(size)])
        assert value("marquee_records_sampled_total", {"topic": "events"}) == looks


async def test_each_lane_looks_at_one_record_of_a_batch(caplog: pytest.LogCaptureFixture) -> None:
    worker = a_worker()
    await worker.take([an_event(n, valeu=n) for n in range(20)])
    await worker.take([a_request(0, surfase="home"), a_request(1, surfase="home")], REQUESTS)
    for topic in ("events", "requests"):
        assert worker.metric("records_sampled_total", topic=topic) == 1
        assert worker.metric("records_sampled_unread_total", topic=topic) == 1
    assert [line.split(":")[0] for line in caplog.messages if "nobody reads" in line] == [
        "records of marquee.events.v1 have members that nobody reads (valeu)",
        "records of marquee.requests.v1 have members that nobody reads (surfase)",
    ]
    assert worker.metric("events_total", fate="applied") == 20


async def test_so_do_readers_of_what_others_write_whole() -> None:
    worker = a_controlled_worker()
    await catalogue(worker, a=b'{"titel":"A"}', b=b'{"title":"B","jahr":1}')
    await catalogue(worker, a=None)
    value = worker.metrics.registry.get_sample_value
    assert value("marquee_records_sampled_total", {"topic": "catalog"}) == 1
    assert value("marquee_records_sampled_unread_total", {"topic": "catalog"}) == 1
    assert value("marquee_records_sampled_total", {"topic": "campaigns"}) == 0
