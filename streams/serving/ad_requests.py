"""What a request asks of ads: its `imp`s become places for auctions, its context becomes what targeting is asked about.

Whatever is of the person (segments, a place on the map) is used only where the profile may be; everything else is the
same for everybody in the same context. Floors are exact: decimal as they are written, rounded up once.
"""

import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction

import msgspec

from embeddings.eligibility import age_of
from embeddings.events import CONSENT_ADS, CONSENT_STORE
from embeddings.spend import decision_id
from ranking.ads.auction import MOST_MICROS, At
from ranking.ads.currencies import Currencies
from ranking.ads.gates import audience, gate
from ranking.ads.inventory import FORMATS
from ranking.ads.selection import Slot
from ranking.errors import UnknownCurrency
from streams.contract.imp_records import Imp
from streams.contract.records import Request, encode
from streams.serving.ad_contexts import content_of, distinct, opportunity_of, seconds, sizes, words_of
from streams.serving.ad_values import AdAsk, AdPlace, Unfilled
from streams.serving.slates import Trigger, context_code

INVALID_REQUEST = 2
"""OpenRTB's no-bid reason for what cannot be sold as it is asked for."""
_TAXONOMIES = range(1, 10)
_MILLE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AskRules:
    """How requests are read.

    Attributes:
        currency: of the auction.
        rates: what other currencies are worth.
        secret: the key under which people are hashed for the ledger, the same in all workers; empty: nobody is.
        deadline_ms: of a request that says none.
        at: the rule of price where a request says none.
        children: see `gates.gate`.
    """

    currency: str
    rates: Currencies
    secret: bytes = field(repr=False)
    deadline_ms: int = 200
    at: At = At.second_price
    children: bool = True


def ad_ask(request: Request, trigger: Trigger, bits: int, rules: AskRules) -> AdAsk | None:
    """What a request asks of ads; None where it has no `imp`.

    A slot that cannot be sold (its floor is in a currency nobody knows, its id was there before) is `unfilled`, the
    others go on.

    Args:
        request: the record.
        trigger: what is known of it beside: whose it is, where it lies in its topic, its slate.
        bits: what it allows: `Judge.of_request`.
        rules: see there.
    """
    if not request.imp:
        return None
    coppa = _coppa(request)
    allowed = gate(
        ads=bool(bits & CONSENT_ADS),
        store=bool(bits & CONSENT_STORE),
        coppa=coppa,
        lmt=bool(request.device and request.device.lmt),
        personalised=request.personalised,
        children=rules.children,
    )
    reader = _Reader(request, trigger, rules, coppa, words_of(request, trigger.viewer))
    places, unfilled = reader.places()
    ask = AdAsk(
        user_id=trigger.user_id,
        person=person_of(trigger.user_id, rules.secret),
        personal=True,
        context=context_code(request.context, request.surface),
        now_ms=trigger.event_ms,
        places=places,
        slate_id=trigger.slate_id,
        request_id=request.request_id,
        deadline_ms=deadline_ms(request, trigger.published_ms, rules.deadline_ms),
        unfilled=unfilled,
        refused=allowed.refused,
    )
    return _allowed(ask, personal=allowed.personal, counted=allowed.counted)


def narrowed(ask: AdAsk, bits: int) -> AdAsk:
    """An ask after the stored consent of its person was read, which can only take away."""
    return _allowed(
        ask,
        personal=ask.personal and bool(bits & CONSENT_ADS) and bool(bits & CONSENT_STORE),
        counted=bool(ask.person) and bool(bits & CONSENT_STORE),
    )


def person_of(user_id: str, secret: bytes) -> str:
    """What the ledger calls a person: HMAC-SHA-256 under the house's secret, the first 128 bits.

    Without a secret nobody has a name there, for a plain hash of an id is as good as the id: nothing is counted.
    """
    if not user_id or not secret:
        return ""
    return hmac.digest(secret, b"ads\0" + user_id.encode(), "sha256")[:16].hex()


def deadline_ms(request: Request, published_ms: int, default_ms: int) -> int:
    """When nobody waits for an answer any more: `deadline_ms`, else OpenRTB's `tmax`, else the default."""
    said = request.tmax if request.deadline_ms is None else request.deadline_ms
    return published_ms + (default_ms if said is None else said)


def _allowed(ask: AdAsk, *, personal: bool, counted: bool) -> AdAsk:
    """Without what may not be used."""
    places = ask.places if personal else tuple(map(_impersonal, ask.places))
    return replace(ask, personal=personal, person=ask.person if counted else "", places=places)


def _impersonal(place: AdPlace) -> AdPlace:
    words = {name: said for name, said in place.opportunity.words.items() if name != "segment"}
    return replace(place, opportunity=replace(place.opportunity, words=words, place=None))


def _coppa(request: Request) -> bool:
    return any(said and said.coppa for said in (request.consent, request.regs))


@dataclass(frozen=True, slots=True)
class _Reader:
    """The slots of one request; `words` are what all of them share."""

    request: Request
    trigger: Trigger
    rules: AskRules
    coppa: bool
    words: Mapping[str, Sequence[str]]

    def places(self) -> tuple[tuple[AdPlace, ...], tuple[Unfilled, ...]]:
        """Slots that differ in nothing but their ids as one place each, and those that cannot be sold."""
        alike: dict[bytes, list[Imp]] = {}
        unfilled: list[Unfilled] = []
        seen: set[str] = set()
        payable = not self.request.cur or self.rules.currency in map(str.upper, self.request.cur)
        for n, imp in enumerate(self.request.imp):
            if imp.id in seen:
                unfilled.append(self._unfilled(imp, "duplicate", f"{imp.id}\0{n}"))
                continue
            seen.add(imp.id)
            if not payable:
                unfilled.append(self._unfilled(imp, "currency", imp.id))
                continue
            alike.setdefault(encode(msgspec.structs.replace(imp, id="")), []).append(imp)
        places = []
        for imps in alike.values():
            try:
                places.append(self._place(imps))
            except UnknownCurrency:
                unfilled += [self._unfilled(imp, "currency", imp.id) for imp in imps]
        return tuple(places), tuple(unfilled)

    def _unfilled(self, imp: Imp, reason: str, name: str) -> Unfilled:
        return Unfilled(
            imp_id=imp.id, decision_id=self._id(name), tagid=imp.tagid or "", reason=reason, nbr=INVALID_REQUEST
        )

    def _id(self, name: str) -> str:
        source = self.trigger.source
        return decision_id(source.topic, source.partition, self.trigger.offset, name)

    def _place(self, imps: Sequence[Imp]) -> AdPlace:
        imp, at = imps[0], self.request.at
        per_second = max((said.mincpmpersec or 0 for said in (imp.video, imp.audio) if said), default=0)
        return AdPlace(
            imp_ids=tuple(each.id for each in imps),
            decision_ids=tuple(self._id(each.id) for each in imps),
            slot=self._slot(imp),
            opportunity=opportunity_of(self.request, imp, self.words, self.trigger.event_ms),
            at=self.rules.at if at is None else At.first_price if at == At.first_price else At.second_price,
            floor_micros=self._floor(imp.bidfloor, imp.bidfloorcur),
            per_second_micros=self._floor(per_second, imp.bidfloorcur),
            deal_floor_micros=self._deals(imp),
            tagid=imp.tagid or "",
            exp_s=imp.exp or 0,
        )

    def _floor(self, per_mille: float, currency: str) -> int:
        """A floor in units per thousand impressions as micros per impression; nothing below 0 is one."""
        if per_mille <= 0:
            return 0
        micros = Fraction(Decimal(repr(per_mille))) * (1_000_000 // _MILLE)
        return min(self.rules.rates.least(micros, currency.upper(), self.rules.currency), MOST_MICROS + 1)

    def _deals(self, imp: Imp) -> dict[str, int]:
        """What each deal asks for; one in a currency that nobody knows is not offered."""
        floors = {}
        for deal in (imp.pmp and imp.pmp.deals) or ():
            try:
                floors[deal.id] = self._floor(deal.bidfloor, deal.bidfloorcur)
            except UnknownCurrency:
                continue
        return floors

    def _slot(self, imp: Imp) -> Slot:
        content = content_of(self.request)
        rating = content.contentrating if content else None
        return Slot(
            formats=tuple(name for name in FORMATS if getattr(imp, name)) or FORMATS,
            sizes=sizes(imp),
            seconds=seconds(imp),
            mimes=distinct(mime for said in (imp.banner, imp.video, imp.audio) if said for mime in said.mimes or ()),
            blocked=distinct(self._blocked(imp)),
            deals=tuple(self._deals(imp)),
            deals_only=bool(imp.pmp and imp.pmp.private_auction),
            age_limit=audience(self.trigger.viewer.limit, content=age_of(rating) if rating else None, coppa=self.coppa),
        )

    def _blocked(self, imp: Imp) -> Iterable[str]:
        """Words of `inventory.carries` that a creative must not have.

        A block list speaks of one taxonomy: what is categorised in another cannot be compared with it, and is blocked.
        """
        said, taxonomy = self.request, self.request.cattax or 1
        for host in (*(said.badv or ()), *(imp.badv or ())):
            yield f"adv:{host.casefold().removeprefix('www.')}"
        categories = (*(said.bcat or ()), *(imp.bcat or ()))
        for category in categories:
            yield f"cat:{taxonomy}:{category}"
        if categories:
            yield from (f"cattax:{other}" for other in _TAXONOMIES if other != taxonomy)
        formats = [each for each in (imp.banner, imp.video, imp.audio, imp.native) if each]
        for attributes in (said.battr, imp.battr, *(each.battr for each in formats)):
            yield from (f"attr:{attribute}" for attribute in attributes or ())
