"""The ads of a batch of requests: what is out for their people is asked before profiles are read, all else after.

A request names its places itself (`imp`), or is for a surface that opted in (`ads.surfaces`): then its page brings ads.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.spend import InFlight
from embeddings.store import Profiles
from ranking.ads.losses import Loss
from streams.contract.consent import Judge
from streams.contract.observations import Observation
from streams.contract.records import Request
from streams.serving.ad_decisions import Decided, Decision
from streams.serving.ad_pages import Organic, Surface, seats, unasked
from streams.serving.ad_people import People
from streams.serving.ad_recall import recalled
from streams.serving.ad_requests import AskRules, ad_ask, narrowed
from streams.serving.ad_values import AdAsk
from streams.serving.ad_writer import observe_ads
from streams.serving.ads import AdServer
from streams.serving.slates import Seats, Trigger
from streams.serving.values import Scored


class Filled(NamedTuple):
    """What became of ads: the decisions of those that asked for any, and how their pages are laid, by their places."""

    sold: Mapping[int, Sequence[Decision]]
    seats: Mapping[int, Seats]


@dataclass(frozen=True, slots=True)
class Asking:
    """The asks among R requests, by their places there, what is out for each person, and what was decided before."""

    at_A: Sequence[int]
    triggers: Sequence[Trigger]
    asks: Sequence[AdAsk]
    flights: Sequence[InFlight | None]
    before: Mapping[str, bytes]


@dataclass(slots=True, kw_only=True)
class AdAnswers:
    """Fills the `imp`s of requests. One per lane; called from one thread at a time."""

    server: AdServer
    rules: AskRules
    judge: Judge
    _surfaces: Mapping[str, Surface] = field(init=False)
    _told: list[Observation] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._surfaces = Surface.of(self.server.settings)

    def asking(self, wanted: Sequence[tuple[Trigger, Request]]) -> Asking:
        """What requests ask of ads, and what is out for their people. Call it before the profiles are read."""
        asks = [
            (n, ask) for n, (trigger, request) in enumerate(wanted) if (ask := self._ask(request, trigger)) is not None
        ]
        found, at_A = [ask for _, ask in asks], [n for n, _ in asks]
        flights, before = self.server.known([ask.person for ask in found], found)
        if before is None:
            found, before = unasked(found), {}
        return Asking(at_A, [wanted[n][0] for n in at_A], found, flights, before)

    def _ask(self, request: Request, trigger: Trigger) -> AdAsk | None:
        if request.imp:
            return ad_ask(request, trigger, self.judge.of_request(request), self.rules)
        surface = self._surfaces.get(trigger.surface)
        if surface is None or not self.server.exchange.market.sells:
            return None
        return surface.ask(request, trigger, self.judge.of_request(request), self.rules)

    def decided(
        self, asking: Asking, profiles: Profiles, scored: Scored, at_P: NDArray[np.intp], *, known: bool, now_ms: int
    ) -> Filled:
        """The decisions of each request that asks for ads, by its place, and how its page is laid.

        Args:
            asking: see there.
            profiles: of all requests.
            scored: their slates.
            at_P: where that of each is among these.
            known: could they be read? Where not, nothing of the people is used or kept, as their consent is not known.
            now_ms: who does not wait for an answer any more is not sold.
        """
        if not asking.asks:
            return Filled({}, {})
        at_A = np.array(asking.at_A, np.int64)
        states = profiles.states.take(at_A)
        stored, met = states.consent_U.tolist(), (states.events_U > 0).tolist()
        asks = [
            _in_time(narrowed(ask, bits if known else 0) if here or not known else ask, now_ms)
            for ask, bits, here in zip(asking.asks, stored, met, strict=True)
        ]
        people = People(
            states=states,
            exposures=profiles.exposures.take(at_A),
            known_A=np.full(len(asks), known),
            flights=asking.flights,
        )
        decided, seats_A = decided_on(self.server, asks, people, asking.before, scored, at_P[at_A])
        self._told += taught(self.server, decided, asks, asking.triggers, people)
        return filled(asking.at_A, decided, seats_A)

    def take_told(self) -> list[Observation]:
        """What was decided since, for the learner, and what was decided before and came again."""
        told, self._told = self._told, []
        return told


def decided_on(
    server: AdServer,
    asks: Sequence[AdAsk],
    people: People,
    before: Mapping[str, bytes],
    scored: Scored,
    at_A: NDArray[np.intp],
) -> tuple[Decided, list[Seats | None]]:
    """Decide, with the organic items of pages that are of any; and where these stand then beside their ads."""
    if not any(place.page for ask in asks for place in ask.places):
        return server.decide(asks, people, before), [None] * len(asks)
    organic = Organic.of(scored, at_A, server.scorer.serving.items)
    decided, risk_of = server.decide(asks, people, before, organic), server.risk_of()
    pages = zip(asks, decided.of_ask, organic.risk_AN, organic.items_A.tolist(), strict=True)
    return decided, [seats(*each, risk_of) for each in pages]


def filled(at_A: Sequence[int], decided: Decided, seats_A: Sequence[Seats | None]) -> Filled:
    """What was decided for asks, by the places `at_A` of what they are of."""
    laid = {n: page for n, page in zip(at_A, seats_A, strict=True) if page is not None}
    return Filled(dict(zip(at_A, decided.of_ask, strict=True)), laid)


def _in_time(ask: AdAsk, now_ms: int) -> AdAsk:
    """Who does not wait for an answer any more is sold nothing."""
    if ask.refused or ask.deadline_ms is None or now_ms <= ask.deadline_ms:
        return ask
    return replace(ask, refused=int(Loss.expired))


def taught(
    server: AdServer, decided: Decided, asks: Sequence[AdAsk], triggers: Sequence[Trigger], people: People
) -> Iterator[Observation]:
    """What decisions on A asks teach: those made now, and those that stand since before."""
    personal_A = np.array([ask.personal for ask in asks], np.bool_) & people.known_A
    yield from observed(decided, triggers)
    yield from recalled(decided, asks, triggers, people.states, personal_A, server.scorer, server.exchange.market)


def observed(decided: Decided, triggers: Sequence[Trigger]) -> Iterator[Observation]:
    """What filled slots teach, by the partition of the requests that A asks came from."""
    winners, bids, market = decided.winners, decided.bids, decided.market
    if winners is None or bids is None or market is None:
        return
    told = [
        (trigger, decision)
        for trigger, some in zip(triggers, decided.of_ask, strict=True)
        for decision in some
        if decision.winner >= 0
    ]
    for source in dict.fromkeys(trigger.source for trigger, _ in told):
        mine = [(trigger, decision) for trigger, decision in told if trigger.source == source]
        candidate_A = winners.candidate_W[[decision.winner for _, decision in mine]]
        rows = winners.row_W[[decision.winner for _, decision in mine]].tolist()
        predicted = bids.predicted
        yield observe_ads(
            source,
            [trigger.offset for trigger, _ in mine],
            [decision.record.decision_id for _, decision in mine],
            [line for row in rows if (line := market.lines[row]) is not None],
            bids.at_M[candidate_A],
            predicted.creatives,
            predicted.viewers,
            predicted.candidates,
            predicted.chances,
            bids.propensity_M[candidate_A],
        )
