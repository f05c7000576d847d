import asyncio
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
from aiokafka.errors import UnknownMemberIdError
from aiokafka.protocol.group import HeartbeatRequest

from streams.transport.batching import BatchApp
from streams.transport.fetching import Batching, BatchThread

SESSION_S = 0.2


class Broker:
    """Answers heartbeats with each code in turn, so many seconds after they were sent."""

    def __init__(self, *answers: tuple[int, float]) -> None:
        self.answers = list(answers)

    async def send(self, _node: int, _request: HeartbeatRequest) -> Any:
        error_code, after_s = self.answers.pop(0)
        await asyncio.sleep(after_s)
        return SimpleNamespace(error_code=error_code)


@pytest.mark.parametrize(
    ("suspended_s", "displaced"), [(0.0, True), (2 * SESSION_S, False)], ids=["heard all the time", "suspended"]
)
async def test_only_who_was_heard_all_the_time_lost_its_place_to_a_namesake(
    suspended_s: float, displaced: bool
) -> None:
    broker = Broker((0, suspended_s), (UnknownMemberIdError.errno, 0.0))
    conf = SimpleNamespace(broker_session_timeout=SESSION_S, consumer_group_instance_id="one")
    thread = SimpleNamespace(app=SimpleNamespace(conf=conf), heard_s=0.0, displaced=False)
    BatchThread._overhear(cast(Any, thread), broker)
    beat = HeartbeatRequest("group", 1, "member")
    await broker.send(0, beat)
    done, _ = await asyncio.wait([asyncio.ensure_future(broker.send(0, beat))], timeout=SESSION_S / 2)
    assert thread.displaced == displaced
    assert bool(done) != displaced, "who was displaced says nothing to the group any more"


async def test_who_waits_for_the_thread_to_end_is_told_though_its_end_was_cut_off() -> None:
    app = BatchApp("ending", Batching(client_options={}, lanes={}), broker="kafka://localhost")
    thread = cast(Any, app.consumer)._thread
    cut_off = SimpleNamespace(stop=AsyncMock(side_effect=asyncio.CancelledError))  # as aiokafka's where a commit was
    thread._consumer = cut_off
    try:
        with pytest.raises(asyncio.CancelledError):
            await thread._shutdown_thread()
        await asyncio.wait_for(thread._shutdown.wait(), 5)
    finally:
        thread.thread_loop.close()
