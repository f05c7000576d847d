"""Keeps a worker's budgets: in a thread of its own it asks the spend ledger what was spent, once a second."""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from time import monotonic

from ranking.ads.market import Exchange
from streams.process.threads import Thread
from streams.serving.budgets import Budgets
from streams.serving.stages import epoch_ms

log = logging.getLogger(__name__)
_LOOK_S, _LONG = 0.1, 30
"""How often it looks whether it is time; after so many ticks without a partition it says so."""


@dataclass(slots=True, kw_only=True)
class Spending:
    """Ticks budgets while there are campaigns, and at once where these changed; gives leases back at the end.

    Where a tick takes long, the next one comes later (`pause_s`). Without campaigns nothing is asked, and there is no
    thread.

    Attributes:
        budgets: what is kept.
        exchange: whose market they are of.
        every_s: how often.
        owned: the partitions of requests that are this worker's; asked in the event loop.
    """

    budgets: Budgets
    exchange: Exchange
    every_s: float
    owned: Callable[[], Collection[int] | None] = lambda: None
    _thread: Thread = field(init=False, default_factory=lambda: Thread("spending"))
    _said: str | None = field(init=False, default=None)
    _alone: int = field(init=False, default=0)

    async def run(self) -> None:
        """Tick for as long as the worker lives.

        Raises:
            Exception: a defect: the worker ends. What the ledger refuses or does not answer is logged and asked again.
        """
        seen, due_s = self.exchange.market, 0.0
        try:
            while True:
                await asyncio.sleep(min(_LOOK_S, self.every_s))
                market = self.exchange.market
                if market.sells and (market is not seen or monotonic() >= due_s):
                    due_s = await self._tick()
                    seen = market
        finally:
            if self.exchange.market.sells:
                await self._thread.run(self.budgets.give_back, epoch_ms())

    async def _tick(self) -> float:
        """Tick once; returns when it is time for the next, by `monotonic`."""
        self.budgets.owned = owned = self.owned()
        self._alone = 0 if owned is None or owned else self._alone + 1
        if self._alone == _LONG:
            log.warning("no partition of requests is assigned: no ad that has a budget or a booked number is sold here")
        began_s = monotonic()
        await self._thread.run(self.budgets.tick, epoch_ms())
        if self.budgets.trouble != self._said:
            self._said = self.budgets.trouble
            log.warning("%s", f"no ads are sold: {self._said}" if self._said else "the spend ledger answers again")
        return began_s + pause_s(monotonic() - began_s, self.every_s, self.budgets.bears_s)


def pause_s(took_s: float, every_s: float, bears_s: float) -> float:
    """How long after a tick began the next one begins: it takes a tenth of a core at most, or else what it must.

    The next one, should it take as long, is over before leases are spent: a tick that waits longer stops selling.

    >>> [pause_s(took_s, 1.0, 5.0) for took_s in (0.05, 0.3, 0.75, 2.0, 9.0)]
    [1.0, 3.0, 4.25, 3.0, 1.0]
    """
    return max(every_s, min(10 * took_s, bears_s - took_s))
