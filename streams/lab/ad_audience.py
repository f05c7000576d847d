"""What people do with ads that were decided for them: when they see them, what they click, and what is told of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from streams.contract.ad_records import AdDecision
from streams.lab.ad_bookings import Booked
from streams.lab.ad_world import AdWorld

SHOW_RATE, LATE, TWICE = 0.9, 0.005, 0.02
"""How many ads are shown at all; how many are told of when nobody waits for it any more, or told of twice."""
_SEEN_AFTER_S, _CLICK_AFTER_S = 25.0, 20.0
_LATE_S = 1_200, 5_400


class Happening(NamedTuple):
    """An event that is on its way."""

    arrives_ms: int
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Audience:
    """People of a world. What becomes of a slot depends on its decision id: it is the same in whichever house."""

    world: AdWorld

    def of(self, decision: AdDecision, line: Booked) -> Iterator[Happening]:
        """The events of an ad, those of one kind in the order in which they arrive."""
        draw = Random(f"{self.world.seed} {decision.decision_id}")
        shown, late, twice, answer = draw.random(), draw.random(), draw.random(), draw.random()
        if shown >= SHOW_RATE:
            return
        seen_ms = decision.decided_ms + int(1000 * min(draw.expovariate(1 / _SEEN_AFTER_S), 180))
        delay_ms = 1000 * draw.randint(*_LATE_S) if late < LATE else draw.randint(100, 5_000)
        user = self.world.who(decision.request_id)
        record = {"user_id": f"u{user}", "decision_id": decision.decision_id}
        impression = {**record, "type": "impression", "event_time": seen_ms}
        yield Happening(seen_ms + delay_ms, impression)
        if twice < TWICE:
            yield Happening(seen_ms + delay_ms + 1000 * draw.randint(1, 120), impression)
        if answer < self.world.click_UC[user, line.category]:
            click_ms = seen_ms + int(1000 * min(1 + draw.expovariate(1 / _CLICK_AFTER_S), 300))
            click = {**record, "type": "click", "event_time": click_ms}
            yield Happening(click_ms + delay_ms, click)
            if twice > 1 - TWICE:
                yield Happening(click_ms + delay_ms + 1000 * draw.randint(1, 120), click)
