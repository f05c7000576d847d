from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from embeddings.errors import Fenced, StoreUnavailable, UnreadableState
from embeddings.events import Fate, Source
from embeddings.store import PartitionMark, StoreRewound
from streams.contract.deadletters import Reason
from streams.contract.messages import Part
from streams.process.member import Rewind
from streams.transport.ledger import Unit
from streams.transport.logs import Stretch
from streams.transport.publishing import PublishFailed
from tests.streams.builders import Raw, an_event, committed
from tests.streams.lanes import AWAY, LOG, TOO_LARGE, Worker, a_worker, shaky_store


@pytest.fixture
def worker() -> Worker:
    return a_worker()


async def test_what_a_batch_leads_to_is_published_then_stored(worker: Worker) -> None:
    store = shaky_store(worker)
    await worker.take(LOG)
    assert worker.topics.count() == {"slates.v1": 30, "observations.v1": 1}
    assert store.calls == ["load", "keep", "flush"]
    assert worker.mark.totals[Fate.applied] == 30
    assert worker.metric("events_total", fate="applied") == 30
    assert worker.metric("slates_total", trigger="event") == 30
    assert worker.metric("records_consumed_total", topic="events") == 30
    assert worker.waited == []


async def test_a_slate_goes_to_its_user_and_says_where_it_came_from(worker: Worker) -> None:
    traced = an_event(0)._replace(headers=[("traceparent", b"00-1-2-3")])
    await worker.take([traced])
    (record,) = worker.topics.of("marquee.slates.v1")
    headers = dict(record.headers)
    assert (record.key, record.partition) == (b"ann", None)
    assert headers["marquee-input"] == b"events/0/0"
    assert headers["traceparent"] == b"00-1-2-3"
    assert headers["ce_id"] in (record.value or b"")


async def test_observations_stay_in_the_partition_they_speak_of(worker: Worker) -> None:
    third = Source("events", 3)
    worker.service.users.claim([third])
    await worker.events(Unit([Part(third, LOG, LOG[-1].offset, -1)], len(LOG), "events"))
    (record,) = worker.topics.of("marquee.observations.v1")
    assert (record.key, record.partition) == (b"3", 3)


async def test_while_the_broker_is_away_nothing_is_stored(worker: Worker) -> None:
    store = shaky_store(worker)
    worker.topics.errors = [AWAY] * 2
    await worker.take(LOG)
    assert store.calls == ["load", "load", "load", "keep", "flush"]
    assert worker.waited == ["PublishFailed"] * 2
    assert worker.mark.totals[Fate.applied] == 30


async def test_what_can_never_be_published_ends_the_worker_with_nothing_stored(worker: Worker) -> None:
    worker.topics.errors = [TOO_LARGE]
    with pytest.raises(PublishFailed, match="MessageSizeTooLarge"):
        await worker.take(LOG)
    assert worker.mark == PartitionMark()


@pytest.mark.parametrize("call", ["load", "keep", "flush"])
async def test_while_the_store_is_away_the_batch_is_tried_again(worker: Worker, call: str) -> None:
    shaky_store(worker, **{call: [StoreUnavailable("timeout")] * 2})
    await worker.take(LOG)
    assert worker.mark.totals == (30, *[0] * 9)
    assert worker.waited == ["StoreUnavailable"] * 2
    slates = worker.topics.of("marquee.slates.v1")
    assert len({dict(slate.headers)["ce_id"] for slate in slates}) == 30


async def test_a_store_that_answered_too_late_leaves_one_effect(worker: Worker) -> None:
    """The flush went through and its answer was lost: it is flushed again, and nothing is published again."""
    users = worker.service.users
    store = shaky_store(worker)

    def flush(number: int) -> None:
        users.flush(number)
        store.flush = users.flush
        raise StoreUnavailable("timeout")

    store.flush = flush
    await worker.take(LOG)
    assert worker.mark.totals == (30, *[0] * 9)
    assert worker.topics.count() == {"slates.v1": 30, "observations.v1": 1}


@pytest.mark.parametrize("call", ["load", "flush"])
@pytest.mark.parametrize("error", [Fenced("claimed"), StoreRewound("gone")])
async def test_a_lost_partition_sends_the_lane_back(worker: Worker, call: str, error: Exception) -> None:
    shaky_store(worker, **{call: [error]})
    with pytest.raises(Rewind, match=str(error)):
        await worker.take(LOG)
    assert worker.mark == PartitionMark()


async def test_a_state_of_a_later_release_ends_the_worker(worker: Worker) -> None:
    shaky_store(worker, load=[UnreadableState("version 9")])
    with pytest.raises(UnreadableState):
        await worker.take(LOG)


async def test_an_unknown_error_that_goes_away_costs_nothing(worker: Worker) -> None:
    shaky_store(worker, keep=[ZeroDivisionError(), ZeroDivisionError()])
    await worker.take(LOG)
    assert worker.mark.totals == (30, *[0] * 9)
    assert "events.v1.dlq" not in worker.topics.count()


async def test_a_batch_that_keeps_failing_is_taken_apart_and_its_bad_record_put_aside(worker: Worker) -> None:
    respond = worker.service.recommender.respond
    poison = LOG[11]

    class Brittle:
        users = worker.service.users
        tell = staticmethod(worker.service.recommender.tell)
        keep = staticmethod(worker.service.recommender.keep)
        store = staticmethod(worker.service.recommender.store)
        now_ms = staticmethod(worker.service.recommender.now_ms)

        @staticmethod
        def respond(parts: Sequence[Part], aside: Sequence[Any] = ()) -> Any:
            if any(record is poison for part in parts for record in part.records):
                raise KeyError("user-canary")
            return respond(parts, aside)

    worker.events.recommender = Brittle()  # type: ignore[assignment]
    await worker.take(LOG)
    (letter,) = worker.topics.of("marquee.events.v1.dlq")
    headers = dict(letter.headers)
    assert (letter.key, letter.value) == (poison.key, poison.value)
    assert headers["marquee.code"] == b"handler_error"
    assert headers["__connect.errors.offset"] == b"11"
    assert headers["__connect.errors.exception.message"] == b"KeyError"
    assert worker.mark == PartitionMark(29, (29, *[0] * 8, 1))
    assert worker.metric("dead_letters_total", topic="events", code="handler_error") == 1
    assert worker.metric("events_total", fate="dead_lettered") == 1


async def test_a_broker_that_goes_away_while_a_batch_is_taken_apart_is_waited_for(worker: Worker) -> None:
    shaky_store(worker, keep=[ZeroDivisionError()] * 6)
    worker.topics.errors = [AWAY] * 2
    await worker.take(LOG[:2])
    assert sum(worker.mark.totals) == 2
    assert worker.mark.totals[Fate.dead_lettered] == 1


async def test_garbage_is_published_before_its_offset_may_move(worker: Worker) -> None:
    store = shaky_store(worker)
    worker.topics.errors = [AWAY]
    await worker.take([Raw(0, b"{", b"k"), an_event(1), Raw(2, None, b"k")])
    assert store.calls == ["load", "load", "keep", "flush"]
    letters = worker.topics.of("marquee.events.v1.dlq")
    assert [(letter.key, letter.value) for letter in letters] == [(b"k", b"{"), (b"k", None)]
    assert worker.mark.totals[Fate.dead_lettered] == 2
    assert worker.metric("dead_letters_total", topic="events", code="malformed") == 1


async def test_a_misrouted_record_is_sent_to_its_partition(worker: Worker) -> None:
    worker.service.recommender.rules.partitions["events"] = 8
    from embeddings.ids import murmur2

    users = [f"u{n}" for n in range(40)]
    home_U = murmur2([user.encode() for user in users]) % 8
    here, elsewhere = users[int(np.flatnonzero(home_U == 0)[0])], users[int(np.flatnonzero(home_U == 5)[0])]
    await worker.take([an_event(0, here), an_event(1, elsewhere)])
    (record,) = worker.topics.of("events")
    assert (record.key, record.partition) == (elsewhere.encode(), 5)
    assert [slate.key for slate in worker.topics.of("marquee.slates.v1")] == [here.encode()]
    assert worker.mark.totals[Fate.misrouted] == 1


async def test_a_misrouted_record_that_its_topic_does_not_take_uncompressed_is_put_aside(worker: Worker) -> None:
    worker.service.recommender.rules.partitions["events"] = 8
    raw = an_event(0, "nobody", kind="x" * 10)
    large = raw._replace(value=(raw.value or b"")[:-1] + b',"more":"' + b"x" * 70_000 + b'"}')
    await worker.take([an_event(0, "nobody"), large._replace(offset=1)])
    first, second = worker.topics.of("events")
    assert first.smaller is None
    assert second.smaller is not None
    letter = Reason.of(cast(Any, second.smaller))
    assert (second.smaller.topic, letter.source, letter.offset) == ("marquee.events.v1.dlq", Source("events", 0), 1)
    assert (letter.code, second.smaller.value) == ("misrouted", large.value)


async def test_an_assigned_partition_starts_where_the_store_is_behind(worker: Worker) -> None:
    lane, (known, new) = worker.events, (Source("marquee.events.v1", n) for n in range(2))
    users = worker.service.users
    users.claim([known])
    await lane(Unit([Part(known, LOG, LOG[-1].offset, -1)], len(LOG), known.topic))
    requests = Source("marquee.requests.v1", 0)
    assert await lane.positions(committed({known: 30, new: -1, requests: 7})) == {}
    assert await lane.positions(committed({known: 41, new: 5})) == {known: 30, new: 0}


async def test_what_the_store_lost_and_the_log_has_no_longer_is_said(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    lost, whole = (Source("marquee.events.v1", n) for n in range(2))
    stretches = {lost: Stretch(committed=30, first=12, end=40), whole: Stretch(committed=7, end=9)}
    assert await worker.events.positions(stretches) == {lost: 0, whole: 0}
    assert "2 partitions; they are folded again, but for 12 records that expired meanwhile" in caplog.text


async def test_partitions_are_claimed_as_soon_as_the_store_is_back(worker: Worker) -> None:
    store = shaky_store(worker, claim=[StoreUnavailable("timeout")])
    here = Source("marquee.events.v1", 0)
    assert await worker.events.positions(committed({here: 3})) == {here: 0}
    assert store.calls == ["discard", "marks", "claim", "marks", "claim"]
