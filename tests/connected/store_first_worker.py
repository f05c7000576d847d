"""The negative control of `test_exactly_once`: a worker that stores before it publishes, and takes its time between."""

import asyncio
from collections.abc import Sequence

from streams.commands.cli import main
from streams.contract.deadletters import DeadLetter
from streams.contract.messages import Part
from streams.transport.ledger import Unit
from streams.worker.events_lane import EventsLane
from streams.worker.unstored import Answered


async def store_first(
    self: EventsLane, unit: Unit, era: int, parts: Sequence[Part], aside: Sequence[DeadLetter]
) -> Answered:
    answer = self.recommender.respond(parts, aside)
    number = self.recommender.keep(answer)
    self.recommender.store(number)
    await asyncio.sleep(5)
    self.recommender.tell(answer)
    outgoing = self._outgoing(answer, parts)
    await self.publisher.send_all([*outgoing, *self._observations(answer)])
    return Answered(unit, answer, outgoing, asyncio.get_running_loop().create_future(), number=number, stored=True)


if __name__ == "__main__":
    EventsLane._answer = store_first  # type: ignore[method-assign]
    main()
