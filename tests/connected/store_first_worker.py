"""The negative control of `test_exactly_once`: a worker that stores before it publishes, and takes its time between."""

import asyncio
from collections.abc import Sequence

from streams.agents import EventsLane
from streams.cli import main
from streams.deadletters import DeadLetter
from streams.ledger import Part, Unit
from streams.pipeline import Answer


async def store_first(self: EventsLane, unit: Unit, parts: Sequence[Part], aside: Sequence[DeadLetter]) -> Answer:
    answer = self.recommender.respond(parts, aside)
    self.recommender.store(answer)
    await asyncio.sleep(5)
    self.recommender.tell(answer)
    await self.publisher.send_all([*self._outgoing(answer, parts), *self._observations(answer)])
    return answer


if __name__ == "__main__":
    EventsLane._apply = store_first  # type: ignore[method-assign]
    main()
