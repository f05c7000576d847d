"""Worker and floor are asked alike, or what is said of them compares nothing."""

import asyncio
import os
from itertools import groupby
from types import SimpleNamespace
from typing import Any

from streams.lab.bench_http import Client, _steadily

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


async def test_both_are_asked_at_one_rate_in_turns_and_each_is_told_its_own_times() -> None:
    asked, answering = list[str](), list["asyncio.Task[None] | None"]()

    async def listening(name: str, takes_s: float) -> tuple[asyncio.Server, Client]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            answering.append(asyncio.current_task())
            while head := await reader.readline():
                if head == b"\r\n":
                    asked.append(name)
                    await asyncio.sleep(takes_s)
                    writer.write(ANSWER)
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        child: Any = SimpleNamespace(pid=os.getpid())
        return server, Client(child, server.sockets[0].getsockname()[1])

    (slow, worker), (fast, floor) = await listening("worker", 0.05), await listening("floor", 0.0)
    async with slow, fast:
        async with worker, floor:
            load = await _steadily(worker, floor, lambda n: b"GET / HTTP/1.1\r\n\r\n", 200.0, 0.2)
        await asyncio.gather(*filter(None, answering))
    assert load["load_per_s"] == 200
    assert [name for name, _ in groupby(asked)] == ["worker", "floor", "worker", "floor", "worker"], (
        "who goes first changes"
    )
    assert asked.count("worker") == asked.count("floor") == 40
    assert load["p99_ms"] >= load["p50_ms"] >= 50, "it takes so long"
    assert load["floor_p99_ms"] >= load["floor_p50_ms"] > 0
