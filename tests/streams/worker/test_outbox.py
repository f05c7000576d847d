import asyncio

import pytest

from streams.contract.messages import Outgoing
from streams.worker.outbox import BrokersAway, Outbox
from tests.streams.lanes import AWAY, TOO_LARGE, Topics


def records(*names: str) -> list[Outgoing]:
    return [Outgoing(name, b"k", b"v") for name in names]


async def test_what_nobody_waits_for_is_told_when_the_brokers_are_back() -> None:
    topics = Topics(errors=[AWAY, AWAY])
    outbox = Outbox(publisher=topics)  # type: ignore[arg-type]
    outbox.tell(records("a", "b"))
    outbox.tell(records("c"))
    await asyncio.wait_for(topics.sent.wait(), 10)
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


async def test_who_sends_nothing_waits_for_nobody() -> None:
    topics = Topics()
    topics.acknowledges.clear()
    outbox = Outbox(publisher=topics, within_s=0.01)  # type: ignore[arg-type]
    await outbox.send([])
    with pytest.raises(BrokersAway):
        await outbox.send(records("a"))
    await outbox.send([])
