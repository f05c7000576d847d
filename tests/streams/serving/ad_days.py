"""A house that sells ads hour after hour: who asks, what was shown and clicked, and what became of each line item."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ranking.ads.pacing import PacingSettings
from streams.contract.ad_records import AdDecision
from streams.lab.ad_house import AdHouse
from tests.streams.builders import NOW_MS, small

SECOND_MS, MINUTE_MS, HOUR_MS = 1_000, 60_000, 3_600_000


def an_hour(hours: float = 1) -> list[dict[str, int]]:
    """A flight that has just begun."""
    return [{"from": NOW_MS, "until": NOW_MS + int(hours * HOUR_MS)}]


def booked(quantity: int, kind: str = "impressions", hours: float = 1, **line: Any) -> dict[str, Any]:
    """A line item of which a number is booked."""
    goal = {"kind": kind, "quantity": quantity}
    return {"type": "standard", "goal": goal, "flights": an_hour(hours), "delivery": "even"} | line


@dataclass
class Days:
    """Workers that are asked every few seconds; what is filled is seen, with `clicks` it is clicked too.

    Attributes:
        campaigns: that are there from the beginning.
        shown: how many impressions each campaign had, `of_minute` those of one minute.
    """

    campaigns: Sequence[Any]
    workers: int = 1
    step_ms: int = 30 * SECOND_MS
    clicks: bool = False
    start_ms: int = NOW_MS
    settings: dict[str, Any] = field(default_factory=dict)
    imp: dict[str, Any] = field(default_factory=dict)
    shown: Counter[str] = field(default_factory=Counter)
    decided: list[AdDecision] = field(default_factory=list)

    def __post_init__(self) -> None:
        ads = {"lease_s": 600, "chunk_s": 60} | self.settings
        self.house = AdHouse(
            settings=small(ads=ads),
            now_ms=self.start_ms,
            count=self.workers,
            pacing=PacingSettings(dead_man_ms=10 * self.step_ms),
        )
        assert not self.house.publish(*self.campaigns)
        self.people = 0

    def run(self, hours: float, per_step: int = 4, edit: Callable[[int], object] = lambda now_ms: None) -> "Days":
        """So many strangers ask every step; `edit` may change what is sold."""
        house, until_ms = self.house, self.house.now_ms + int(hours * HOUR_MS)
        while house.now_ms < until_ms:
            edit(house.now_ms)
            house.tick()
            for worker in range(self.workers):
                self._ask(worker, per_step * (worker + 1) // self.workers - per_step * worker // self.workers)
            house.now_ms += self.step_ms
        return self

    def spent(self, key: str, day: str = "") -> int:
        """Micros that a line item or a campaign has spent, in the campaign's currency."""
        windows = self.house.workers[0].server.ledger.totals().windows
        found = [held.spent for window, held in windows.items() if (window.key, window.day) == (key, day)]
        return found[0] if found else 0

    def count(self, key: str, name: str) -> int:
        """What the ledger counts of a line item."""
        return self.house.workers[0].server.ledger.totals().counts.get(key, {}).get(name, 0)

    def _ask(self, worker: int, many: int) -> None:
        now_ms = self.house.now_ms
        names = [f"u{n}" for n in range(self.people, self.people + many)]
        self.people += many
        imps = [{"id": "1", "banner": {}} | self.imp]
        asked = [{"request_id": name, "user_id": name, "n": 0, "imp": imps, "event_time": now_ms} for name in names]
        decided = [one for (one,) in self.house.decisions(*asked, worker=worker)] if asked else []
        self.decided += decided
        kinds = ("impression", "click") if self.clicks else ("impression",)
        filled = [one for one in decided if one.filled]
        self.shown.update(str(one.campaign_id) for one in filled)
        told = [
            {"user_id": one.user_id, "type": kind, "decision_id": one.decision_id, "event_time": now_ms}
            for one in filled
            for kind in kinds
        ]
        if told:
            self.house.tell(*told, worker=worker)
