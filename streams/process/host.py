"""One event loop for apps and what is beside them, that ends cleanly on SIGTERM."""

import asyncio
import gc
import logging
import signal
from collections.abc import Callable, Coroutine, Sequence
from threading import Timer
from typing import Any

from mode import Service, Worker

from streams.transport.batching import BatchApp
from streams.transport.failures import is_known
from streams.transport.watchdog import deadline

STOP_S = 20.0
"""How long a process may take to end after a signal; whoever runs it must not be less patient."""

log = logging.getLogger(__name__)


class _Beside(Service):
    """Coroutines that run as long as the apps do; one that raises ends the process. It has started when `ready` has."""

    def __init__(
        self,
        mains: Sequence[Callable[[], Coroutine[Any, Any, None]]],
        ready: Callable[[], Coroutine[Any, Any, None]] | None,
    ) -> None:
        super().__init__()
        self._mains, self._ready = mains, ready

    async def on_start(self) -> None:
        for main in self._mains:
            self.add_future(main())
        if self._ready is not None:
            await self.wait(self._ready())
        spare_what_stays()


class _Host(Worker):
    """Starts what is beside the apps, then the apps one by one; ends the apps together, then what is beside them."""

    def __init__(self, beside: Service, apps: Sequence[Any], stop_s: float, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(beside, *apps, override_logging=False, redirect_stdouts=False, loop=loop)
        self._beside, self._apps, self._stop_s = beside, apps, stop_s
        self._deadline: Timer | None = None
        self.known_end: BaseException | None = None
        """What ended it, where its message says all there is to say."""

    async def start(self) -> None:
        """Start everything and run until the end."""
        try:
            await super().start()
        except Exception as error:
            self.known_end = error if is_known(error) else None
            raise

    def _shutdown_loop(self) -> None:
        if self.crash_reason is not None and is_known(self.crash_reason):
            self.known_end, self.crash_reason = self.crash_reason, None
        super()._shutdown_loop()

    def _schedule_shutdown(self, number: signal.Signals) -> None:
        self._expect_end(number.name)
        super()._schedule_shutdown(number)

    async def stop(self) -> None:
        """Stop everything: after a signal, a crash, or a start that failed."""
        self._expect_end(repr(self.crash_reason or "the end began"))
        await super().stop()

    def _expect_end(self, why: str) -> None:
        """End the process where it does not end by itself; the first reason counts."""
        if self._deadline is None:
            self._deadline = deadline(self._stop_s, f"not stopped {self._stop_s:g} s after {why}")

    async def _stop_children(self) -> None:
        for outcome in await asyncio.gather(*(app.stop() for app in self._apps), return_exceptions=True):
            if isinstance(outcome, BaseException):
                log.error("an app did not stop cleanly: %r", outcome)
        await self._beside.stop()


class _SaidAtTheEnd(logging.Filter):
    """Drops what Mode says of an error whose message says all: each of its services tells it, with the traceback.

    And what its services then stumble over, because the others have ended.
    """

    over = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        error = record.exc_info[1] if record.exc_info and str(record.msg).startswith("[^") else None
        self.over = self.over or (error is not None and is_known(error))
        return error is None or not self.over


def spare_what_stays() -> None:
    """Keep the garbage collector off what was built to stay; batches are freed by their reference counts.

    Records come and go by the thousand, and each thousand made it look for cycles among all objects of the process: a
    fifth of the time of a worker that only folds, and pauses of 200 ms where a catalogue is in memory.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def run_apps(
    apps: Sequence[BatchApp],
    *,
    beside: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
    ready: Callable[[], Coroutine[Any, Any, None]] | None = None,
    stop_s: float = STOP_S,
) -> int:
    """Run until a signal or a crash and return the exit code: 0 after SIGTERM or SIGINT, 1 after a crash.

    On a signal every app stops fetching, lets its agents finish what they began, commits it and leaves its group; the
    coroutines `beside` (health pages, control topics) are cancelled last. Whatever still runs `stop_s` after the
    signal, or after the crash, is ended with its stacks and exit code 77. No app starts, and takes partitions, before
    `ready` returns.

    Raises:
        Exception: what ended it, where its message says all there is to say (`failures.is_known`).
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    for app in apps:
        app.in_worker = True
    host = _Host(_Beside(beside, ready), apps, stop_s, loop)
    once = _SaidAtTheEnd()
    for handler in logging.getLogger().handlers:
        handler.addFilter(once)
    try:
        host.execute_from_commandline()
    except SystemExit as end:
        if host.known_end is not None:
            raise host.known_end from None
        return end.code if isinstance(end.code, int) else 1
    finally:
        for handler in logging.getLogger().handlers:
            handler.removeFilter(once)
