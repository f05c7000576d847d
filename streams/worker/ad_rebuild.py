"""A spend ledger that lost its data, or its tail, is rebuilt from the topics; until it is, nothing is sold.

    1. `rebuild` with the totals of the last figures that were published whole
    2. `reserve(decided=True)` every decision that could still be billed when these were published
    3. `confirm` the events since the oldest of these decisions, as of when they came: what the totals hold is known,
       what came after spends
    4. `reopen`, and whatever it says is missing: events that came meanwhile, and were refused

Whoever fails on the way, or is not the leader any more, leaves the ledger closed; the next one begins at 1. What can
cost nothing any more is left out, so that selling goes on soon: clicks and conversions of it that come later are
nobody's.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from embeddings.events import Source
from embeddings.spend import MOST_ROWS, Reservation, SpendLedger
from streams.contract.ad_records import AdDecision
from streams.contract.decode import decode
from streams.contract.messages import RawRecord
from streams.contract.parsing import Rules
from streams.serving.ad_events import billables_of, confirm, reservation_of, stretches_of
from streams.worker.ad_figures import Figures
from streams.worker.ad_log import AdLog, Records

log = logging.getLogger(__name__)

CLOCKS_MS = 600_000
"""So far at most producers' clocks are thought to be behind."""
_ROUNDS = 100
_MOST, _MOMENT_MS = 2_000, 60_000


def moments(records: Sequence[RawRecord]) -> Iterator[Sequence[RawRecord]]:
    """Records that were published within a minute of each other, in order, so many at most.

    >>> from types import SimpleNamespace as Raw
    >>> [len(some) for some in moments([Raw(timestamp=t) for t in (0, 59_000, 61_000, 61_000)])]
    [2, 2]
    """
    first = 0
    for at, record in enumerate(records):
        if at - first >= _MOST or record.timestamp - records[first].timestamp > _MOMENT_MS:
            yield records[first:at]
            first = at
    if records:
        yield records[first:]


def _billable_ms(decision: AdDecision) -> int:
    """Until when it can cost something."""
    return decision.billed_until_ms or decision.kept_ms


class Resigned(Exception):
    """Another worker leads now. The ledger stays closed; that one rebuilds it."""


@dataclass(slots=True, kw_only=True)
class Rebuild:
    """One rebuild.

    Attributes:
        ledger: closed.
        log: what is on the topics.
        rules: how events are read; with no partition counts, so that a record is taken wherever it lies.
        leads: whether it is still this worker's to do.
        reach_ms: so long a decision can be billed at most.
        now_ms: wall clock.
    """

    ledger: SpendLedger
    log: AdLog
    rules: Rules
    leads: Callable[[], bool]
    now_ms: Callable[[], int]
    reach_ms: int
    decisions: int = field(init=False, default=0)
    events: int = field(init=False, default=0)
    _done: dict[Source, int] = field(init=False, default_factory=dict)
    _oldest_ms: int | None = field(init=False, default=None)

    async def run(self, figures: Figures) -> None:
        """Rebuild and reopen.

        Raises:
            Resigned: see there.
            KafkaError, StoreUnavailable, LedgerClosed: it stays closed. Begin again.
        """
        self._done = dict(figures.totals.offsets)
        await self._call(lambda: self.ledger.rebuild(figures.totals))
        await self._reserve(figures.time_ms)
        if self._oldest_ms is not None:
            async for part in self.log.events_since(self._oldest_ms - CLOCKS_MS):
                await self._confirm_all(part)
        for _ in range(_ROUNDS):
            missing: dict[Source, int] = await self._call(self.ledger.reopen)  # type: ignore[assignment]
            if not missing:
                log.info("the spend ledger is rebuilt of %d decisions and %d events", self.decisions, self.events)
                return
            await self._catch_up(missing)
        raise TimeoutError("the spend ledger does not catch up with the events")

    async def _reserve(self, published_ms: int) -> None:
        since_ms = max(0, published_ms - self.reach_ms - CLOCKS_MS)
        async for some in self.log.decisions(since_ms):
            alive = [one for one in some if one[0].filled and _billable_ms(one[0]) >= published_ms]
            for first in range(0, len(alive), MOST_ROWS):
                made = [reservation_of(*one) for one in alive[first : first + MOST_ROWS]]
                await self._call(lambda made=made: self._reserved(made))  # type: ignore[misc]
            self.decisions += len(alive)
            times = [decision.decided_ms for decision, _ in alive]
            self._oldest_ms = min([*times, *([] if self._oldest_ms is None else [self._oldest_ms])], default=None)

    def _reserved(self, made: list[Reservation]) -> object:
        return self.ledger.reserve("rebuild", made, now_ms=self.now_ms(), decided=True)

    async def _confirm_all(self, part: Records) -> None:
        source, records = part
        for some in moments(records):
            await self._confirm((source, some))

    async def _confirm(self, part: Records) -> None:
        """Confirm what happened in a stretch of a partition, as of when it came."""
        source, records = part
        decoded = await asyncio.to_thread(decode, [part], self.rules, self.now_ms())
        _, billables = billables_of(decoded)
        (first, last) = stretches_of(decoded)[source]
        above, upto = {source: min(self._done.get(source, first - 1), first - 1)}, {source: last}
        came_ms = int(records[-1].timestamp) or self.now_ms()
        await self._call(lambda: confirm(self.ledger, billables, above, upto, now_ms=min(came_ms, self.now_ms())))
        self.events += len(billables)
        self._done[source] = max(self._done.get(source, -1), last)

    async def _catch_up(self, missing: dict[Source, int]) -> None:
        """Confirm up to there: where no decision is known, none of these events can be of one."""
        if self._oldest_ms is not None:
            async for part in self.log.events_after({source: self._done.get(source, -1) for source in missing}):
                await self._confirm_all(part)
        above = {source: min(self._done.get(source, upto), upto) for source, upto in missing.items()}
        await self._call(lambda: confirm(self.ledger, [], above, missing, now_ms=self.now_ms()))
        self._done |= {source: max(upto, self._done.get(source, -1)) for source, upto in missing.items()}

    async def _call(self, call: Callable[[], object]) -> object:
        if not self.leads():
            raise Resigned("another worker leads")
        return await asyncio.to_thread(call)
