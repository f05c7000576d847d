"""What was promised, counted again from decisions and events alone, in plain Python: caps, money, nothing twice.

It shares no code with the ledger, the states or pacing.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from streams.contract.ad_records import AdDecision
from streams.lab.ad_audience import Happening
from streams.lab.ad_bookings import Booked, Cap
from streams.lab.ad_world import AdWorld


@dataclass(slots=True)
class Shown:
    """A decision that was published for who asked then, and when its first events arrived; 0 where none did."""

    decision: AdDecision
    number: int
    asked_ms: int
    seen_ms: int = 0
    arrived_ms: int = 0
    billed_ms: int = 0

    @property
    def late(self) -> bool:
        """Nobody waited for its impression any more."""
        return self.arrived_ms > self.decision.expires_ms

    @property
    def paid_late(self) -> bool:
        """Nobody held money for it any more."""
        return self.billed_ms > self.decision.expires_ms


@dataclass(slots=True)
class Audit:
    """Told of everything that is published, once."""

    world: AdWorld
    shown: dict[str, Shown] = field(default_factory=dict)
    by_line: dict[str, list[Shown]] = field(default_factory=lambda: defaultdict(list))
    changed: int = 0
    """Decisions that were told otherwise when their request came again."""

    def decided(self, decision: AdDecision) -> None:
        """A filled slot was published; it may be published again, and must be the same."""
        before = self.shown.get(decision.decision_id)
        if before is not None:
            self.changed += before.decision != decision
            return
        asked_ms = int(self.world.time_ms_R[int((decision.request_id or "r0")[1:])])
        one = Shown(decision, len(self.shown), asked_ms)
        self.shown[decision.decision_id] = one
        self.by_line[f"{decision.campaign_id}/{decision.line_item_id}"].append(one)

    def happened(self, event: Happening, arrived_ms: int) -> None:
        """An event was read."""
        one, kind = self.shown[event.record["decision_id"]], event.record["type"]
        if kind == "impression" and not one.arrived_ms:
            one.seen_ms, one.arrived_ms = event.record["event_time"], arrived_ms
        if kind == (one.decision.billed_by or "impression") and not one.billed_ms:
            one.billed_ms = arrived_ms

    def impressions(self, key: str) -> int:
        """Those of a line item, each decision once."""
        return sum(bool(one.arrived_ms) for one in self.by_line[key])

    def late_impressions(self, key: str) -> int:
        """Of these, those that nobody waited for any more."""
        return sum(bool(one.arrived_ms) and one.late for one in self.by_line[key])

    def owed(self, key: str) -> int:
        """What a line item has to pay, in micros of its currency: each decision once, in its billing window."""
        return sum(spends_of(one.decision) for one in self._billed(key))

    def earned(self, key: str) -> int:
        """The same in the auction's currency."""
        return sum(
            one.decision.event_micros if one.decision.billed_by == "click" else one.decision.price_micros
            for one in self._billed(key)
        )

    def billed_late(self, key: str) -> int:
        """Of what it owes, that for which nobody held money any more."""
        return sum(spends_of(one.decision) for one in self._billed(key) if one.paid_late)

    def surplus(self, key: str) -> int:
        """The most, over time, by which ads that were out could cost more than was held for them."""
        return self._most_out(key, lambda one: max(spends_of(one) - reserved_of(one), 0))

    def held(self, key: str) -> int:
        """The most, over time, that was reserved and not billed."""
        return self._most_out(key, reserved_of)

    def _most_out(self, key: str, of: Callable[[AdDecision], int]) -> int:
        moments = Counter[int]()
        for one in self.by_line[key]:
            until_ms = min(one.billed_ms or one.decision.expires_ms, one.decision.expires_ms)
            moments[one.decision.decided_ms] += of(one.decision)
            moments[until_ms + 1] -= of(one.decision)
        return max(accumulate(moments[moment] for moment in sorted(moments)), default=0)

    def _billed(self, key: str) -> Iterator[Shown]:
        return (one for one in self.by_line[key] if 0 < one.billed_ms <= one.decision.billed_until_ms)

    def caps_exceeded(self) -> int:
        """Ads that were shown to somebody whose caps were full when they were decided, by what had happened by then.

        Before it counts what was decided earlier and shown within the window, or shown later. An impression that is
        told of when nobody waits for it any more was not known, and does not count.
        """
        return sum(self._exceeded(line.cap, people) for line, people in self._capped())

    def _capped(self) -> Iterator[tuple[Booked, Mapping[int, Sequence[tuple[Shown, bool]]]]]:
        """Line items with a cap; by person what counts under it, in order, and whether it is the line item's own."""
        sharing = defaultdict(list)
        for line in self.world.lines:
            sharing[line.advertiser].append(line.key)
        for line in self.world.lines:
            if line.cap:
                keys = sharing[line.advertiser] if line.cap.level == "advertiser" else [line.key]
                people = defaultdict(list)
                for key in keys:
                    for one in self.by_line[key]:
                        if one.arrived_ms:
                            people[self.world.who(one.decision.request_id)].append((one, key == line.key))
                yield line, {user: sorted(ads, key=lambda each: each[0].number) for user, ads in people.items()}

    def _exceeded(self, cap: Cap | None, people: Mapping[int, Sequence[tuple[Shown, bool]]]) -> int:
        assert cap is not None
        exceeded = 0
        for ads in people.values():
            for n, (one, own) in enumerate(ads):
                since_s = one.asked_ms // 1000 - cap.window_s
                before = sum(not other.late and other.seen_ms // 1000 >= since_s for other, _ in ads[:n])
                exceeded += own and before >= cap.count
        return exceeded


def reserved_of(decision: AdDecision) -> int:
    """What is held for a decision, in the campaign's currency."""
    return decision.price_micros if decision.reserved_micros is None else decision.reserved_micros


def spends_of(decision: AdDecision) -> int:
    """What it costs once it is billed, in the campaign's currency."""
    return decision.price_micros if decision.spends_micros is None else decision.spends_micros
