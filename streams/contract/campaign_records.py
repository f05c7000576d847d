"""Records of `campaigns` as campaigns: every word and number checked, and what can only be a slip refused.

A record is taken whole or not at all: what is wrong with it is told with the field, its value and what is allowed, and
the version before it stays.
"""

import re
from collections.abc import Callable, Sequence
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple, TypeVar

from embeddings.eligibility import age_of
from embeddings.events import Source
from embeddings.ids import item_id
from ranking.ads import campaigns as ads
from ranking.ads.auction import At
from ranking.ads.dayparts import require_zone
from ranking.ads.inventory import FORMATS
from ranking.ads.predicates import Kind, Predicate
from ranking.ads.wire import parse
from ranking.errors import CampaignRefused
from streams.contract import campaigns as wire
from streams.contract.deadletters import Code, DeadLetter
from streams.contract.messages import RawRecord
from streams.contract.parsing import SECONDS, Rules, Unreadable, read, user_of

E = TypeVar("E", bound=IntEnum)
DAY_MS = 86_400_000
_CATEGORY = 1 << 40
_CURRENCY = re.compile("[A-Z]{3}")
_SHARES = (ads.Type.sponsorship, ads.Type.network, ads.Type.house)
_QUANTITIES = (ads.Type.standard, ads.Type.bulk)


class CampaignFacts(NamedTuple):
    """A campaign and the record it came with."""

    campaign: ads.Campaign
    source: Source
    record: RawRecord


def key_of(kind: Kind, name: str) -> int:
    """What stands for an item or a category in a person's history: the item's id, or a number beyond those.

    >>> key_of("item", "x") == item_id("x"), key_of("category", "x") == item_id("x")
    (True, False)
    """
    return item_id(name) if kind == "item" else item_id(name) | _CATEGORY


def read_campaigns(
    source: Source, records: Sequence[RawRecord], rules: Rules
) -> tuple[list[CampaignFacts], list[str], list[DeadLetter]]:
    """The last word on each campaign of a fetch: campaigns, ids of those that a null stopped, and what is no campaign.

    A record that cannot be used changes nothing: neither what was before it nor what comes after. `campaign_id` may be
    left to the key.
    """
    good, dead = read(source, records, wire.decode_campaign, rules, compacted=True)
    latest: dict[str, CampaignFacts | None] = {}
    for record, campaign in good:
        try:
            name = user_of(record, campaign.campaign_id if campaign else None)
            facts = CampaignFacts(campaign_of(campaign, name, rules.first_ms), source, record) if campaign else None
            latest[name] = facts
        except CampaignRefused as error:
            dead.append(DeadLetter(source, record.offset, record, Code.invalid, str(error)))
        except Unreadable as error:
            dead.append(DeadLetter(source, record.offset, record, error.code, error.detail))
    kept = [facts for facts in latest.values() if facts is not None]
    return kept, [name for name, facts in latest.items() if facts is None], dead


def campaign_of(campaign: wire.Campaign, name: str, first_ms: int = 0) -> ads.Campaign:
    """The campaign that a record says.

    Args:
        campaign: the record.
        name: its id, or its key.
        first_ms: times before it are seconds.

    Raises:
        CampaignRefused: Names the field, the value and what is allowed. The record is dead-lettered.
        Unreadable: A time is in seconds. Dead-letter it.
    """
    if "/" in name:
        raise CampaignRefused(
            "campaign_id", name, "an id without /: it parts campaign and line item in what names them"
        )
    if not campaign.advertiser:
        raise CampaignRefused("advertiser", campaign.advertiser, "the id of an advertiser")
    if not _CURRENCY.fullmatch(campaign.currency):
        raise CampaignRefused("currency", campaign.currency, "three capital letters of ISO 4217")
    _zone("time_zone", campaign.time_zone)
    status = _word("status", campaign.status, ads.Status)
    _check_budgets("", campaign)
    _distinct("line_items", "id", [line.id for line in campaign.line_items])
    lines = tuple(
        _Reader(campaign, name, f"line_items[{n}]", line, status, first_ms).line()
        for n, line in enumerate(campaign.line_items)
    )
    return ads.Campaign(
        id=name,
        advertiser=campaign.advertiser,
        order_id=campaign.order_id,
        name=campaign.name or name,
        status=status,
        currency=campaign.currency,
        time_zone=campaign.time_zone,
        budget_micros=campaign.budget_micros,
        daily_budget_micros=campaign.daily_budget_micros,
        line_items=lines,
    )


class _Reader(NamedTuple):
    """One line item of a campaign; `at` is what errors call it."""

    campaign: wire.Campaign
    name: str
    at: str
    said: wire.LineItem
    status: ads.Status
    first_ms: int

    def line(self) -> ads.LineItem:
        line, campaign = self.said, self.campaign
        type_ = _word(f"{self.at}.type", line.type, ads.Type)
        flights = self._flights()
        _check_budgets(f"{self.at}.", line)
        made = ads.LineItem(
            key=f"{self.name}/{line.id}",
            id=line.id,
            campaign_id=self.name,
            advertiser=campaign.advertiser,
            name=line.name or line.id,
            type=type_,
            priority=line.priority or ads.DEFAULT_PRIORITY[type_],
            status=max(_word(f"{self.at}.status", line.status, ads.Status), self.status),
            bid_type=_word(f"{self.at}.bid_type", line.bid_type, ads.BidType),
            bid_micros=line.bid_micros,
            currency=campaign.currency,
            time_zone=campaign.time_zone,
            goal=self._goal(),
            budget_micros=line.budget_micros,
            daily_budget_micros=line.daily_budget_micros,
            delivery=_word(f"{self.at}.delivery", line.delivery or line.pacing, ads.Delivery),
            curve=self._curve(),
            overdelivery=line.overdelivery,
            flights=flights,
            targeting=self._targeting(),
            caps=self._caps(),
            rotation=_word(f"{self.at}.rotation", line.rotation, ads.Rotation),
            labels=frozenset((*campaign.labels, *line.labels)),
            deal=self._deal(),
            click_window_ms=line.click_days * DAY_MS,
            view_window_ms=line.impression_days * DAY_MS,
            creatives=self._creatives(),
        )
        self._agrees(made)
        return made

    def _flights(self) -> tuple[tuple[int, int], ...]:
        flights = self.said.flights
        if not flights:
            flights = (wire.Flight(begin=self.said.flight_from or 0, end=self.said.flight_until),)
        elif self.said.flight_from is not None or self.said.flight_until is not None:
            raise CampaignRefused(f"{self.at}.flight_from", self.said.flight_from, "nothing beside flights")
        for n, flight in enumerate(flights):
            for which, time_ms in (("from", flight.begin), ("until", flight.end)):
                if 0 < (time_ms or 0) < self.first_ms:
                    raise Unreadable(Code.seconds, f"{self.at}.flights[{n}].{which} {SECONDS}")
            if flight.end is not None and flight.end <= flight.begin:
                raise CampaignRefused(f"{self.at}.flights[{n}].until", flight.end, f"more than from, {flight.begin}")
        made = sorted((flight.begin, ads.FOREVER_MS if flight.end is None else flight.end) for flight in flights)
        for before, after in pairwise(made):
            if after[0] < before[1]:
                raise CampaignRefused(
                    f"{self.at}.flights", list(after), f"flights apart from each other; one ends at {before[1]}"
                )
        return tuple(made)

    def _targeting(self) -> Predicate:
        line, zone = self.said, self.campaign.time_zone
        return parse(line.targeting, field=f"{self.at}.targeting", dayparts=line.dayparts, zone=zone, key_of=key_of)

    def _goal(self) -> ads.Goal:
        goal = self.said.goal
        if goal is None:
            return ads.Goal()
        kind = _word(f"{self.at}.goal.kind", goal.kind, ads.GoalKind, without=ads.GoalKind.none)
        if goal.per not in ("lifetime", "day"):
            raise CampaignRefused(f"{self.at}.goal.per", goal.per, "lifetime, day")
        if kind is ads.GoalKind.share and goal.quantity > 100:
            raise CampaignRefused(f"{self.at}.goal.quantity", goal.quantity, "1 to 100 percent")
        return ads.Goal(kind=kind, quantity=goal.quantity, daily=goal.per == "day")

    def _curve(self) -> tuple[float, ...]:
        shares, custom = self.said.curve, (self.said.delivery or self.said.pacing) == ads.Delivery.custom.name
        if bool(shares) != custom or (custom and not sum(shares) > 0):
            raise CampaignRefused(
                f"{self.at}.curve", list(shares), "shares above 0 in all where delivery is custom, else nothing"
            )
        return tuple(share / sum(shares) for share in shares)

    def _caps(self) -> tuple[ads.Cap, ...]:
        found = [(f"caps[{n}]", cap) for n, cap in enumerate(self.campaign.caps)]
        found += [(f"{self.at}.caps[{n}]", cap) for n, cap in enumerate(self.said.caps)]
        return tuple(_cap(at, cap) for at, cap in found)

    def _deal(self) -> ads.Deal | None:
        deal = self.said.deal
        if deal is None:
            return None
        if deal.at not in (1, 2, 3):
            raise CampaignRefused(f"{self.at}.deal.at", deal.at, "1 (first price), 2 (second price), 3 (fixed)")
        return ads.Deal(id=deal.id, floor_micros=deal.bidfloor_micros, at=deal.at, guaranteed=deal.guar)

    def _creatives(self) -> tuple[ads.Creative, ...]:
        _distinct(f"{self.at}.creatives", "crid", [creative.crid for creative in self.said.creatives])
        return tuple(self._creative(f"{self.at}.creatives[{n}]", c) for n, c in enumerate(self.said.creatives))

    def _creative(self, at: str, c: wire.Creative) -> ads.Creative:
        if (c.w is None) != (c.h is None):
            raise CampaignRefused(f"{at}.h" if c.h is None else f"{at}.w", None, "both w and h, or neither")
        made = c.format or ("video" if c.dur else "banner" if c.w else "native")
        if made not in FORMATS:
            raise CampaignRefused(f"{at}.format", c.format, ", ".join(FORMATS))
        adomain = c.adomain or self.campaign.adomain
        if c.approved and not adomain:
            raise CampaignRefused(f"{at}.adomain", [], "the advertiser's domain: blocks and separation go by it")
        return ads.Creative(
            key=f"{self.name}/{self.said.id}/{c.crid}",
            crid=c.crid,
            approved=c.approved,
            item_id=c.item_id,
            adomain=tuple(domain.casefold().removeprefix("www.") for domain in adomain),
            cat=c.cat or self.campaign.cat,
            cattax=c.cattax,
            attr=c.attr,
            format=made,
            size=(c.w, c.h) if c.w and c.h else None,
            duration_s=c.dur,
            mimes=c.mimes,
            categories=c.categories,
            text=c.text,
            language=(c.language or "").casefold(),
            age=age_of(c.rating) if c.rating else None,
            weight=c.weight,
            sequence=c.sequence,
            bundle=c.bundle or "",
            behalf=c.behalf,
            paid=c.paid,
            transparency=c.transparency,
        )

    def _agrees(self, line: ads.LineItem) -> None:
        """Refuse what single fields allow and together cannot be served.

        Raises:
            CampaignRefused: see there.
        """
        kind, type_ = line.goal.kind, line.type
        if type_ in _QUANTITIES and kind in (ads.GoalKind.none, ads.GoalKind.share):
            raise CampaignRefused(f"{self.at}.goal", kind.name, f"a quantity: type is {type_.name}")
        if type_ in _SHARES and kind not in (ads.GoalKind.none, ads.GoalKind.share):
            raise CampaignRefused(f"{self.at}.goal.kind", kind.name, f"share: type is {type_.name}")
        if type_ is ads.Type.sponsorship and kind is ads.GoalKind.none:
            raise CampaignRefused(f"{self.at}.goal", None, "a share: type is sponsorship")
        if type_ is ads.Type.standard and line.ends_ms == ads.FOREVER_MS:
            raise CampaignRefused(f"{self.at}.flights", None, "an end: type is standard, a quantity by a date")
        if type_ is ads.Type.house and line.bid_micros:
            raise CampaignRefused(f"{self.at}.bid_micros", line.bid_micros, "0: type is house")
        if type_ is ads.Type.price_priority and not line.bid_micros:
            raise CampaignRefused(f"{self.at}.bid_micros", 0, "more than 0: type is price_priority")
        if line.deal is not None and line.deal.at == At.fixed and line.deal.floor_micros == 0:
            raise CampaignRefused(f"{self.at}.deal.bidfloor_micros", 0, "the price that was agreed: at is 3 (fixed)")
        formats = {creative.format for creative in line.creatives}
        if line.bid_type is ads.BidType.cpcv and formats - {"video", "audio"}:
            raise CampaignRefused(
                f"{self.at}.bid_type", "cpcv", f"cpm, cpc or cpa: it has creatives of {', '.join(sorted(formats))}"
            )


def _cap(at: str, cap: wire.Cap) -> ads.Cap:
    unit = _word(f"{at}.time_unit", cap.time_unit, ads.Unit)
    if unit not in ads.UNIT_S and cap.per != 1:
        raise CampaignRefused(f"{at}.per", cap.per, f"1: time_unit is {unit.name}")
    if ads.UNIT_S.get(unit, 0) * cap.per > 366 * 86_400:
        raise CampaignRefused(f"{at}.per", cap.per, f"at most a year: time_unit is {unit.name}")
    level = "line_item" if cap.level == "ad" else cap.level
    return ads.Cap(
        level=_word(f"{at}.level", level, ads.Level),
        unit=unit,
        count=cap.count,
        window_s=ads.UNIT_S.get(unit, 0) * cap.per,
        min_gap_s=cap.min_gap_s,
    )


def _word(field: str, value: str, words: type[E], *, without: E | None = None) -> E:
    known: Callable[[str], E | None] = words.__members__.get
    if (found := known(value)) is None or found is without:
        raise CampaignRefused(field, value, ", ".join(word.name for word in words if word is not without))
    return found


def _zone(field: str, value: str) -> None:
    try:
        require_zone(value)
    except ValueError:
        raise CampaignRefused(field, value, "a name of the IANA time zone database, such as Europe/Berlin") from None


def _check_budgets(at: str, said: wire.Campaign | wire.LineItem) -> None:
    """A daily budget above the whole is a slip."""
    whole, daily = said.budget_micros, said.daily_budget_micros
    if whole is not None and daily is not None and daily > whole:
        raise CampaignRefused(f"{at}daily_budget_micros", daily, f"at most budget_micros, {whole}")


def _distinct(field: str, name: str, values: Sequence[str]) -> None:
    seen = set[str]()
    for n, value in enumerate(values):
        if not value or value in seen:
            raise CampaignRefused(f"{field}[{n}].{name}", value, "an id, and another one for each")
        seen.add(value)
