"""On which terms a slot is sold: what fits, what is blocked, what it must bring. The same for whoever is there.

Publishers send the same few slots again and again, so terms are remembered by what makes them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from ranking.ads.auction import MOST_MICROS
from ranking.ads.currencies import Currencies
from ranking.ads.inventory import FORMATS, TAXONOMIES, UNCATEGORISED
from ranking.ads.selection import Slot
from ranking.errors import UnknownCurrency
from streams.contract.imp_records import Imp
from streams.contract.records import Request, encode
from streams.serving.ad_contexts import distinct, remember, seconds, sizes
from streams.serving.ad_values import OfferedDeal

_MILLE = 1_000


class Terms(NamedTuple):
    """The terms of one slot; see `ad_values.AdPlace`."""

    slot: Slot
    floor_micros: int
    per_second_micros: int
    offers: Mapping[str, OfferedDeal]


@dataclass(frozen=True, slots=True)
class Terminology:
    """Reads terms, of which it remembers some thousands; `currency` is the auction's."""

    currency: str
    rates: Currencies
    _known: dict[tuple[bytes, bytes, int], Terms] = field(default_factory=dict, compare=False, repr=False)

    def terms(self, request: Request, imp: Imp, slot: bytes, blocks: bytes, age_limit: int) -> Terms:
        """The terms of an imp.

        Args:
            request: what blocks for all of its imps.
            imp: the slot.
            slot: the imp without its id, encoded.
            blocks: `blocks_of` the request.
            age_limit: the highest rating that may be shown.

        Raises:
            UnknownCurrency: its floor is in money without a rate. The slot stays unfilled.
        """
        key = slot, blocks, age_limit
        found = self._known.get(key)
        if found is None:
            found = self._read(request, imp, age_limit)
            remember(self._known, key, found, len(slot) + len(blocks))
        return found

    def _read(self, request: Request, imp: Imp, age_limit: int) -> Terms:
        per_second = max((said.mincpmpersec or 0 for said in (imp.video, imp.audio) if said), default=0)
        offers = self._offers(imp)
        slot = Slot(
            formats=tuple(name for name in FORMATS if getattr(imp, name)) or FORMATS,
            sizes=sizes(imp),
            seconds=seconds(imp),
            mimes=distinct(mime for said in (imp.banner, imp.video, imp.audio) if said for mime in said.mimes or ()),
            blocked=distinct(_blocked(request, imp)),
            seats=distinct(request.wseat or ()),
            deals=tuple(offers),
            deals_only=bool(imp.pmp and imp.pmp.private_auction),
            age_limit=age_limit,
        )
        floors = self._floor(imp.bidfloor, imp.bidfloorcur), self._floor(per_second, imp.bidfloorcur)
        return Terms(slot, *floors, offers)

    def _floor(self, per_mille: float, currency: str) -> int:
        """A floor in units per thousand impressions as micros per impression; nothing below 0 is one."""
        if per_mille <= 0:
            return 0
        micros = Fraction(Decimal(repr(per_mille))) * (1_000_000 // _MILLE)
        return min(self.rates.least(micros, currency.upper(), self.currency), MOST_MICROS + 1)

    def _offers(self, imp: Imp) -> dict[str, OfferedDeal]:
        """The deals by id; one in a currency that nobody knows is not offered."""
        offers = {}
        for deal in (imp.pmp and imp.pmp.deals) or ():
            try:
                floor = self._floor(deal.bidfloor, deal.bidfloorcur)
            except UnknownCurrency:
                continue
            seats, domains = frozenset(deal.wseat or ()), frozenset(map(_host, deal.wadomain or ()))
            offers[deal.id] = OfferedDeal(floor, seats, domains)
        return offers


def blocks_of(request: Request) -> bytes:
    """What a request blocks in all of its slots, as something to compare."""
    return encode(
        (request.bcat, request.cattax, request.badv, request.bapp, request.battr, request.wseat, request.bseat)
    )


def _host(domain: str) -> str:
    """A domain as creatives have theirs."""
    return domain.casefold().removeprefix("www.")


def _blocked(request: Request, imp: Imp) -> Iterable[str]:
    """Words of `inventory.carries` that a creative must not have.

    A block list speaks of one taxonomy: what is categorised in another, or not at all, cannot be compared with it, and
    is blocked.
    """
    taxonomy = request.cattax or 1
    for host in (*(request.badv or ()), *(imp.badv or ())):
        yield f"adv:{_host(host)}"
    yield from (f"app:{bundle}" for bundle in request.bapp or ())
    yield from (f"seat:{seat}" for seat in request.bseat or ())
    categories = (*(request.bcat or ()), *(imp.bcat or ()))
    for category in categories:
        yield f"cat:{taxonomy}:{category}"
    if categories:
        yield from (f"cattax:{other}" for other in (UNCATEGORISED, *TAXONOMIES) if other != taxonomy)
    formats = [each for each in (imp.banner, imp.video, imp.audio, imp.native) if each]
    for attributes in (request.battr, imp.battr, *(each.battr for each in formats)):
        yield from (f"attr:{attribute}" for attribute in attributes or ())
