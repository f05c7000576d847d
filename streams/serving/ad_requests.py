"""What a request asks of ads: its `imp`s become places for auctions, its context becomes what targeting is asked about.

Whatever is of the person (segments, a place on the map) is used only where the profile may be; everything else is the
same for everybody in the same context. Floors are exact: decimal as they are written, rounded up once.
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from embeddings.eligibility import age_of
from embeddings.events import CONSENT_ADS, CONSENT_STORE
from embeddings.spend import decision_id
from ranking.ads.auction import At
from ranking.ads.currencies import Currencies
from ranking.ads.gates import audience, gate
from ranking.errors import UnknownCurrency
from streams.contract.imp_records import Imp
from streams.contract.records import Request, encode
from streams.serving.ad_contexts import Contexts, content_of, opportunity_of
from streams.serving.ad_terms import Terminology, Terms, blocks_of
from streams.serving.ad_values import AdAsk, AdPlace, Unfilled
from streams.serving.slates import Trigger
from streams.serving.viewers import context_code
from streams.settings import Settings

INVALID_REQUEST = 2
"""OpenRTB's no-bid reason for what cannot be sold as it is asked for."""


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
        sold: reads on which terms slots are sold.
        contexts: reads where they are.
    """

    currency: str
    rates: Currencies
    secret: bytes = field(repr=False)
    deadline_ms: int = 200
    at: At = At.second_price
    children: bool = True
    sold: Terminology = field(init=False, repr=False, compare=False)
    contexts: Contexts = field(default_factory=Contexts, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, settings: Settings, secret: bytes) -> "AskRules":
        """As the settings say, with a secret."""
        ads, deadline_ms = settings.ads, settings.slates.deadline_ms
        return cls(currency=ads.currency, rates=ads.rates(), secret=secret, deadline_ms=deadline_ms, at=At[ads.at])

    def __post_init__(self) -> None:
        object.__setattr__(self, "sold", Terminology(self.currency, self.rates))


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
    content = content_of(request)
    rating = content.contentrating if content else None
    limit = audience(trigger.viewer.limit, content=age_of(rating) if rating else None, coppa=coppa)
    places, unfilled = _Reader(request, trigger, rules, limit, rules.contexts.words(request, trigger.viewer)).places()
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
    """The slots of one request; `words` are what all of them share, `age_limit` the highest rating of ads in them."""

    request: Request
    trigger: Trigger
    rules: AskRules
    age_limit: int
    words: Mapping[str, Sequence[str]]

    def places(self) -> tuple[tuple[AdPlace, ...], tuple[Unfilled, ...]]:
        """Slots that differ in nothing but their ids as one place each, and those that cannot be sold."""
        alike: dict[bytes, list[Imp]] = {}
        unfilled: list[Unfilled] = []
        seen: set[str] = set()
        payable = not self.request.cur or self.rules.currency in map(str.upper, self.request.cur)
        for n, imp in enumerate(self.request.imp):
            if imp.id in seen:
                unfilled.append(self._unfilled(imp, "duplicate", n))
                continue
            seen.add(imp.id)
            if not payable:
                unfilled.append(self._unfilled(imp, "currency"))
                continue
            alike.setdefault(encode(msgspec.structs.replace(imp, id="")), []).append(imp)
        places, blocks = [], blocks_of(self.request)
        for slot, imps in alike.items():
            try:
                terms = self.rules.sold.terms(self.request, imps[0], slot, blocks, self.age_limit)
                places.append(self._place(imps, terms))
            except UnknownCurrency:
                unfilled += [self._unfilled(imp, "currency") for imp in imps]
        return tuple(places), tuple(unfilled)

    def _unfilled(self, imp: Imp, reason: str, place: int | None = None) -> Unfilled:
        name = self._id(imp.id, place)
        return Unfilled(imp_id=imp.id, decision_id=name, tagid=imp.tagid or "", reason=reason, nbr=INVALID_REQUEST)

    def _id(self, name: str, place: int | None = None) -> str:
        """Of a slot by its name; by its place as well where it is not the first of that name."""
        source = self.trigger.source
        topic = source.topic if place is None else f"{source.topic}\0again {place}"  # no topic is called so
        return decision_id(topic, source.partition, self.trigger.offset, name)

    def _place(self, imps: Sequence[Imp], terms: Terms) -> AdPlace:
        imp, at = imps[0], self.request.at
        return AdPlace(
            imp_ids=tuple(each.id for each in imps),
            decision_ids=tuple(self._id(each.id) for each in imps),
            slot=terms.slot,
            opportunity=opportunity_of(self.request, imp, self.words, self.trigger.event_ms),
            at=self.rules.at if at is None else At.first_price if at == At.first_price else At.second_price,
            floor_micros=terms.floor_micros,
            per_second_micros=terms.per_second_micros,
            offers=terms.offers,
            tagid=imp.tagid or "",
            exp_s=imp.exp or 0,
        )
