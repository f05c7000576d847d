"""What passes between the stages of an ad decision: who asks for which places, and what may be known of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ranking.ads.auction import At
from ranking.ads.joint import PageRules
from ranking.ads.losses import Loss
from ranking.ads.predicates import Opportunity
from ranking.ads.selection import Slot


class OfferedDeal(NamedTuple):
    """A deal as a request offers it: what it asks of it per impression, and to whom; any where nobody is named.

    Attributes:
        floor_micros: in the auction's currency.
        seats: advertisers.
        domains: their domains, and what lies below.
    """

    floor_micros: int
    seats: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()

    def loss(self, advertiser: str, adomain: Sequence[str]) -> Loss:
        """Why an advertiser's creative may not use it, `won` if it may."""
        if self.seats and advertiser not in self.seats:
            return Loss.seat_blocked
        above = {host.split(".", n)[-1] for host in adomain for n in range(host.count(".") + 1)}
        return Loss.won if not self.domains or above & self.domains else Loss.advertiser_excluded


@dataclass(frozen=True, slots=True)
class PageTerms:
    """A page whose ads are laid among its organic items.

    Attributes:
        rules: how; `tradeoff` is per micro.
        size: its places.
        show_rate: the share of its ads that is expected to be shown: so much of a price is reserved.
    """

    rules: PageRules
    size: int
    show_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AdPlace:
    """Places for ads that differ in nothing but their ids: one auction with as many slots as it has `imp_ids`.

    Attributes:
        imp_ids: of OpenRTB's `imp`, in order: the first is the best slot.
        decision_ids: what the spend ledger knows each of them by (`embeddings.spend.decision_id`).
        slot: which creatives fit.
        opportunity: what targeting is asked about; its `seen` is left to the person's state.
        at: the rule of price for candidates without a deal.
        floor_micros: what an impression must bring at least, in the auction's currency.
        per_second_micros: and each second of it.
        offers: the deals that the request offers, by id.
        tagid: the placement, empty where the request names none.
        exp_s: how many seconds may pass until the impression; 0 where the request does not say.
        page: where these are no places yet: so many ads at most are laid on a page, and `decision_ids` are of all of
            its places.
    """

    imp_ids: tuple[str, ...]
    decision_ids: tuple[str, ...]
    slot: Slot
    opportunity: Opportunity
    at: At = At.second_price
    floor_micros: int = 0
    per_second_micros: int = 0
    offers: Mapping[str, OfferedDeal] = field(default_factory=dict)
    tagid: str = ""
    exp_s: int = 0
    page: PageTerms | None = None

    @property
    def show_rate(self) -> float:
        """What share of ads here is expected to be shown; all of them where they were asked for place by place."""
        return self.page.show_rate if self.page else 1.0

    @property
    def named(self) -> tuple[tuple[str, str], ...]:
        """The `imp` id and decision id of each slot, to say why it is empty; an empty page says so once."""
        if self.page:
            return (("", self.decision_ids[0]),)
        return tuple(zip(self.imp_ids, self.decision_ids, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfilled:
    """A place that nothing is sold for, whatever there is: its decision is empty and says why.

    Attributes:
        imp_id, decision_id, tagid: see `AdPlace`.
        reason: one word, for `AdDecision.reasons`.
        nbr: OpenRTB's no-bid reason.
    """

    imp_id: str
    decision_id: str
    tagid: str
    reason: str
    nbr: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdAsk:
    """One page that wants ads: the places of one request, which no two ads of the same kind share.

    Attributes:
        user_id: whose page it is; empty where nobody says.
        person: a keyed hash of the user id for the ledger; empty where nothing may be kept of them (purpose 1).
        personal: may the profile be read for ads? Where not, the decision is the same for everybody in this context.
        context: code of `ranking.features`, for the model.
        now_ms: the moment it is decided for.
        places: what is to be filled.
        slate_id, request_id: what it belongs to.
        deadline_ms: when nobody waits for it any more.
    """

    user_id: str
    person: str
    personal: bool
    context: int
    now_ms: int
    places: tuple[AdPlace, ...]
    slate_id: str = ""
    request_id: str | None = None
    deadline_ms: int | None = None
    unfilled: tuple[Unfilled, ...] = ()
    """Places that are no auction."""
    refused: int = 0
    """A `ranking.ads.losses.Loss` where a gate lets no ad be shown at all; 0 where it may."""

    @property
    def kept_user_id(self) -> str:
        """Whose page it is, for records that are kept; empty where nothing may be kept of them (purpose 1)."""
        return self.user_id if self.person or self.personal else ""
