"""The ads of a batch of requests: what is out for their people is asked before profiles are read, all else after."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from embeddings.spend import InFlight
from embeddings.store import Profiles
from ranking.ads.losses import Loss
from streams.contract.consent import Judge
from streams.contract.observations import Observation
from streams.contract.records import Request
from streams.serving.ad_decisions import Decided, Decision
from streams.serving.ad_recall import recalled
from streams.serving.ad_requests import AskRules, ad_ask, narrowed
from streams.serving.ad_values import AdAsk
from streams.serving.ad_writer import observe_ads
from streams.serving.ads import AdServer, People
from streams.serving.slates import Trigger


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
    _told: list[Observation] = field(init=False, default_factory=list)

    def asking(self, wanted: Sequence[tuple[Trigger, Request]]) -> Asking:
        """What requests ask of ads, and what is out for their people. Call it before the profiles are read."""
        asks = [
            (n, ask)
            for n, (trigger, request) in enumerate(wanted)
            if (ask := ad_ask(request, trigger, self.judge.of_request(request), self.rules)) is not None
        ]
        found = [ask for _, ask in asks]
        flights, before = self.server.known(found)
        at_A = [n for n, _ in asks]
        return Asking(at_A, [wanted[n][0] for n in at_A], found, flights, before)

    def decided(self, asking: Asking, profiles: Profiles, *, known: bool, now_ms: int) -> dict[int, list[Decision]]:
        """The decisions of each request that asks for ads, by its place.

        Args:
            asking: see there.
            profiles: of all requests.
            known: could they be read? Where not, nothing of the people is used or kept, as their consent is not known.
            now_ms: who does not wait for an answer any more is not sold.
        """
        if not asking.asks:
            return {}
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
        decided = self.server.decide(asks, people, asking.before)
        personal_A = np.array([ask.personal for ask in asks], np.bool_) & people.known_A
        scorer, market = self.server.scorer, self.server.exchange.market
        self._told += observed(decided, asking.triggers)
        self._told += recalled(decided, asks, asking.triggers, states, personal_A, scorer, market)
        return dict(zip(asking.at_A, decided.of_ask, strict=True))

    def take_told(self) -> list[Observation]:
        """What was decided since, for the learner, and what was decided before and came again."""
        told, self._told = self._told, []
        return told


def _in_time(ask: AdAsk, now_ms: int) -> AdAsk:
    """Who does not wait for an answer any more is sold nothing."""
    if ask.refused or ask.deadline_ms is None or now_ms <= ask.deadline_ms:
        return ask
    return replace(ask, refused=int(Loss.expired))


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
        scored = bids.scored
        yield observe_ads(
            source,
            [trigger.offset for trigger, _ in mine],
            [decision.record.decision_id for _, decision in mine],
            [line for row in rows if (line := market.lines[row]) is not None],
            bids.at_M[candidate_A],
            scored.creatives,
            scored.viewers,
            scored.candidates,
            scored.chances,
            bids.propensity_M[candidate_A],
        )
