"""Threads of a process's own: one that calls, one that runs an event loop."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Thread:
    """One worker thread; `await run(f, *args)` calls in it."""

    name: str
    _pool: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=self.name)

    async def run(self, call: Callable[..., T], *args: Any) -> T:
        """Call in the thread and wait."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *args)


class OwnLoop:
    """A thread with an event loop; `await run(f(...))` runs a coroutine in it. Ends with the process."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name=name, daemon=True).start()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run there and wait; who stops waiting cancels it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))
