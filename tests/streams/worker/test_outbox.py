import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from aiokafka.errors import MessageSizeTooLargeError

from streams.contract.messages import Outgoing
from streams.transport.publishing import PublishFailed
from streams.worker.outbox import BrokersAway, Outbox
from tests.streams.lanes import AWAY, TOO_LARGE, Topics


def records(*names: str) -> list[Outgoing]:
    return [Outgoing(name, b"k", b"v") for name in names]


async def test_what_nobody_waits_for_is_told_when_the_brokers_are_back() -> None:
    topics = Topics(errors=[AWAY, AWAY])
    outbox = Outbox(publisher=topics)  # type: ignore[arg-type]
    outbox.tell(records("a", "b"))
    outbox.tell(records("c"))
    await asyncio.wait_for(topics.sent.wait(), 60)
    await outbox.stop()
    assert [record.topic for record in topics.published] == ["a", "b", "c"]


async def test_what_brokers_never_take_is_given_up_and_said(caplog: pytest.LogCaptureFixture) -> None:
    topics = Topics(errors=[TOO_LARGE])
    outbox = Outbox(publisher=topics)  # type: ignore[arg-type]
    outbox.tell(records("a"))
    await outbox.stop()
    assert "1 observations are lost" in caplog.text
    outbox.tell(records("b"))
    await outbox.stop()
    assert [record.topic for record in topics.published] == ["b"]


class Strict(Topics):
    """A broker that refuses the records of one topic, and has the others."""

    async def send_all(self, records: Iterable[Outgoing], **more: Any) -> None:
        records = list(records)
        large = [record for record in records if record.topic == "large"]
        await super().send_all([record for record in records if record not in large], **more)
        if large:
            raise PublishFailed(len(large), len(records), MessageSizeTooLargeError(), large)


async def test_what_is_refused_of_one_has_nothing_of_others_published_twice() -> None:
    outbox = Outbox(publisher=(topics := Strict()))  # type: ignore[arg-type]
    sent = [outbox.send(records(*names)) for names in (["first"], ["a", "b"], ["c", "large"], ["d"])]
    outcomes = await asyncio.gather(*sent, return_exceptions=True)
    assert [isinstance(outcome, PublishFailed) for outcome in outcomes] == [False, False, True, False]
    assert sorted(record.topic for record in topics.published) == ["a", "b", "c", "d", "first"]


async def test_who_sends_nothing_waits_for_nobody() -> None:
    topics = Topics()
    topics.acknowledges.clear()
    outbox = Outbox(publisher=topics, within_s=0.01)  # type: ignore[arg-type]
    await outbox.send([])
    with pytest.raises(BrokersAway):
        await outbox.send(records("a"))
    await outbox.send([])
