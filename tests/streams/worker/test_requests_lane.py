from collections.abc import Sequence
from typing import Any

import pytest

from streams.contract.messages import Part
from streams.contract.observations import decode
from streams.contract.records import decode_slate
from streams.serving.observation_writer import slate_hash
from streams.transport.publishing import PublishFailed
from tests.streams.builders import NOW_MS, REQUESTS, Raw, a_request, small
from tests.streams.lanes import AWAY, TOO_LARGE, Worker, a_worker


@pytest.fixture
def worker() -> Worker:
    """One that tells nobody what it answered."""
    worker = a_worker()
    worker.requests.settings = small(observe={"enabled": False})
    return worker


async def test_requests_are_answered_where_they_ask_for_it(worker: Worker) -> None:
    worker.service.answerer.settings = small(slates={"reply_topics": ("mine",)})
    elsewhere = a_request(1)._replace(headers=[("reply_to", b"mine")])
    await worker.take([a_request(0), elsewhere, Raw(2, b"{")], REQUESTS)
    assert worker.topics.count() == {"slates.v1": 1, "mine": 1, "requests.v1.dlq": 1}
    assert worker.metric("slates_total", trigger="request") == 2
    assert worker.metric("dead_letters_total", topic="requests", code="malformed") == 1


async def test_a_request_whose_answers_have_no_topic_is_put_aside_and_the_others_are_answered(worker: Worker) -> None:
    worker.service.answerer.settings = small(slates={"reply_topics": ("mine", "gone")})
    worker.requests.settings = small(slates={"reply_topics": ("mine", "gone")}, observe={"enabled": False})
    worker.topics.lacks = {"gone"}
    wanted = [a_request(n)._replace(headers=[("reply_to", topic)]) for n, topic in enumerate([b"gone", b"mine"])]
    await worker.take([*wanted, a_request(2)], REQUESTS)
    assert worker.topics.count() == {"slates.v1": 1, "mine": 1, "requests.v1.dlq": 1}
    assert worker.metric("dead_letters_total", topic="requests", code="unknown_topic") == 1


async def test_an_answer_its_topic_never_takes_is_no_reason_to_end(worker: Worker) -> None:
    worker.service.answerer.settings = small(slates={"reply_topics": ("mine",)})
    worker.topics.errors = [TOO_LARGE] * 6  # the batch three times, then the request alone
    await worker.take([a_request(0)._replace(headers=[("reply_to", b"mine")]), a_request(1)], REQUESTS)
    assert worker.topics.count() == {"slates.v1": 1, "requests.v1.dlq": 1}
    assert worker.metric("dead_letters_total", topic="requests", code="handler_error") == 1


async def test_degraded_answers_are_counted(worker: Worker) -> None:
    await worker.take([a_request(0), a_request(1, personalised=False)], REQUESTS)
    assert worker.metric("slates_degraded_total", mode="contextual") == 1
    assert worker.metric("slates_degraded_total", mode="popular") == 1, "there is no snapshot yet"


async def test_requests_wait_for_the_broker(worker: Worker) -> None:
    worker.topics.errors = [AWAY]
    await worker.take([a_request(0)], REQUESTS)
    assert worker.topics.count() == {"slates.v1": 1}
    assert worker.waited == ["PublishFailed"]
    worker.topics.errors = [TOO_LARGE]
    with pytest.raises(PublishFailed):
        await worker.take([a_request(0)], REQUESTS)


async def test_a_request_nobody_can_answer_is_put_aside(worker: Worker) -> None:
    respond = worker.service.answerer.respond

    class Brittle:
        now_ms, ads = staticmethod(lambda: NOW_MS), None

        @staticmethod
        def respond(parts: Sequence[Part]) -> Any:
            if any(record.offset == 1 for part in parts for record in part.records):
                raise IndexError
            return respond(parts)

    worker.requests.answerer = Brittle()  # type: ignore[assignment]
    await worker.take([a_request(0), a_request(1), a_request(2)], REQUESTS)
    assert worker.topics.count() == {"slates.v1": 2, "requests.v1.dlq": 1}
    assert worker.metric("dead_letters_total", topic="requests", code="handler_error") == 1


async def test_a_request_that_comes_again_leaves_no_second_letter(worker: Worker) -> None:
    log = [a_request(0), Raw(1, b"{")]
    await worker.take(log, REQUESTS)
    again = Worker(worker.service, worker.topics)
    again.requests.settings = worker.requests.settings
    await again.take(log, REQUESTS)
    assert worker.topics.count() == {"slates.v1": 2, "requests.v1.dlq": 1}


async def test_a_flood_of_bad_requests_is_told_and_the_good_ones_are_answered(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    await worker.take([Raw(n, b"{") for n in range(60)], REQUESTS)
    assert "became dead letters" not in caplog.text
    for start in (60, 360):
        await worker.take([Raw(start + n, b"{") for n in range(300)], REQUESTS)
    await worker.take([a_request(660)], REQUESTS)
    assert worker.topics.count() == {"slates.v1": 1, "requests.v1.dlq": 660}
    (said,) = [line for line in caplog.messages if "became dead letters" in line]
    assert said.startswith("requests/0: 360 of the last 360 records (100%)")
    assert "malformed" in said


async def test_what_was_answered_is_told_where_the_events_of_the_same_people_are(worker: Worker) -> None:
    worker.service.answerer.settings = worker.requests.settings = small(observe={"shown": 0.5})
    await worker.take([a_request(n) for n in range(40)], there := REQUESTS._replace(partition=3))
    names = [record.topic for record in worker.topics.published]
    assert names == ["marquee.slates.v1"] * 40 + ["marquee.observations.v1"], "the answers come first"
    told = worker.topics.published[-1]
    observation = decode(told.value or b"")
    assert (told.partition, told.key, observation.source) == (3, b"3", there)
    sampled = [slate_hash(decode_slate(record.value or b"").slate_id) for record in worker.topics.published[:-1]]
    assert set(observation.shown_L.tolist()) < set(sampled)
    assert 8 < len(observation.shown_L) < 32


async def test_answers_are_not_given_twice_because_telling_has_to_wait(worker: Worker) -> None:
    worker.requests.settings = small()
    worker.topics.errors_of["observations"] = [AWAY]
    await worker.take([a_request(0)], REQUESTS)
    assert worker.topics.count() == {"slates.v1": 1, "observations.v1": 1}
    assert worker.waited == ["PublishFailed"]
