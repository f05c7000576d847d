"""How budgets stood, and what a day came to: beside what was booked, and beside what may happen at worst."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from embeddings.spend import Spent, Totals, Window
from ranking.ads.pacing import overspend_bound
from streams.lab.ad_audit import Audit
from streams.lab.ad_bookings import START_MS, Booked
from streams.lab.ad_world import AdWorld

_NOTHING = Spent(0, 0, 0, 0, 0)
_LEAST_UNITS = 50
"""Of fewer impressions there is no saying whether they follow a curve."""


@dataclass(slots=True)
class Standing:
    """How budgets stand at every look: who is used up before the end, and how far from plan."""

    world: AdWorld
    starved_ms: Counter[str] = field(default_factory=Counter)
    off_plan: dict[str, list[float]] = field(default_factory=dict)
    leased: Counter[str] = field(default_factory=Counter)
    """The most that workers held of each."""
    _before_ms: int = START_MS

    def look(self, totals: Totals, now_ms: int) -> None:
        """Look at the ledger's totals as of now."""
        for line in self.world.lines:
            if line.unit not in ("micros", "impressions") or not line.begin_ms < now_ms <= line.end_ms:
                continue
            done, due = _done(line, totals), self.world.share_by(line, now_ms)
            if done >= 0.995 * line.amount and due < 0.98:
                self.starved_ms[line.key] += now_ms - self._before_ms
            if line.even:
                self.off_plan.setdefault(line.key, []).append(abs(done / line.amount - due))
            leased = totals.windows.get(Window(line.key), _NOTHING).leased
            self.leased[line.key] = max(self.leased[line.key], leased)
        self._before_ms = now_ms


def _done(line: Booked, totals: Totals) -> int:
    """What counts against what was booked, with what is out."""
    if line.unit == "micros":
        window = totals.windows.get(Window(line.key), _NOTHING)
        return window.spent + window.reserved
    counts = totals.counts.get(line.key, {})
    return counts.get("reserved", 0) - counts.get("released", 0) + counts.get("billed_late", 0)


class Line(NamedTuple):
    """What became of one budget, in the unit of what was booked."""

    line: Booked
    deliverable: bool
    delivered: int
    bound: int
    twice: bool
    """Is more spent than its decisions owe?"""

    @property
    def error(self) -> float:
        """Of what was booked."""
        return abs(self.delivered - self.line.amount) / self.line.amount

    @property
    def over(self) -> int:
        """What was delivered beyond."""
        return max(self.delivered - self.line.amount, 0)


class Day(Protocol):
    """A day that has been sold."""

    system: str
    workers: int
    world: AdWorld
    audit: Audit
    standing: Standing
    rebuilt: int
    filled: int
    losses: Counter[str]
    killed: Counter[str]
    seconds: float

    @property
    def slots(self) -> int:
        """How many were asked for."""

    @property
    def totals(self) -> Totals:
        """Of the ledger."""


def lines_of(day: Day, deliverable: Mapping[str, bool]) -> list[Line]:
    """What became of everything that was booked."""
    found = []
    for line in day.world.lines:
        spent = day.totals.windows.get(Window(line.key), _NOTHING).spent
        twice = spent > day.audit.owed(line.key)
        if line.unit == "micros":
            lost = day.standing.leased[line.key] if day.rebuilt else 0
            out = day.audit.billed_late(line.key) + day.audit.surplus(line.key)
            out += day.audit.held(line.key) if day.rebuilt else 0
            bound = overspend_bound(workers=day.workers if lost else 0, chunk=lost, outstanding=out)
            found.append(Line(line, deliverable[line.key], spent, bound, twice))
        elif line.unit == "impressions":
            bound = (day.workers if day.rebuilt else 0) + day.audit.late_impressions(line.key)
            found.append(Line(line, deliverable[line.key], day.audit.impressions(line.key), bound, twice))
        elif twice:
            found.append(Line(line, False, line.amount, 0, twice))
    return found


def figures_of(day: Day, deliverable: Mapping[str, bool]) -> dict[str, Any]:
    """The figures of a day; money is micros of the auction's currency where nothing else is said.

    The bound is the ledger's formula, worked out for each budget of what really was out, late or lost: the ads that
    were billed after their reservation, the most by which clicks that were out could cost more than was held, and,
    where the ledger was lost, what was leased and out. A booked number can be exceeded by late ones, and, where the
    ledger was lost, by one for each worker.
    """
    lines = lines_of(day, deliverable)
    good, money = [one for one in lines if one.deliverable], [one for one in lines if one.line.unit == "micros"]
    errors = [one.error for one in good]
    off = [np.mean(day.standing.off_plan[one.line.key]) for one in good if _follows(one, day)]
    starved_min = sum(day.standing.starved_ms[one.line.key] for one in good) / 60_000
    lost, judged = day.losses, ("won", "outbid", "below_floor", "lost_to_deal", "separation_block", "below_deal_floor")
    bidding = sum(lost[name] for name in judged)
    return {
        "system": day.system,
        "campaigns": len(day.world.lines),
        "requests": len(day.world.time_ms_R),
        "workers": day.workers,
        "budgets": sum(one.line.amount > 0 for one in lines),
        "deliverable": len(good),
        "spend_error": float(np.mean(errors)) if errors else 0.0,
        "spend_error_worst": max(errors, default=0.0),
        "plan_error": float(np.mean(off)) if off else 0.0,
        "overspend": sum(one.over for one in money),
        "overspend_bound": sum(one.bound for one in money),
        "overspend_worst_share": max((one.over / one.line.amount for one in money), default=0.0),
        "overspent_beyond_bound": sum(one.over > one.bound for one in lines),
        "caps_exceeded": day.audit.caps_exceeded(),
        "double_spend": sum(one.twice for one in lines) + day.audit.changed,
        "underpaid": sum(_owes_more(day, one) for one in lines),
        "starvation_minutes": round(starved_min / max(len(good), 1), 1),
        "throttle_rate": lost["paced"] / max(lost["paced"] + bidding, 1),
        "fill": day.filled / max(day.slots, 1),
        "revenue_micros": sum(day.audit.earned(line.key) for line in day.world.lines),
        "kills": sum(day.killed.values()),
        "killed_after": dict(day.killed),
        "rebuilt": day.rebuilt,
        "requests_per_s": round(len(day.world.time_ms_R) / max(day.seconds, 1e-9)),
        "seconds": round(day.seconds, 1),
    }


def _follows(one: Line, day: Day) -> bool:
    """Is there so much of it that it could follow a curve?"""
    return one.line.key in day.standing.off_plan and len(day.audit.by_line[one.line.key]) >= _LEAST_UNITS


def _owes_more(day: Day, one: Line) -> bool:
    """Are there events that were not paid for?"""
    return day.totals.windows.get(Window(one.line.key), _NOTHING).spent < day.audit.owed(one.line.key)
