"""What goes to topics on behalf of who waits at the other end of an HTTP request, and what nobody waits for."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from streams.contract.messages import Outgoing
from streams.process.gathering import Together
from streams.transport.failures import Failed, Guard
from streams.transport.publishing import Publisher, PublishFailed

log = logging.getLogger(__name__)
_ACKNOWLEDGED_WITHIN_S = 5.0
_MOST, _MOST_UNTOLD = 512, 4_096


class BrokersAway(Exception):
    """The brokers do not acknowledge. What was sent last may get there later; nothing else was sent."""


@dataclass(slots=True, kw_only=True)
class Outbox:
    """Publishes for many who wait, in one go; of one event loop, in which `publisher` is.

    While brokers are away one batch waits for them, of at most so many records as were asked for at a time; whoever
    comes then is told so at once.
    """

    publisher: Publisher
    within_s: float = _ACKNOWLEDGED_WITHIN_S
    _together: Together[Sequence[Outgoing], PublishFailed | None] = field(init=False)
    _sending: "asyncio.Task[None] | None" = field(init=False, default=None)
    _untold: deque[Outgoing] = field(init=False, default_factory=lambda: deque(maxlen=_MOST_UNTOLD))
    _telling: "asyncio.Task[None] | None" = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._together = Together(answer=self._publish, most=_MOST, passes=(BrokersAway,))

    async def send(self, records: Sequence[Outgoing]) -> None:
        """Return when all in-sync replicas have every record.

        Raises:
            BrokersAway: it is not known whether they have.
            PublishFailed: they never will: too large for its topic, or forbidden.
            Crowded: too many wait.
        """
        if records and (failed := await self._together.ask(records)):
            raise failed

    def tell(self, records: Sequence[Outgoing]) -> None:
        """Publish when the brokers take it. While they are away the latest few thousand records are kept."""
        self._untold.extend(records)
        if self._untold and self._telling is None:
            self._telling = asyncio.create_task(self._tell())

    async def stop(self) -> None:
        """Disconnect."""
        if (telling := self._telling) is not None:
            await asyncio.wait({telling}, timeout=1.0)
            telling.cancel()
        await self.publisher.stop()

    async def _publish(self, some: Sequence[Sequence[Outgoing]]) -> Sequence[PublishFailed | None]:
        """Why the records of each will never be there, if so; those that are there are not published again."""
        failed = await self._sent(list(chain.from_iterable(some)))
        if failed is None or len(some) == 1:
            return [failed] * len(some)
        lost = set(map(id, failed.records or chain.from_iterable(some)))
        return [await self._sent([record for record in records if id(record) in lost]) for records in some]

    async def _sent(self, records: Sequence[Outgoing]) -> PublishFailed | None:
        if self._sending is not None and not self._sending.done():
            raise BrokersAway
        self._sending = asyncio.create_task(self.publisher.send_all(records))
        self._sending.add_done_callback(lambda task: task.cancelled() or task.exception())  # maybe nobody waits by then
        done, _ = await asyncio.wait({self._sending}, timeout=self.within_s)
        if not done:
            raise BrokersAway
        try:
            self._sending.result()
        except PublishFailed as error:
            if error.permanent:
                return error
            raise BrokersAway from error
        return None

    async def _tell(self) -> None:
        try:
            while records := list(self._untold):
                self._untold.clear()
                done = await Guard().run(lambda records=records: self.publisher.send_all(records))  # type: ignore[misc]
                if isinstance(done, Failed):
                    log.error("%d observations are lost: the brokers never take them", len(records))
        finally:
            self._telling = None
