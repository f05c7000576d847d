"""What a worker tells of the slates it publishes and of what people take of them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from streams.contract.records import decode_slate
from streams.worker.takes import NOT_SHOWN, UNKNOWN, LatestSlates
from tests.streams.builders import EVENTS, REQUESTS, a_request, an_event, shown
from tests.streams.lanes import Worker, a_worker

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def worker() -> Worker:
    worker = a_worker()
    worker.service.users.claim([EVENTS])
    return worker


def slates_items(value: bytes | None) -> list[str]:
    return shown(decode_slate(value or b""))


def ids(*items: int) -> NDArray[np.uint64]:
    return np.array(items, np.uint64)


def test_a_place_is_that_in_the_latest_slate_of_the_person() -> None:
    latest = LatestSlates()
    assert latest.places(["ann"], np.zeros(1, np.int32), ids(8)).tolist() == [UNKNOWN]
    latest.show(["ann", "bob"], [ids(7, 8), ids(9)])
    latest.show(["ann"], [ids(8)])
    assert latest.places(["ann", "bob", "eve"], np.array([0, 0, 1, 2]), ids(8, 7, 9, 9)).tolist() == [
        0,
        NOT_SHOWN,
        0,
        UNKNOWN,
    ]


async def test_what_is_taken_is_judged_by_the_slate_published_before(worker: Worker) -> None:
    await worker.take([an_event(0, "ann", "i000")])
    assert worker.metric("takes_total", place="unknown") == 1
    slate = worker.topics.of("marquee.slates.v1")[-1]
    (first, *_) = slates_items(slate.value)
    await worker.take([an_event(1, "ann", first), an_event(2, "ann", "i000", "progress")])
    assert worker.metric("takes_total", place="first_3") == 1
    await worker.take([an_event(3, "ann", "nowhere")])
    assert worker.metric("takes_total", place="not_shown") == 1
    assert sum(worker.metric("takes_total", place=place) or 0 for place in ("unknown", "first_10", "later")) == 1


async def test_slates_of_both_lanes_are_told_with_what_they_lack_and_hold(worker: Worker) -> None:
    await worker.take([a_request(0, "bob")], REQUESTS)
    assert worker.metric("slates_total", trigger="request") == 1
    assert worker.metric("slates_cold_total") == 1, "nothing is known of bob"
    assert worker.metric("slates_untaught_total") == 1, "there is no snapshot"
    places = worker.metric("slate_items_total")
    assert places == len(slates_items(worker.topics.of("marquee.slates.v1")[-1].value))
    sources = ("vector", "neighbours", "trending", "fresh", "popular", "begun")
    assert sum(worker.metric("slate_items_by_source_total", source=source) or 0 for source in sources) >= places > 0
    assert worker.metric("items_shown") == places
    await worker.take([an_event(0, "ann", "i000")])
    assert worker.metric("slates_cold_total") == 1, "ann has a history"
    assert worker.metric("stage_seconds_count", lane="requests", stage="publish") == 1


async def test_the_trace_of_an_event_is_the_exemplar_of_its_slate(worker: Worker) -> None:
    header = ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01".encode())
    await worker.take([an_event(0, "ann", "i000")._replace(headers=[header])])
    (sample,) = [
        sample
        for family in worker.metrics.registry.collect()
        for sample in family.samples
        if sample.exemplar is not None
    ]
    assert sample.name == "marquee_event_to_slate_seconds_bucket"
    assert sample.exemplar is not None
    assert sample.exemplar.labels == {"trace_id": TRACE}


async def test_a_trace_that_is_none_is_no_exemplar(worker: Worker) -> None:
    unsampled = f"00-{TRACE}-00f067aa0ba902b7-00".encode()
    said = b"nonsense", b"00-\xff-x-y", unsampled, b"00-" + b"a user's name".ljust(32) + b"-00f067aa0ba902b7-01"
    odd = [*([("traceparent", each)] for each in said), []]
    await worker.take([an_event(n, "ann", f"i{n:03d}")._replace(headers=headers) for n, headers in enumerate(odd)])
    assert not [s for f in worker.metrics.registry.collect() for s in f.samples if s.exemplar is not None]
