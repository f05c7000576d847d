"""Campaigns as decisions see them: frozen values, checked where they were read. Money is int micros, times are ms.

advertiser > campaign > line item > creative. A line item is what competes; whatever a campaign says for all of its line
items was written into each of them.

>>> sorted(Type, key=lambda type_: DEFAULT_PRIORITY[type_])[0].name
'sponsorship'
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from ranking.ads.predicates import ALWAYS, Predicate

FOREVER_MS = 1 << 62


class Type(IntEnum):
    """What was sold, in order of service; names as in Google Ad Manager."""

    sponsorship = 0  # a share of all matching impressions
    standard = 1  # a quantity by a date
    network = 2  # a share of what is unsold
    bulk = 3  # a quantity of what is unsold
    price_priority = 4  # whatever pays most
    house = 5  # the house's own, for nothing, last


#: Priorities from 1 (first) to 16 where none is said, those of Google Ad Manager.
DEFAULT_PRIORITY: Mapping[Type, int] = {
    Type.sponsorship: 4,
    Type.standard: 8,
    Type.network: 12,
    Type.bulk: 12,
    Type.price_priority: 12,
    Type.house: 16,
}


class Status(IntEnum):
    """May it serve? `stopped` is for good, `paused` for now."""

    active = 0
    paused = 1
    stopped = 2


class BidType(IntEnum):
    """What a bid is for: a thousand impressions, a click, a conversion, a completed view."""

    cpm = 0
    cpc = 1
    cpa = 2
    cpcv = 3


class GoalKind(IntEnum):
    """What was booked is counted in these; a share is in percent, money in micros."""

    none = 0
    impressions = 1  # billable
    viewable = 2
    completed = 3
    clicks = 4
    conversions = 5
    money = 6
    share = 7


class Delivery(IntEnum):
    """How a goal or budget is spread over a flight."""

    even = 0
    front_loaded = 1
    asap = 2
    custom = 3


class Rotation(IntEnum):
    """Which of a line item's creatives is shown."""

    optimised = 0  # what is expected to be worth most
    even = 1
    weighted = 2
    sequential = 3


class Level(IntEnum):
    """At which level of the hierarchy a cap counts."""

    creative = 0
    line_item = 1
    campaign = 2
    advertiser = 3


class Unit(IntEnum):
    """What a cap counts within. Hours, days and weeks slide; they are no calendar's."""

    hour = 0
    day = 1
    week = 2
    lifetime = 3
    session = 4


UNIT_S: Mapping[Unit, int] = {Unit.hour: 3_600, Unit.day: 86_400, Unit.week: 604_800}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """At most `count` billable impressions per person within `window_s` seconds (0: for good, or of a session)."""

    level: Level
    unit: Unit
    count: int
    window_s: int
    min_gap_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Creative:
    """What an ad shows; see `streams.contract.campaigns.Creative`. `key` is unique among all creatives."""

    key: str
    crid: str
    approved: bool
    item_id: str | None = None
    adomain: tuple[str, ...] = ()
    cat: tuple[str, ...] = ()
    cattax: int = 1
    attr: tuple[int, ...] = ()
    format: str = ""
    size: tuple[int, int] | None = None
    duration_s: int | None = None
    mimes: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    text: str = ""
    language: str = ""
    age: int | None = None
    weight: int = 1
    sequence: int = 0
    bundle: str = ""
    behalf: str | None = None
    paid: str | None = None
    transparency: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What was booked, and whether it is per day."""

    kind: GoalKind = GoalKind.none
    quantity: int = 0
    daily: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal:
    """An agreement with a buyer: `at` 1 first price, 2 second price, 3 fixed."""

    id: str
    floor_micros: int
    at: int
    guaranteed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LineItem:
    """What competes. `key` is `campaign_id/line_item_id`, unique and the same in every worker.

    Budgets are None where there is none. `flights` are (from, until) in ms, in order and apart. `curve` are shares of
    equal parts of a flight, which sum to 1; empty unless delivery is custom.
    """

    key: str
    id: str
    campaign_id: str
    advertiser: str
    type: Type
    priority: int
    status: Status
    bid_type: BidType
    bid_micros: int
    currency: str
    time_zone: str
    goal: Goal = Goal()
    budget_micros: int | None = None
    daily_budget_micros: int | None = None
    delivery: Delivery = Delivery.even
    curve: tuple[float, ...] = ()
    overdelivery: int = 0
    flights: tuple[tuple[int, int], ...] = ((0, FOREVER_MS),)
    targeting: Predicate = ALWAYS
    caps: tuple[Cap, ...] = ()
    rotation: Rotation = Rotation.optimised
    labels: frozenset[str] = frozenset()
    deal: Deal | None = None
    click_window_ms: int = 28 * 86_400_000
    view_window_ms: int = 86_400_000
    creatives: tuple[Creative, ...] = ()
    name: str = ""

    @property
    def ends_ms(self) -> int:
        """When its last flight is over."""
        return self.flights[-1][1]

    def runs(self, now_ms: int) -> bool:
        """May it serve at a moment, as far as status and flights say?"""
        return self.status is Status.active and any(begin <= now_ms < end for begin, end in self.flights)


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """A campaign as one record says it; a later record replaces it whole."""

    id: str
    advertiser: str
    order_id: str | None
    name: str
    status: Status
    currency: str
    time_zone: str
    budget_micros: int | None
    daily_budget_micros: int | None
    line_items: tuple[LineItem, ...]
