"""Over real connections: who holds one, who is closed, and who is told to come again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from streams.process.connections import BoundedServer
from streams.process.health import listen

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Served:
    """A server that answers when it may, with what was sent."""

    server: BoundedServer = field(init=False)
    port: int = 0
    may: asyncio.Event = field(default_factory=asyncio.Event)
    turned_away: int = 0
    lines: list[Line] = field(default_factory=list)
    asked: "asyncio.Queue[bytes]" = field(default_factory=asyncio.Queue)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        self.asked.put_nowait(body)
        await self.may.wait()
        return web.Response(body=body)

    def count(self) -> None:
        self.turned_away += 1

    async def line(self, said: bytes = b"") -> Line:
        line = await asyncio.open_connection("127.0.0.1", self.port)
        self.lines.append(line)
        line[1].write(said)
        return line


@asynccontextmanager
async def serving(most: int, begin_s: float = 60.0) -> AsyncIterator[Served]:
    served = Served()
    served.server = BoundedServer(served.answer, most=most, turned_away=served.count, begin_s=begin_s)
    runner = web.ServerRunner(served.server, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    served.port = await listen(runner, "127.0.0.1", 0)
    try:
        yield served
    finally:
        for _, writer in served.lines:
            writer.close()
        await runner.cleanup()


async def status(line: Line) -> int:
    """Of the next answer; 0 where the connection is closed without one."""
    head = await asyncio.wait_for(line[0].readline(), 60)
    return int(head.split()[1]) if head else 0


async def test_who_is_slow_with_a_head_is_closed() -> None:
    async with serving(8, begin_s=0.05) as served:
        for said in (b"", GET[:20]):
            assert await status(await served.line(said)) == 0


async def test_who_has_asked_once_is_not_hurried() -> None:
    async with serving(8) as served:
        served.may.set()
        line = await served.line(GET)
        assert await status(line) == 200
        assert [timer.cancelled() for timer in served.server._held.values()] == [True]


async def test_one_more_takes_the_place_of_who_has_waited_longest() -> None:
    async with serving(3) as served:
        served.may.set()
        kept = await served.line(GET)
        assert await status(kept) == 200
        slow = [await served.line(GET[:20]) for _ in range(2)]
        kept[1].write(GET)
        await served.asked.get()
        await served.asked.get()  # so that it was asked later than the others came
        newcomer = await served.line(GET)
        assert await status(newcomer) == 200
        assert await status(slow[0]) == 0
        slow[1][1].write(GET[20:])
        assert await status(slow[1]) == 200
        assert served.turned_away == 0


async def test_a_body_that_does_not_come_makes_room_and_a_request_that_is_whole_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.process.connections._LINGER_S", 0.1)
    async with serving(2) as served:
        whole, slow = await served.line(POST + b"whole"), await served.line(POST + b"sl")
        assert await served.asked.get() == b"whole"
        newcomer = await served.line(GET)
        assert await served.asked.get() == b""
        assert await status(slow) == 0
        refused = await served.line(GET)
        head = await asyncio.wait_for(refused[0].readuntil(b"\r\n\r\n"), 60)
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1\r\n" in head
        assert b"ask again" in await asyncio.wait_for(refused[0].read(), 10), "and it is closed"
        assert served.turned_away == 1
        served.may.set()
        assert [await status(line) for line in (whole, newcomer)] == [200, 200]


@pytest.mark.parametrize("most", [1, 4])
async def test_connections_that_ended_count_no_more(most: int) -> None:
    async with serving(most) as served:
        served.may.set()
        for _ in range(3 * most):
            line = await served.line(GET)
            assert await status(line) == 200
            line[1].close()
            await line[1].wait_closed()
        assert served.turned_away == 0
